//! Who may call what: one row for every RPC of the Auth Service.
//!
//! The gate ([`super::gate`]) looks every call up here before its handler runs; an RPC without a row is refused. What
//! can be decided without reading the message is decided there, once, for all services. Rules that depend on the
//! message ([`Rule::SelfOrVerbs`], [`Rule::OwnServerOnly`], [`Rule::Object`], [`Rule::Message`]) let pass whoever could
//! be right, and the handler finishes the check with a method of [`AuthContext`](super::AuthContext).
//!
//! Builtin role `Admin` (the administrator on the Auth Service's own machine) passes every rule except
//! [`Rule::Users`].

use std::collections::HashMap;
use std::sync::LazyLock;

use resources::SystemRole;

mod later;
mod table;

pub use later::{Missing, missing};
pub use table::PERMISSIONS;

/// What a caller must be to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everybody, also without a certificate. The message carries its own proof, or the answer is public.
    Anyone,
    /// Everybody with a certificate of this or of a trusted cluster; the answer depends on who asks.
    AnyAuthenticated,
    /// People and bots, not services.
    Users,
    /// Services that hold one of these system roles.
    Builtin(&'static [SystemRole]),
    /// Whoever has all of these verbs on the kind.
    Verbs(&'static str, &'static [&'static str]),
    /// The user whom the message names, or whoever has all of these verbs on the kind.
    /// The handler calls [`AuthContext::require_self_or`](super::AuthContext::require_self_or).
    SelfOrVerbs(&'static str, &'static [&'static str]),
    /// Services that hold one of the roles and speak of themselves only.
    /// The handler calls [`AuthContext::require_own_server`](super::AuthContext::require_own_server).
    OwnServerOnly(&'static [SystemRole]),
    /// Whoever has the verbs on the kind where the condition of the rule can hold.
    /// The handler calls [`AuthContext::require_on`](super::AuthContext::require_on) with the object.
    Object(&'static str, &'static [&'static str]),
    /// Everybody with a certificate; the handler decides by the message, as the text says.
    Message(&'static str),
}

/// The rule of a call, by its gRPC path; `None` means that nobody may make it.
pub fn rule(path: &str) -> Option<Rule> {
    static BY_PATH: LazyLock<HashMap<&str, Rule>> = LazyLock::new(|| PERMISSIONS.iter().copied().collect());
    BY_PATH.get(path).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::Rule::Anyone;
    use super::*;

    /// Every RPC that the generated services know, from the files they are generated from.
    pub(crate) fn all_rpcs() -> Vec<String> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wire/proto");
        let mut files = Vec::new();
        collect(std::path::Path::new(root), &mut files);
        let mut paths = Vec::new();
        for file in files {
            let word = |line: &str, before: &str| -> Option<String> {
                let rest = line.trim().strip_prefix(before)?;
                Some(rest.split([' ', '(', ';', '{']).next()?.to_owned())
            };
            let package = file.lines().find_map(|line| word(line, "package ")).unwrap();
            let mut service = String::new();
            for line in file.lines() {
                if let Some(name) = word(line, "service ") {
                    service = name;
                } else if let Some(rpc) = word(line, "rpc ") {
                    paths.push(format!("/{package}.{service}/{rpc}"));
                }
            }
        }
        paths
    }

    fn collect(folder: &std::path::Path, files: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else {
                files.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_rpc_has_one_row_and_every_row_an_rpc() {
        // Proxies serve these.
        let elsewhere = |path: &String| path.contains(".TransportService/") || path.contains(".ProxyService/");
        let all = all_rpcs();
        let mut known = all.clone();
        known.retain(|path| !elsewhere(path) && missing(path).is_none());
        known.sort();
        let mut rows: Vec<String> = PERMISSIONS.iter().map(|(path, _)| (*path).to_owned()).collect();
        rows.sort();
        assert_eq!(rows, known);
        let later: Vec<&str> = later::NOT_BUILT.iter().flat_map(|(_, paths)| paths.iter().copied()).collect();
        assert!(later.iter().all(|path| rule(path).is_none() && all.iter().any(|known| known == path)));
    }

    #[test]
    fn every_row_is_found_and_nothing_else_is() {
        for (path, expected) in PERMISSIONS {
            assert_eq!(rule(path), Some(*expected), "{path}");
        }
        assert_eq!(rule("/proto.AuthService/DropEverything"), None);
        assert_eq!(rule(""), None);
    }

    #[test]
    fn strangers_reach_only_what_joining_and_login_need() {
        let open: Vec<&str> = PERMISSIONS.iter().filter(|(_, rule)| *rule == Anyone).map(|(path, _)| *path).collect();
        assert_eq!(
            open,
            [
                "/proto.AuthService/Ping",
                "/proto.AuthService/GetDomainName",
                "/proto.AuthService/GetClusterCACert",
                "/proto.AuthService/CreateAuthenticateChallenge",
                "/proto.AuthService/ChangeUserAuthentication",
            ]
        );
    }
}
