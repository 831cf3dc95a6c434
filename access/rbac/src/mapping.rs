//! Users of other clusters: their roles and traits here.

use resources::presets::IMPLICIT_ROLE;
use wire::types::{ClaimMapping, RoleMapping};

use crate::{
    decision::{Cause, Denial},
    pattern::build_regex,
    traits::Traits,
};

/// The roles here of somebody with `remote` roles elsewhere. A mapping names remote roles by a text with `*` or by a
/// regular expression; its local names may use `$1` for what a wildcard or a group stood for.
///
/// # Errors
/// No mapping gives a role.
pub fn map_roles(mappings: &[RoleMapping], remote: &[String]) -> Result<Vec<String>, Denial> {
    let mut local: Vec<String> = Vec::new();
    let nobody = [String::new()];
    let remote = if remote.is_empty() { &nobody[..] } else { remote };
    for mapping in mappings {
        let Ok(regex) = build_regex(&expression(&mapping.remote)) else { continue };
        for role in remote.iter().filter(|role| *role != IMPLICIT_ROLE) {
            let Some(captures) = regex.captures(role) else { continue };
            for template in &mapping.local {
                let mut name = String::new();
                captures.expand(template, &mut name);
                if !name.is_empty() && !local.contains(&name) {
                    local.push(name);
                }
            }
        }
    }
    if local.is_empty() {
        let message = format!("no roles mapped for remote user with roles [{}]", remote.join(", "));
        return Err(Denial::new(Cause::NotGranted, message));
    }
    Ok(local)
}

/// The roles that a mapping gives somebody with these traits: for every value of its trait that fits, its roles, in which
/// `$1` stands for what a wildcard or a group stood for. What came from the user stands for itself: a name of which it made
/// a pattern gives nothing, but is a pattern where names are denied.
///
/// # Errors
/// The value is no regular expression.
pub(crate) fn claimed_roles(mapping: &ClaimMapping, traits: &Traits, denies: bool) -> Result<Vec<String>, String> {
    let regex = build_regex(&expression(&mapping.value))?;
    let mut roles: Vec<String> = Vec::new();
    for captures in traits.get(&mapping.claim).iter().filter_map(|value| regex.captures(value)) {
        for template in &mapping.roles {
            let mut name = String::new();
            captures.expand(template, &mut name);
            // A role that is written as a pattern may match; what a user's trait adds to it may not make it one.
            let added_pattern = !denies && name.contains(['*', '{', '^']) && name != *template;
            if !name.is_empty() && !added_pattern && !roles.contains(&name) {
                roles.push(name);
            }
        }
    }
    Ok(roles)
}

/// The regular expression of a name with wildcards; one that is an expression already stays as it is.
fn expression(name: &str) -> String {
    if name.starts_with('^') && name.ends_with('$') {
        return name.to_owned();
    }
    format!("^{}$", name.split('*').map(regex::escape).collect::<Vec<_>>().join("(.*)"))
}

/// Names that a certificate of another cluster carries besides traits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Accounts on servers.
    pub logins: Vec<String>,
    /// Kubernetes groups.
    pub kubernetes_groups: Vec<String>,
    /// Kubernetes users.
    pub kubernetes_users: Vec<String>,
    /// Databases.
    pub db_names: Vec<String>,
    /// Accounts in databases.
    pub db_users: Vec<String>,
    /// Roles in AWS.
    pub aws_role_arns: Vec<String>,
}

/// The traits of a remote user: those of the certificate, with the names it was really issued for.
pub fn remote_traits(mut traits: Traits, names: CertificateNames) -> Traits {
    for (name, values) in [
        ("logins", names.logins),
        ("kubernetes_groups", names.kubernetes_groups),
        ("kubernetes_users", names.kubernetes_users),
        ("db_names", names.db_names),
        ("db_users", names.db_users),
        ("aws_role_arns", names.aws_role_arns),
    ] {
        traits.set(name, values);
    }
    traits
}

/// What a user of another cluster is called in this one, where a user may have the same name.
pub fn remote_user_name(name: &str, cluster: &str) -> String {
    format!("remote-{name}-{cluster}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(mappings: &[(&str, &[&str])], remote: &[&str]) -> Option<Vec<String>> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mappings: Vec<RoleMapping> = mappings
            .iter()
            .map(|(remote, local)| RoleMapping { remote: (*remote).into(), local: owned(local) })
            .collect();
        map_roles(&mappings, &owned(remote)).ok()
    }

    #[test]
    fn remote_roles_become_local_roles() {
        let some = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(map(&[("access", &["guest"])], &["access"]), some(&["guest"]));
        assert_eq!(map(&[("remote-*", &["local-$1"])], &["remote-dev", "x"]), some(&["local-dev"]));
        assert_eq!(map(&[("^(dev|ops)-(.*)$", &["${2}-$1"])], &["dev-eu"]), some(&["eu-dev"]));
        assert_eq!(map(&[("*", &["a", "a"]), ("b", &["b"])], &["b"]), some(&["a", "b"]));
        assert_eq!(map(&[("*", &["anybody"])], &[]), some(&["anybody"]));
        assert_eq!(map(&[("access", &["guest"])], &["editor"]), None);
        assert_eq!(map(&[("*", &["guest"])], &[IMPLICIT_ROLE]), None);
        assert_eq!(map(&[("^(a)|b$", &["$1"])], &["b"]), None);
        assert_eq!(map(&[("a.c", &["x"])], &["abc"]), None);
    }
}
