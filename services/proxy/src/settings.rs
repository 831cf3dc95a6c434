//! What a proxy is told at start, and what it tells clients about its addresses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{HostPort, KeyPair};
use serde_json::{Map, Value, json};
use wire::types::{ClusterNetworkingConfigV2, ProxyListenerMode};

/// How long a client may take to open an SSH connection, as advertised.
const SSH_DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Configuration of a proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UUID of the host.
    pub host_uuid: String,
    /// Name of the host.
    pub hostname: String,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Addresses of the Auth Service.
    pub auth_servers: Vec<HostPort>,
    /// Configuration file version 1: own listeners are advertised whatever the mode is.
    pub legacy_listeners: bool,
    /// The public port.
    pub web: HostPort,
    /// SSH port of its own.
    pub ssh: Option<HostPort>,
    /// Tunnel port of its own.
    pub tunnel: Option<HostPort>,
    /// Kubernetes port of its own.
    pub kube: Option<HostPort>,
    /// MySQL port of its own.
    pub mysql: Option<HostPort>,
    /// PostgreSQL port of its own.
    pub postgres: Option<HostPort>,
    /// MongoDB port of its own.
    pub mongo: Option<HostPort>,
    /// Whether Kubernetes is served.
    pub kube_enabled: bool,
    /// Addresses under which clients reach the public port; the first is advertised.
    pub public_addrs: Vec<HostPort>,
    /// The same for the SSH port.
    pub ssh_public_addrs: Vec<HostPort>,
    /// The same for the tunnel port.
    pub tunnel_public_addrs: Vec<HostPort>,
    /// The same for the Kubernetes port.
    pub kube_public_addrs: Vec<HostPort>,
    /// The same for the PostgreSQL port.
    pub postgres_public_addrs: Vec<HostPort>,
    /// The same for the MySQL port.
    pub mysql_public_addrs: Vec<HostPort>,
    /// The same for the MongoDB port.
    pub mongo_public_addrs: Vec<HostPort>,
    /// Redis port of its own.
    pub redis: Option<HostPort>,
    /// Where other proxies of the cluster are served, when peering is on.
    pub peer: Option<HostPort>,
    /// Under which address they reach it.
    pub peer_public_addr: Option<HostPort>,
    /// Certificate files of the public port; empty for one signed by itself.
    pub https_keypairs: Vec<KeyPair>,
    /// How often they are read again; zero: only at start.
    pub https_keypairs_reload_interval: Duration,
    /// Whether the header `X-Forwarded-For` names the client.
    pub trust_x_forwarded_for: bool,
    /// Connections that one address may hold at a time.
    pub max_connections: usize,
    /// Requests and connections of one address over time; empty: any number.
    pub rates: Vec<mux::rate::Rate>,
    /// SSH algorithms that clients may choose from.
    pub algorithms: tunnel::ssh::Algorithms,
    /// Whether the Auth Service runs in the same process, which then speaks for the proxy in the inventory.
    pub beside_auth: bool,
    /// Dials other clusters.
    pub dialer: dialer::Dialer,
    /// How the certificates of other clusters' proxies are verified.
    pub proxy_verify: dialer::Verify,
    /// What balancers in front of the proxy say about clients.
    pub proxy_protocol: mux::ProxyProtocolMode,
}

impl Settings {
    /// Names and addresses for which the proxy's certificates are good.
    pub fn principals(&self) -> Vec<String> {
        let own = [self.hostname.clone(), self.hostname.to_lowercase()];
        let fixed = ["localhost", "127.0.0.1", "::1", "remote.kube.proxy.teleport.cluster.local"].map(str::to_owned);
        let peer = [self.peer.as_ref(), self.peer_public_addr.as_ref()];
        let listeners = [Some(&self.web), self.ssh.as_ref(), self.tunnel.as_ref(), self.mysql.as_ref()];
        let listeners = listeners.into_iter().chain(peer);
        let addresses = listeners.flatten().chain(self.all_public_addrs());
        let mut names: Vec<String> = own.into_iter().chain(fixed).chain(addresses.map(|a| a.host.clone())).collect();
        names.retain(|n| !n.is_empty());
        names.sort();
        names.dedup();
        names
    }

    /// DNS names beyond the principals: a wildcard below each public name, for Kubernetes.
    pub fn dns_names(&self) -> Vec<String> {
        if !self.kube_enabled {
            return Vec::new();
        }
        let public = self.public_addrs.iter().chain(&self.kube_public_addrs).filter(|a| a.ip().is_none());
        let mut names: Vec<String> = public.map(|a| format!("*.{}", a.host)).collect();
        names.sort();
        names.dedup();
        names
    }

    fn all_public_addrs(&self) -> impl Iterator<Item = &HostPort> {
        let lists = [
            &self.public_addrs,
            &self.ssh_public_addrs,
            &self.tunnel_public_addrs,
            &self.kube_public_addrs,
            &self.postgres_public_addrs,
            &self.mysql_public_addrs,
            &self.mongo_public_addrs,
        ];
        lists.into_iter().flatten()
    }

    /// The `proxy` object of ping and find: where clients are to connect.
    pub(crate) fn advertised(&self, networking: &ClusterNetworkingConfigV2) -> Value {
        let multiplex = is_multiplex(networking);
        let through_web = multiplex && !self.legacy_listeners;
        let web = self.web.to_string();
        let listener = |own: &Option<HostPort>| {
            if through_web { web.clone() } else { own.as_ref().map(HostPort::to_string).unwrap_or_default() }
        };
        let first = |list: &[HostPort]| list.first().map(HostPort::to_string).unwrap_or_default();
        let ssh = [
            ("listen_addr", listener(&self.ssh)),
            ("tunnel_listen_addr", listener(&self.tunnel)),
            ("web_listen_addr", web.clone()),
            ("public_addr", first(&self.public_addrs)),
            ("ssh_public_addr", first(&self.ssh_public_addrs)),
            ("ssh_tunnel_public_addr", first(&self.tunnel_public_addrs)),
        ];
        let mut ssh = without_empty(ssh);
        ssh.insert("dial_timeout".into(), json!(i64::try_from(SSH_DIAL_TIMEOUT.as_nanos()).unwrap_or(i64::MAX)));
        let kube_enabled = self.kube_enabled;
        let mut kube = without_empty([
            ("public_addr", first(&self.kube_public_addrs)),
            ("listen_addr", if kube_enabled { listener(&self.kube) } else { String::new() }),
        ]);
        kube.insert("enabled".into(), kube_enabled.into());
        let db = without_empty([
            ("postgres_listen_addr", listener(&self.postgres)),
            ("postgres_public_addr", self.postgres_public_addr()),
            ("mysql_listen_addr", listener(&self.mysql)),
            ("mysql_public_addr", first(&self.mysql_public_addrs)),
            (
                "mongo_listen_addr",
                self.mongo.as_ref().filter(|_| !through_web).map(HostPort::to_string).unwrap_or_default(),
            ),
            ("mongo_public_addr", first(&self.mongo_public_addrs)),
        ]);
        json!({"kube": kube, "ssh": ssh, "db": db, "tls_routing_enabled": multiplex})
    }

    fn postgres_public_addr(&self) -> String {
        if let Some(first) = self.postgres_public_addrs.first() {
            return first.to_string();
        }
        let Some(listener) = &self.postgres else { return String::new() };
        let host = self.public_addrs.first().unwrap_or(&self.web).host.clone();
        HostPort { host, port: listener.port }.to_string()
    }

    /// Whether tunnels are served on the public port without TLS around them, too.
    pub(crate) fn tunnel_on_web(&self) -> bool {
        self.tunnel.as_ref() == Some(&self.web)
    }

    /// The address at which other proxies dial this one. An address that stands for all of a host's is not one: the
    /// host's name is.
    pub(crate) fn advertised_peer(&self) -> Option<HostPort> {
        let listen = self.peer.as_ref()?;
        let own = self.peer_public_addr.as_ref().unwrap_or(listen);
        let unspecified = own.ip().is_some_and(|ip| ip.is_unspecified());
        Some(if unspecified { HostPort::new(self.hostname.clone(), own.port) } else { own.clone() })
    }

    /// Where the public port is bound.
    pub(crate) fn web_socket(&self) -> Option<SocketAddr> {
        socket(&self.web)
    }
}

/// The socket address of a listener; names are not resolved: one listens on addresses.
pub(crate) fn socket(address: &HostPort) -> Option<SocketAddr> {
    let ip = if address.host == "localhost" { Some([127, 0, 0, 1].into()) } else { address.ip() };
    ip.map(|ip| SocketAddr::new(ip, address.port))
}

/// Whether clients are to use one port for everything.
pub(crate) fn is_multiplex(networking: &ClusterNetworkingConfigV2) -> bool {
    networking.spec.as_ref().is_some_and(|s| s.proxy_listener_mode == ProxyListenerMode::Multiplex as i32)
}

fn without_empty<const N: usize>(pairs: [(&str, String); N]) -> Map<String, Value> {
    pairs.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.into())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wire::types::ClusterNetworkingConfigSpecV2;

    use super::*;

    fn settings() -> Settings {
        let address = |text: &str| HostPort::parse(text, 3080).unwrap();
        Settings {
            host_uuid: "u".into(),
            hostname: "Proxy1".into(),
            data_dir: "/tmp".into(),
            auth_servers: vec![],
            legacy_listeners: false,
            web: address("0.0.0.0:3080"),
            ssh: None,
            tunnel: None,
            kube: None,
            mysql: None,
            postgres: None,
            mongo: None,
            kube_enabled: true,
            public_addrs: vec![address("example.teleport.sh:443")],
            ssh_public_addrs: vec![],
            tunnel_public_addrs: vec![],
            kube_public_addrs: vec![],
            postgres_public_addrs: vec![],
            mysql_public_addrs: vec![],
            mongo_public_addrs: vec![],
            redis: None,
            peer: None,
            peer_public_addr: None,
            https_keypairs: vec![],
            https_keypairs_reload_interval: Duration::ZERO,
            trust_x_forwarded_for: false,
            max_connections: 10,
            rates: Vec::new(),
            algorithms: Default::default(),
            beside_auth: false,
            dialer: dialer::Dialer::direct(),
            proxy_verify: dialer::Verify::System,
            proxy_protocol: mux::ProxyProtocolMode::Unspecified,
        }
    }

    fn networking(mode: ProxyListenerMode) -> ClusterNetworkingConfigV2 {
        let spec = ClusterNetworkingConfigSpecV2 { proxy_listener_mode: mode as i32, ..Default::default() };
        ClusterNetworkingConfigV2 { spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn one_port_is_advertised_for_everything_when_multiplexing() {
        let proxy = settings().advertised(&networking(ProxyListenerMode::Multiplex));
        let expected = json!({
            "kube": {"enabled": true, "listen_addr": "0.0.0.0:3080"},
            "ssh": {
                "listen_addr": "0.0.0.0:3080", "tunnel_listen_addr": "0.0.0.0:3080", "web_listen_addr": "0.0.0.0:3080",
                "public_addr": "example.teleport.sh:443", "dial_timeout": 30_000_000_000i64
            },
            "db": {"postgres_listen_addr": "0.0.0.0:3080", "mysql_listen_addr": "0.0.0.0:3080"},
            "tls_routing_enabled": true
        });
        assert_eq!(proxy, expected);
    }

    #[test]
    fn own_listeners_are_advertised_in_separate_mode() {
        let mut settings = settings();
        settings.ssh = Some(HostPort::parse("0.0.0.0:3023", 3023).unwrap());
        let proxy = settings.advertised(&networking(ProxyListenerMode::Separate));
        assert_eq!(proxy["tls_routing_enabled"], false);
        assert_eq!(proxy["ssh"]["listen_addr"], "0.0.0.0:3023");
        assert!(proxy["db"].as_object().unwrap().is_empty());
    }

    #[test]
    fn certificates_are_good_for_every_name_and_a_wildcard_for_kubernetes() {
        let settings = settings();
        let names = settings.principals();
        for name in ["Proxy1", "proxy1", "localhost", "example.teleport.sh"] {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
        assert_eq!(settings.dns_names(), ["*.example.teleport.sh"]);
    }
}
