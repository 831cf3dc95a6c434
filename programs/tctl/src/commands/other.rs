//! Commands that are not there.

use resources::nearest;

use crate::error::Error;

/// Commands of other builds that this one has no services for yet.
const LATER: [&str; 9] = [
    "externalauditstorage",
    "idp",
    "login_rule",
    "plugins",
    "saml",
    "sso",
    "terraform",
    "workload-identity",
    "autoupdate",
];

/// Commands there are, for suggestions.
const KNOWN: [&str; 29] = [
    "audit",
    "loadtest",
    "notifications",
    "top",
    "access",
    "acl",
    "apps",
    "bots",
    "db",
    "devices",
    "kube",
    "windows_desktops",
    "status",
    "users",
    "tokens",
    "nodes",
    "proxy",
    "get",
    "create",
    "edit",
    "update",
    "rm",
    "auth",
    "inventory",
    "lock",
    "alerts",
    "recordings",
    "requests",
    "version",
];

/// Why the command line that starts with these words is refused.
pub fn refuse(words: &[String]) -> Error {
    let name = words.first().map(String::as_str).unwrap_or_default();
    if LATER.contains(&name) {
        return Error::not_built(format!("the command {name:?} is not part of this build yet"));
    }
    let hint = match nearest(name, KNOWN) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    Error::bad(format!(
        "unknown command {name:?}{hint}\n\nUsage: tctl [OPTIONS] <COMMAND>\n\n'tctl --help' lists the commands"
    ))
}

/// Why a subcommand of `command` is refused: those in `later` are of other builds.
pub fn refuse_sub(command: &str, later: &[&str], words: &[String]) -> Error {
    let name = words.first().map(String::as_str).unwrap_or_default();
    if later.contains(&name) {
        return Error::not_built(format!("the command \"{command} {name}\" is not part of this build yet"));
    }
    Error::bad(format!("unknown command \"{command} {name}\"\n\n'tctl {command} --help' lists the commands"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> String {
        refuse(&[name.to_owned()]).to_string()
    }

    #[test]
    fn what_does_not_exist_is_refused_by_name() {
        assert!(said("frobnicate").starts_with("unknown command \"frobnicate\"\n"));
        assert!(said("user").starts_with("unknown command \"user\"; did you mean \"users\"?"));
        for later in ["plugins", "sso", "saml", "idp"] {
            assert_eq!(said(later), format!("the command {later:?} is not part of this build yet"));
        }
        let said = |name: &str| refuse_sub("audit", &["query"], &[name.to_owned(), "ls".to_owned()]).to_string();
        assert_eq!(said("query"), "the command \"audit query\" is not part of this build yet");
        assert!(said("qeury").starts_with("unknown command \"audit qeury\"\n"));
    }
}
