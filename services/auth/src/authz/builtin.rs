//! What services of the cluster may do: each no more than it needs.

use resources::SystemRole;

/// Verbs that read everything of a kind.
const RO: &[&str] = &["list", "read", "readnosecrets"];
/// Verbs that read all but private parts.
const PUBLIC: &[&str] = &["list", "readnosecrets"];
/// Verbs that read and write.
const RW: &[&str] = &["list", "read", "readnosecrets", "create", "update", "delete"];

/// A kind and what may be done with it.
type Grant = (&'static str, &'static [&'static str]);

/// What every agent reads to decide about its own connections.
const SETTINGS: &[Grant] = &[
    ("cert_authority", PUBLIC),
    ("cluster_name", RO),
    ("cluster_audit_config", RO),
    ("cluster_networking_config", RO),
    ("session_recording_config", RO),
    ("cluster_auth_preference", RO),
    ("namespace", RO),
    ("lock", RO),
    ("role", RO),
];

const AUTH: &[Grant] = &[("auth_server", RW), ("proxy", RO), ("node", RO), ("user", RO), ("tunnel", RO)];

const PROXY: &[Grant] = &[
    ("proxy", RW),
    ("ssh_session", RW),
    ("session_tracker", RW),
    ("event", RW),
    ("session", RO),
    ("tunnel", RO),
    ("tunnel_connection", RW),
    ("semaphore", RW),
    ("web_session", RW),
    ("web_token", RW),
    ("user_token", RO),
    ("connection_diagnostic", RW),
    ("kube_server", RW),
    ("jwt", RW),
    ("node", RO),
    ("auth_server", RO),
    ("user", RO),
    ("remote_cluster", RO),
    ("static_tokens", RO),
    ("app_server", RO),
    ("app", RO),
    ("db_server", RO),
    ("db_service", RO),
    ("db", RO),
    ("kube_cluster", RO),
    ("windows_desktop_service", RO),
    ("windows_desktop", RO),
    ("installer", RO),
    ("ui_config", RO),
    ("network_restrictions", RO),
    ("github", PUBLIC),
    ("oidc", PUBLIC),
    ("saml", PUBLIC),
    ("auth_connector", PUBLIC),
    ("access_request", RO),
    ("cluster_maintenance_config", RO),
];

const NODE: &[Grant] = &[
    ("node", RW),
    ("ssh_session", RW),
    ("session_tracker", RW),
    ("event", RW),
    ("tunnel", RW),
    ("semaphore", RW),
    ("connection_diagnostic", RW),
    ("session", RO),
    ("proxy", RO),
    ("user", RO),
    ("auth_server", RO),
    ("tunnel_connection", RO),
    ("network_restrictions", RO),
];

const APP: &[Grant] = &[
    ("event", RW),
    ("tunnel", RW),
    ("app_server", RW),
    ("jwt", RW),
    ("session_tracker", RW),
    ("proxy", RO),
    ("user", RO),
    ("auth_server", RO),
    ("tunnel_connection", RO),
    ("app", RO),
];

const DB: &[Grant] = &[
    ("event", RW),
    ("tunnel", RW),
    ("db_server", RW),
    ("db_service", RW),
    ("semaphore", RW),
    ("session_tracker", RW),
    ("connection_diagnostic", RW),
    ("db_object", RW),
    ("proxy", RO),
    ("user", RO),
    ("auth_server", RO),
    ("tunnel_connection", RO),
    ("db", RO),
    ("db_object_import_rule", RO),
];

const KUBE: &[Grant] = &[
    ("kube_server", RW),
    ("kube_ephemeral_container", RW),
    ("event", RW),
    ("semaphore", RW),
    ("session_tracker", RW),
    ("tunnel", RW),
    ("user", RO),
    ("proxy", RO),
    ("kube_cluster", RO),
];

const WINDOWS_DESKTOP: &[Grant] = &[
    ("event", RW),
    ("windows_desktop_service", RW),
    ("windows_desktop", RW),
    ("session_tracker", RW),
    ("tunnel", RW),
    ("user", RO),
    ("proxy", RO),
];

const DISCOVERY: &[Grant] = &[
    ("event", RW),
    ("node", RW),
    ("kube_cluster", RW),
    ("db", RW),
    ("server_info", RW),
    ("app", RW),
    ("semaphore", RW),
    ("kube_server", RO),
    ("proxy", RO),
    ("discovery_config", RO),
    ("integration", &["list", "read", "readnosecrets", "use"]),
];

/// Whether a service with this system role may do this with resources of a kind.
pub fn allows(role: SystemRole, kind: &str, verb: &str) -> bool {
    if role == SystemRole::Admin {
        return true;
    }
    let special = match role {
        SystemRole::Auth => AUTH,
        SystemRole::Proxy => PROXY,
        SystemRole::Node => NODE,
        SystemRole::App => APP,
        SystemRole::Db => DB,
        SystemRole::Kube => KUBE,
        SystemRole::WindowsDesktop => WINDOWS_DESKTOP,
        SystemRole::Discovery => DISCOVERY,
        SystemRole::Okta | SystemRole::Mdm => &[],
        // An instance has the grants of the services in its certificate, and reads the settings itself.
        SystemRole::Instance => &[],
        _ => return false,
    };
    special.iter().chain(SETTINGS).any(|(granted, verbs)| *granted == kind && verbs.contains(&verb))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn no_agent_reads_private_keys_or_writes_what_gives_access() {
        for role in SystemRole::ALL {
            if role == SystemRole::Admin {
                continue;
            }
            assert!(!allows(role, "cert_authority", "read"), "{role}");
            for kind in ["user", "role", "token", "cert_authority", "cluster_auth_preference", "lock", "trusted_cluster"] {
                for verb in ["create", "update", "delete"] {
                    assert!(!allows(role, kind, verb), "{role} {verb} {kind}");
                }
            }
            assert!(!allows(role, "token", "read"), "{role}");
        }
    }

    #[test]
    fn every_service_reads_the_settings_and_strangers_read_nothing() {
        for role in SystemRole::ALL.into_iter().filter(|role| role.is_local_service()) {
            for kind in ["cluster_networking_config", "role", "lock"] {
                assert!(allows(role, kind, "read"), "{role} {kind}");
            }
            assert!(allows(role, "cert_authority", "readnosecrets"));
        }
        for role in [SystemRole::Nop, SystemRole::ProvisionToken, SystemRole::Signup, SystemRole::RemoteProxy] {
            assert!(!allows(role, "cluster_name", "read"), "{role}");
        }
    }
}
