//! The answer to `GET /webapi/ping` and `GET /webapi/find`: what a proxy is and where its services are.
//!
//! Clients of many versions read it and servers of many versions send it, so every field may be missing and unknown
//! fields are ignored. What is omitted when empty is part of the format.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::{AddressError, HostPort, PartialAddress};

/// Port of HTTPS, assumed where no web port is known.
const HTTPS_PORT: u16 = 443;
const SSH_PORT: u16 = 3023;
const TUNNEL_PORT: u16 = 3024;

/// The whole answer. `find` sends a default [`AuthSettings`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PingResponse {
    /// How users log in.
    pub auth: AuthSettings,
    /// Where services listen.
    pub proxy: ProxySettings,
    /// Semantic version of the server; clients fail on anything else.
    pub server_version: String,
    /// Oldest client that is served.
    pub min_client_version: String,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Agents are enrolled in automatic updates.
    pub automatic_upgrades: bool,
    /// Versions for clients and agents that update themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<AutoUpdate>,
    /// `oss`, `community` or `ent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edition: Option<String>,
    /// Built for FIPS 140.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fips: Option<bool>,
}

/// How users log in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthSettings {
    /// `local`, `oidc`, `saml` or `github`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `off`, `otp`, `webauthn`, `on` or `optional`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub second_factor: String,
    /// `webauthn` or `otp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub preferred_local_mfa: String,
    /// Login without password is possible.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_passwordless: bool,
    /// Headless login is possible.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_headless: bool,
    /// Present when local users may log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalSettings>,
    /// Present when configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webauthn: Option<WebauthnSettings>,
    /// Present when configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u2f: Option<U2fSettings>,
    /// The OIDC connector in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<ConnectorSettings>,
    /// The SAML connector in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saml: Option<SamlSettings>,
    /// The GitHub connector in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github: Option<ConnectorSettings>,
    /// `none`, `session`, `hardware_key`, `hardware_key_touch` and others.
    pub private_key_policy: String,
    /// PIV slot in hexadecimal, or empty.
    pub piv_slot: String,
    /// How long a client may remember a PIV PIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub piv_pin_cache_duration: Option<GoDuration>,
    /// Device trust.
    pub device_trust: DeviceTrustSettings,
    /// A message of the day has to be acknowledged.
    pub has_motd: bool,
    /// Clients load the authorities of all clusters.
    #[serde(skip_serializing_if = "is_false")]
    pub load_all_cas: bool,
    /// Text such as `12h0m0s`; written as `0s` when unset.
    #[serde(serialize_with = "duration_text")]
    pub default_session_ttl: String,
    /// `legacy`, `balanced-v1`, `fips-v1` or `hsm-v1`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "suite")]
    pub signature_algorithm_suite: String,
}

/// Login of local users.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalSettings {
    /// Name of the connector; empty when local login is only a fallback.
    pub name: String,
}

/// WebAuthn.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WebauthnSettings {
    /// Relying party.
    pub rp_id: String,
}

/// U2F, the predecessor of WebAuthn.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct U2fSettings {
    /// Application.
    pub app_id: String,
}

/// An OIDC or GitHub connector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectorSettings {
    /// Name of the resource.
    pub name: String,
    /// What people see.
    pub display: String,
}

/// A SAML connector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SamlSettings {
    /// Name of the resource.
    pub name: String,
    /// What people see.
    pub display: String,
    /// The provider is told of logouts.
    #[serde(rename = "singleLogoutEnabled", skip_serializing_if = "is_false")]
    pub single_logout_enabled: bool,
}

/// Device trust.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceTrustSettings {
    /// Switched off.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Clients enroll their device themselves.
    #[serde(skip_serializing_if = "is_false")]
    pub auto_enroll: bool,
}

/// Versions for programs that update themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoUpdate {
    /// Version for clients.
    pub tools_version: String,
    /// Clients download that version by themselves. Keep it off unless it is wanted.
    pub tools_auto_update: bool,
    /// Version for agents.
    pub agent_version: String,
    /// Agents update now.
    pub agent_auto_update: bool,
    /// Spread of the updates.
    pub agent_update_jitter_seconds: i64,
}

/// Where the services of a proxy are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxySettings {
    /// Kubernetes.
    pub kube: KubeProxySettings,
    /// SSH, tunnels, web.
    pub ssh: SshProxySettings,
    /// Databases.
    pub db: DatabaseProxySettings,
    /// Everything is reached on the web port.
    pub tls_routing_enabled: bool,
}

/// Kubernetes access.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KubeProxySettings {
    /// It is served.
    #[serde(skip_serializing_if = "is_false")]
    pub enabled: bool,
    /// `host:port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub public_addr: String,
    /// `host:port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listen_addr: String,
}

/// SSH, tunnels and web.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SshProxySettings {
    /// SSH listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listen_addr: String,
    /// Tunnel listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tunnel_listen_addr: String,
    /// Web listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub web_listen_addr: String,
    /// Web, and everything with TLS routing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub public_addr: String,
    /// SSH.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ssh_public_addr: String,
    /// Tunnels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ssh_tunnel_public_addr: String,
    /// How long clients try to reach SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial_timeout: Option<GoDuration>,
}

/// Databases.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseProxySettings {
    /// Postgres listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub postgres_listen_addr: String,
    /// Postgres.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub postgres_public_addr: String,
    /// MySQL listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mysql_listen_addr: String,
    /// MySQL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mysql_public_addr: String,
    /// MongoDB listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mongo_listen_addr: String,
    /// MongoDB.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mongo_public_addr: String,
}

/// A duration that is a number of nanoseconds in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GoDuration(pub i64);

impl ProxySettings {
    /// Where SSH clients connect. `dialled` is the web address that answered; it stands in for listeners on all
    /// addresses.
    pub fn ssh_address(&self, dialled: &HostPort) -> Result<HostPort, AddressError> {
        if self.tls_routing_enabled {
            return self.routed_address(dialled);
        }
        let ssh = &self.ssh;
        let port = port_of(&ssh.listen_addr).unwrap_or(SSH_PORT);
        let candidates = [
            (&ssh.ssh_public_addr, Port::Default(port)),
            (&ssh.public_addr, Port::Always(port)),
            (&ssh.listen_addr, Port::Default(port)),
            (&ssh.web_listen_addr, Port::Default(port)),
        ];
        first_address(&candidates, dialled, port)
    }

    /// Where agents open reverse tunnels; see [`ProxySettings::ssh_address`].
    pub fn tunnel_address(&self, dialled: &HostPort) -> Result<HostPort, AddressError> {
        if self.tls_routing_enabled {
            return self.routed_address(dialled);
        }
        let ssh = &self.ssh;
        let port = port_of(&ssh.tunnel_listen_addr).unwrap_or(TUNNEL_PORT);
        let candidates = [
            (&ssh.ssh_tunnel_public_addr, Port::Default(port)),
            (&ssh.ssh_public_addr, Port::Always(port)),
            (&ssh.public_addr, Port::Always(port)),
            (&ssh.tunnel_listen_addr, Port::Default(port)),
            (&ssh.web_listen_addr, Port::Default(port)),
        ];
        first_address(&candidates, dialled, port)
    }

    fn routed_address(&self, dialled: &HostPort) -> Result<HostPort, AddressError> {
        let ssh = &self.ssh;
        let port = port_of(&ssh.web_listen_addr).unwrap_or(HTTPS_PORT);
        let candidates = [(&ssh.public_addr, Port::Default(port)), (&ssh.web_listen_addr, Port::Default(port))];
        first_address(&candidates, dialled, dialled.port)
    }
}

impl GoDuration {
    /// The duration; negative ones are none at all.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or_default())
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// What to do about the port of an advertised address.
#[derive(Clone, Copy)]
enum Port {
    Default(u16),
    Always(u16),
}

/// The first address that is set; the one dialled, with `last_port`, when none is.
fn first_address(candidates: &[(&String, Port)], dialled: &HostPort, last_port: u16) -> Result<HostPort, AddressError> {
    let Some((text, port)) = candidates.iter().find(|(text, _)| !text.is_empty()) else {
        return Ok(HostPort { host: dialled.host.clone(), port: last_port });
    };
    let address: PartialAddress = text.parse()?;
    let mut address = match *port {
        Port::Default(port) => address.or_port(port),
        Port::Always(port) => HostPort { host: address.host, port },
    };
    if address.ip().is_some_and(|ip| ip.is_unspecified()) {
        address.host.clone_from(&dialled.host);
    }
    Ok(address)
}

fn port_of(address: &str) -> Option<u16> {
    address.parse::<PartialAddress>().ok()?.port
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A duration text; readers do not take an empty one.
fn duration_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if text.is_empty() { "0s" } else { text })
}

/// A suite by name or by number.
fn suite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Name(String),
        Number(i64),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Name(name) => name,
        Either::Number(1) => "legacy".to_owned(),
        Either::Number(2) => "balanced-v1".to_owned(),
        Either::Number(3) => "fips-v1".to_owned(),
        Either::Number(4) => "hsm-v1".to_owned(),
        Either::Number(_) => String::new(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn find_answers_with_empty_login_settings() {
        let found = PingResponse { server_version: "17.0.0".into(), cluster_name: "root".into(), ..Default::default() };
        let expected = json!({
            "auth": {"type": "", "private_key_policy": "", "piv_slot": "", "device_trust": {}, "has_motd": false, "default_session_ttl": "0s"},
            "proxy": {"kube": {}, "ssh": {}, "db": {}, "tls_routing_enabled": false},
            "server_version": "17.0.0", "min_client_version": "", "cluster_name": "root", "automatic_upgrades": false,
        });
        assert_eq!(serde_json::to_value(found).unwrap(), expected);
    }

    #[test]
    fn the_proxy_part_of_the_networking_reference_is_written_as_shown() {
        let everywhere = || "0.0.0.0:3080".to_owned();
        let settings = ProxySettings {
            kube: KubeProxySettings { enabled: true, listen_addr: everywhere(), ..Default::default() },
            ssh: SshProxySettings {
                listen_addr: everywhere(),
                tunnel_listen_addr: everywhere(),
                web_listen_addr: everywhere(),
                public_addr: "example.teleport.sh:443".into(),
                dial_timeout: Some(Duration::from_secs(30).into()),
                ..Default::default()
            },
            db: DatabaseProxySettings {
                postgres_listen_addr: everywhere(),
                mysql_listen_addr: everywhere(),
                ..Default::default()
            },
            tls_routing_enabled: true,
        };
        let listen = "0.0.0.0:3080";
        let expected = json!({
            "kube": {"enabled": true, "listen_addr": listen},
            "ssh": {"listen_addr": listen, "tunnel_listen_addr": listen, "web_listen_addr": listen,
                    "public_addr": "example.teleport.sh:443", "dial_timeout": 30_000_000_000_u64},
            "db": {"postgres_listen_addr": listen, "mysql_listen_addr": listen},
            "tls_routing_enabled": true,
        });
        assert_eq!(serde_json::to_value(settings).unwrap(), expected);
    }

    #[test]
    fn missing_and_unknown_fields_are_no_trouble() {
        let read = |text: &str| serde_json::from_str::<PingResponse>(text).unwrap();
        assert_eq!(read("{}"), PingResponse::default());
        let answer =
            read(r#"{"auth":{"type":"local","local":{"name":"x"},"signature_algorithm_suite":2,"new":1},"new":{}}"#);
        assert_eq!(answer.auth.signature_algorithm_suite, "balanced-v1");
        assert_eq!(answer.auth.local.unwrap().name, "x");
    }

    #[test]
    fn addresses_follow_the_listener_mode() {
        let dialled: HostPort = "lb.test:8443".parse().unwrap();
        let settings = |tls_routing_enabled, ssh| ProxySettings { tls_routing_enabled, ssh, ..Default::default() };
        let ssh = |fields: [&str; 6]| {
            let [
                listen_addr,
                tunnel_listen_addr,
                web_listen_addr,
                public_addr,
                ssh_public_addr,
                ssh_tunnel_public_addr,
            ] = fields.map(str::to_owned);
            SshProxySettings {
                listen_addr,
                tunnel_listen_addr,
                web_listen_addr,
                public_addr,
                ssh_public_addr,
                ssh_tunnel_public_addr,
                dial_timeout: None,
            }
        };
        let cases = [
            (true, ["", "", "0.0.0.0:3080", "p.test", "", ""], "p.test:3080", "p.test:3080"),
            (true, ["", "", "0.0.0.0:3080", "", "", ""], "lb.test:3080", "lb.test:3080"),
            (true, ["", "", "", "p.test", "", ""], "p.test:443", "p.test:443"),
            (true, ["", "", "", "", "", ""], "lb.test:8443", "lb.test:8443"),
            (
                false,
                ["0.0.0.0:3123", "0.0.0.0:3124", "0.0.0.0:3180", "p.test:443", "s.test", "t.test:99"],
                "s.test:3123",
                "t.test:99",
            ),
            (
                false,
                ["[::]:3123", "0.0.0.0:3124", "0.0.0.0:3180", "p.test:443", "s.test:1", ""],
                "s.test:1",
                "s.test:3124",
            ),
            (false, ["", "", "0.0.0.0:3180", "p.test:443", "", ""], "p.test:3023", "p.test:3024"),
            (false, ["[::]:3123", "10.0.0.1:3124", "0.0.0.0:3180", "", "", ""], "lb.test:3123", "10.0.0.1:3124"),
            (false, ["", "", "", "", "", ""], "lb.test:3023", "lb.test:3024"),
        ];
        for (routing, fields, at_ssh, at_tunnel) in cases {
            let settings = settings(routing, ssh(fields));
            assert_eq!(settings.ssh_address(&dialled).unwrap().to_string(), at_ssh, "{routing} {fields:?}");
            assert_eq!(settings.tunnel_address(&dialled).unwrap().to_string(), at_tunnel, "{routing} {fields:?}");
        }
    }
}
