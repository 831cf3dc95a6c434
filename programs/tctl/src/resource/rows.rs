//! Resources as rows of tables.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pki::x509::Certificate;
use resources::{AnyResource, Resource, kind};
use wire::types::{CertAuthorityV2, LockTarget, ProvisionTokenV2, RoleV6, ServerV2};
use wire::wrappers::LabelValues;

use super::read::server_labels;
use crate::output::{Table, time};

/// Labels with this prefix say how the cluster manages a thing, not what the thing is.
const INTERNAL: &str = "teleport.internal/";

/// The table of a list of one kind; of mixed kinds, the kind is a column.
pub fn table(found: &[AnyResource], verbose: bool, now: DateTime<Utc>) -> String {
    let Some(first) = found.first() else { return String::new() };
    if found.iter().any(|other| other.kind() != first.kind()) {
        return mixed(found, verbose);
    }
    match first.kind() {
        kind::USER => users(found),
        kind::ROLE => roles(found, verbose),
        kind::TOKEN => tokens_table(found.iter().filter_map(token), now).full(),
        kind::NODE | kind::PROXY | kind::AUTH_SERVER => nodes_table(found.iter().filter_map(server), verbose),
        kind::CERT_AUTHORITY => authorities(found),
        kind::LOCK => locks(found, now),
        kind::CLUSTER_AUTH_PREFERENCE => preference(found),
        kind::CLUSTER_NETWORKING_CONFIG => networking(found),
        kind::SESSION_RECORDING_CONFIG => recording(found),
        kind::TRUSTED_CLUSTER => trusted(found),
        kind::REMOTE_CLUSTER => remote(found, verbose),
        _ => plain(found, verbose),
    }
}

fn plain(found: &[AnyResource], verbose: bool) -> String {
    let mut table = Table::new(["Name", "Labels"]);
    for resource in found {
        table.row([resource.metadata().name.clone(), labels_text(&resource.metadata().labels, verbose)]);
    }
    table.shown(verbose)
}

fn mixed(found: &[AnyResource], verbose: bool) -> String {
    let mut table = Table::new(["Kind", "Name", "Labels"]);
    for resource in found {
        let metadata = resource.metadata();
        let kind = match resource.sub_kind() {
            "" => resource.kind().to_owned(),
            sub_kind => format!("{}/{sub_kind}", resource.kind()),
        };
        table.row([kind, metadata.name.clone(), labels_text(&metadata.labels, verbose)]);
    }
    table.shown(verbose)
}

fn users(found: &[AnyResource]) -> String {
    let mut table = Table::new(["User", "Roles"]);
    for resource in found {
        if let AnyResource::User(user) = resource {
            table.row([user.name().to_owned(), user.spec.as_ref().map(|s| s.roles.join(",")).unwrap_or_default()]);
        }
    }
    table.full()
}

fn roles(found: &[AnyResource], verbose: bool) -> String {
    let mut table = Table::new(["Role", "Allowed to login as", "Node Labels", "Access to resources"]);
    for resource in found {
        if let AnyResource::Role(role) = resource {
            table.row(role_row(role));
        }
    }
    table.shown(verbose)
}

fn role_row(role: &RoleV6) -> [String; 4] {
    let allow = role.spec.clone().unwrap_or_default().allow.unwrap_or_default();
    let labels = allow.node_labels.as_ref().map(values_text).unwrap_or_default();
    let rules = allow.rules.iter().map(|rule| format!("{}:{}", rule.resources.join(","), rule.verbs.join(",")));
    [role.name().to_owned(), allow.logins.join(","), labels, rules.collect::<Vec<_>>().join("; ")]
}

/// Join tokens with what they are for and until when.
pub fn tokens_table<'a>(tokens: impl IntoIterator<Item = &'a ProvisionTokenV2>, now: DateTime<Utc>) -> Table {
    let mut table = Table::new(["Token", "Type", "Labels", "Expiry Time (UTC)"]);
    for token in tokens {
        let roles = token.spec.as_ref().map(|spec| spec.roles.join(",")).unwrap_or_default();
        let metadata = token.metadata();
        let expiry = time::expiry(metadata.expires.as_ref(), now);
        table.row([metadata.name.clone(), roles, labels_text(&metadata.labels, false), expiry]);
    }
    table
}

/// Servers.
pub fn nodes_table<'a>(servers: impl IntoIterator<Item = &'a ServerV2>, verbose: bool) -> String {
    let mut rows: Vec<[String; 5]> = servers.into_iter().map(|server| server_row(server, verbose)).collect();
    rows.sort();
    let mut table = Table::new(["Host", "UUID", "Public Address", "Labels", "Version"]);
    rows.into_iter().for_each(|row| table.row(row));
    table.shown(verbose)
}

fn server_row(server: &ServerV2, verbose: bool) -> [String; 5] {
    let spec = server.spec.clone().unwrap_or_default();
    let address = if spec.use_tunnel { String::new() } else { spec.addr.clone() };
    let address = spec.public_addrs.first().cloned().unwrap_or(address);
    let labels = labels_text(&server_labels(server), verbose);
    [spec.hostname, server.name().to_owned(), address, labels, spec.version]
}

fn authorities(found: &[AnyResource]) -> String {
    let mut table = Table::new(["Cluster Name", "CA Type", "Fingerprint", "Role Map"]);
    for resource in found {
        if let AnyResource::CertAuthority(authority) = resource {
            let spec = authority.spec.clone().unwrap_or_default();
            let map = spec.role_map.iter().map(|m| format!("{} -> {}", m.remote, m.local.join(",")));
            let map = map.collect::<Vec<_>>().join("; ");
            for fingerprint in fingerprints(authority) {
                table.row([spec.cluster_name.clone(), spec.r#type.clone(), fingerprint, map.clone()]);
            }
        }
    }
    table.full()
}

/// Fingerprints of the keys in use: SSH keys as OpenSSH shows them, otherwise the pins of the certificates.
fn fingerprints(authority: &CertAuthorityV2) -> Vec<String> {
    let keys = authority.spec.clone().unwrap_or_default().active_keys.unwrap_or_default();
    let line = |bytes: &[u8]| pki::keys::PublicKey::from_ssh_line(&String::from_utf8_lossy(bytes)).ok();
    let ssh: Vec<_> = keys.ssh.iter().filter_map(|pair| Some(line(&pair.public_key)?.ssh_fingerprint())).collect();
    if !ssh.is_empty() {
        return ssh;
    }
    let certificate = |bytes: &[u8]| Certificate::from_pem(&String::from_utf8_lossy(bytes)).ok();
    let tls: Vec<_> = keys.tls.iter().filter_map(|pair| Some(pki::pin::pin(&certificate(&pair.cert)?))).collect();
    if tls.is_empty() { vec![String::new()] } else { tls }
}

fn locks(found: &[AnyResource], now: DateTime<Utc>) -> String {
    let mut table = Table::new(["ID", "Target", "Message", "Expires"]);
    for resource in found {
        if let AnyResource::Lock(lock) = resource {
            let spec = lock.spec.clone().unwrap_or_default();
            let target = spec.target.as_ref().map(target_text).unwrap_or_default();
            table.row([lock.name().to_owned(), target, spec.message, time::expiry(spec.expires.as_ref(), now)]);
        }
    }
    table.full()
}

fn target_text(target: &LockTarget) -> String {
    let fields = [
        ("user", &target.user),
        ("role", &target.role),
        ("login", &target.login),
        ("node", &target.node),
        ("server-id", &target.server_id),
        ("mfa-device", &target.mfa_device),
        ("windows-desktop", &target.windows_desktop),
        ("access-request", &target.access_request),
        ("device", &target.device),
    ];
    let set = fields.into_iter().filter(|(_, value)| !value.is_empty());
    set.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn preference(found: &[AnyResource]) -> String {
    let mut table = Table::new(["Type", "Second Factor", "Locking Mode"]);
    for resource in found {
        if let AnyResource::AuthPreference(preference) = resource {
            let spec = preference.spec.clone().unwrap_or_default();
            table.row([spec.r#type, spec.second_factor, spec.locking_mode]);
        }
    }
    table.full()
}

fn networking(found: &[AnyResource]) -> String {
    let mut table = Table::new(["Client Idle Timeout", "Keep-Alive Interval", "Proxy Listener Mode"]);
    for resource in found {
        if let AnyResource::NetworkingConfig(config) = resource {
            let spec = config.spec.clone().unwrap_or_default();
            let mode = if spec.proxy_listener_mode == 1 { "multiplex" } else { "separate" };
            let duration = |d| wire::duration::format(d);
            table.row([duration(spec.client_idle_timeout), duration(spec.keep_alive_interval), mode.to_owned()]);
        }
    }
    table.full()
}

fn recording(found: &[AnyResource]) -> String {
    let mut table = Table::new(["Mode", "Proxy Checks Host Keys"]);
    for resource in found {
        if let AnyResource::SessionRecordingConfig(config) = resource {
            let spec = config.spec.clone().unwrap_or_default();
            let checks = spec.proxy_checks_host_keys.as_ref().is_none_or(|checks| checks.value);
            table.row([spec.mode, checks.to_string()]);
        }
    }
    table.full()
}

fn trusted(found: &[AnyResource]) -> String {
    let mut table = Table::new(["Name", "Enabled", "Proxy Address", "Tunnel Address", "Role Map"]);
    for resource in found {
        if let AnyResource::TrustedCluster(cluster) = resource {
            let spec = cluster.spec.clone().unwrap_or_default();
            let map = spec.role_map.iter().map(|m| format!("{} -> {}", m.remote, m.local.join(",")));
            let map = map.collect::<Vec<_>>().join("; ");
            let enabled = spec.enabled.to_string();
            table.row([cluster.name().to_owned(), enabled, spec.proxy_address, spec.reverse_tunnel_address, map]);
        }
    }
    table.full()
}

fn remote(found: &[AnyResource], verbose: bool) -> String {
    let mut table = Table::new(["Name", "Status", "Last Heartbeat", "Labels"]);
    for resource in found {
        if let AnyResource::RemoteCluster(cluster) = resource {
            let status = cluster.status.clone().unwrap_or_default();
            let heartbeat = wire::time::moment(status.last_heartbeat.as_ref()).map(time::moment).unwrap_or_default();
            let labels = labels_text(&cluster.metadata().labels, verbose);
            table.row([cluster.name().to_owned(), status.connection, heartbeat, labels]);
        }
    }
    table.shown(verbose)
}

fn token(resource: &AnyResource) -> Option<&ProvisionTokenV2> {
    match resource {
        AnyResource::Token(token) => Some(token),
        _ => None,
    }
}

fn server(resource: &AnyResource) -> Option<&ServerV2> {
    match resource {
        AnyResource::Server(server) => Some(server),
        _ => None,
    }
}

/// `a=b,c=d`. Labels of the cluster's own management only when `all` is asked for.
pub fn labels_text(labels: &BTreeMap<String, String>, all: bool) -> String {
    let shown = labels.iter().filter(|(key, _)| all || !key.starts_with(INTERNAL));
    shown.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn values_text(labels: &LabelValues) -> String {
    let one = |(key, values): (&String, &wire::wrappers::StringValues)| format!("{key}={}", values.values.join("|"));
    labels.values.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use resources::{Fields, parse_documents};

    use super::*;

    fn shown(text: &str) -> String {
        let now = time::rfc3339("2024-01-02T15:00:00Z").unwrap();
        table(&parse_documents(text, Fields::Known).unwrap(), false, now)
    }

    #[test]
    fn each_kind_has_columns_of_its_own() {
        let text = shown("{kind: user, version: v2, metadata: {name: alice}, spec: {roles: [access, editor]}}");
        assert_eq!(text, "User  Roles\n----- -------------\nalice access,editor\n");
        let text = shown(
            "{kind: lock, version: v2, metadata: {name: l1}, spec: {target: {user: eve}, message: gone, expires: 2024-01-02T15:30:00Z}}",
        );
        assert!(text.contains("l1 user=eve gone    02 Jan 24 15:30 UTC (30m)"), "{text}");
    }

    #[test]
    fn kinds_may_be_mixed() {
        let text = shown(
            "{kind: user, version: v2, metadata: {name: alice}, spec: {roles: [access]}}\n---\n\
             {kind: role, version: v7, metadata: {name: dev, labels: {a: b}}, spec: {}}\n",
        );
        assert_eq!(text, "Kind Name  Labels\n---- ----- ------\nuser alice\nrole dev   a=b\n");
    }

    #[test]
    fn a_server_behind_a_tunnel_has_no_address() {
        let text = shown(
            "{kind: node, version: v2, sub_kind: openssh, metadata: {name: 3e2f8b62-7c10-4c4f-9d5a-0a4f6f7b1c11, \
             labels: {env: prod, teleport.internal/x: y}}, spec: {addr: '10.0.0.1:22', hostname: web}}",
        );
        assert!(text.contains("10.0.0.1:22    env=prod") && !text.contains("teleport.internal"), "{text}");
    }
}
