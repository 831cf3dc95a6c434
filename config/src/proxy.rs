//! Section `proxy_service`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    HostPort, Version,
    global::WEB_PORT,
    later::{self, Shape},
    section::{Section, choices},
};

const SSH_PORT: u16 = 3023;
const TUNNEL_PORT: u16 = 3024;
const KUBE_PORT: u16 = 3026;
const PEER_PORT: u16 = 3021;
const MYSQL_PORT: u16 = 3036;
const POSTGRES_PORT: u16 = 5432;
const MONGO_PORT: u16 = 27017;
const REDIS_PORT: u16 = 6379;

/// The Proxy Service of this process. A listener that is `None` has no port of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Whether it runs.
    pub enabled: bool,
    /// HTTPS and everything that is told apart by TLS.
    pub web: HostPort,
    /// SSH clients.
    pub ssh: Option<HostPort>,
    /// Reverse tunnels of agents; equal to [`web`](Self::web): on the same socket.
    pub tunnel: Option<HostPort>,
    /// Kubernetes clients.
    pub kube: Option<HostPort>,
    /// Whether Kubernetes clients are served at all, on their own port or on the web port.
    pub kube_enabled: bool,
    /// MySQL clients.
    pub mysql: Option<HostPort>,
    /// PostgreSQL clients.
    pub postgres: Option<HostPort>,
    /// MongoDB clients.
    pub mongo: Option<HostPort>,
    /// Redis clients, with mutual TLS. A key of this program's own.
    pub redis: Option<HostPort>,
    /// Other proxies of the cluster.
    pub peer: Option<HostPort>,
    /// Addresses users and agents know; the first is announced.
    pub public_addrs: Vec<HostPort>,
    /// Public addresses of the SSH port.
    pub ssh_public_addrs: Vec<HostPort>,
    /// Public addresses of the tunnel port.
    pub tunnel_public_addrs: Vec<HostPort>,
    /// Public addresses of the Kubernetes port.
    pub kube_public_addrs: Vec<HostPort>,
    /// Public addresses of the MySQL port.
    pub mysql_public_addrs: Vec<HostPort>,
    /// Public addresses of the PostgreSQL port.
    pub postgres_public_addrs: Vec<HostPort>,
    /// Public addresses of the MongoDB port.
    pub mongo_public_addrs: Vec<HostPort>,
    /// The address at which other proxies dial this one.
    pub peer_public_addr: Option<HostPort>,
    /// Certificates of the web port; empty: self-signed.
    pub https_keypairs: Vec<KeyPair>,
    /// How often they are read again; zero: only at start.
    pub https_keypairs_reload_interval: Duration,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The version told to MySQL clients.
    pub mysql_server_version: Option<String>,
    /// Whether the header `X-Forwarded-For` names the client.
    pub trust_x_forwarded_for: bool,
    /// The web interface.
    pub ui: Ui,
    /// Whether the proxy is a SAML identity provider.
    pub saml_idp: bool,
    /// Which versions agents are told to install.
    pub automatic_upgrades_channels: Vec<(String, UpgradeChannel)>,
}

impl Proxy {
    /// Whether tunnels and web share one socket.
    pub fn tunnel_on_web(&self) -> bool {
        self.tunnel.as_ref().is_none_or(|tunnel| *tunnel == self.web)
    }
}

/// A private key and its certificate chain, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key.
    pub key_file: PathBuf,
    /// The certificate, followed by its issuers.
    pub cert_file: PathBuf,
}

choices! {
    /// Whether connections begin with a PROXY header that names the client.
    ProxyProtocol {
        On = "on" | "yes" | "true",
        Off = "off" | "no" | "false",
    }
}

impl ProxyProtocol {
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let text = section.text("proxy_protocol")?;
        let known = <Self as crate::section::Choice>::from_name(&text);
        if known.is_none() {
            let message = format!("invalid 'proxy_protocol' value: expected on or off, found {text:?}");
            section.reject("proxy_protocol", message);
        }
        known
    }
}

/// The web interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ui {
    /// Lines a terminal keeps; `None`: the built-in number.
    pub scrollback_lines: Option<u32>,
    /// Which resources are listed.
    pub show_resources: ShowResources,
}

choices! {
    /// Which resources the web interface lists.
    ShowResources {
        Requestable = "requestable",
        AccessibleOnly = "accessible_only",
    }
}

/// Which version the agents of a channel are told to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeChannel {
    /// This version.
    pub static_version: Option<String>,
    /// The version another server tells.
    pub forward_url: Option<String>,
    /// Whether they do so outside of their maintenance window.
    pub critical: bool,
}

pub(crate) fn read(section: &Section<'_>, version: Version) -> Proxy {
    let enabled = section.flag("enabled").unwrap_or(true);
    let own_ports = version == Version::V1;
    let fallback = |port| own_ports.then(|| HostPort::new("0.0.0.0", port));
    let web = section.address("web_listen_addr", WEB_PORT).unwrap_or_else(|| HostPort::new("0.0.0.0", WEB_PORT));
    let public_addrs = section.addresses("public_addr", web.port);
    let postgres = section.address("postgres_listen_addr", POSTGRES_PORT);
    let postgres_port = match (&postgres, public_addrs.first()) {
        (Some(_), _) => POSTGRES_PORT,
        (None, Some(public)) => public.port,
        (None, None) => web.port,
    };
    let (kube, kube_public_addrs, kube_enabled) = read_kube(section, version);
    let proxy = Proxy {
        enabled,
        ssh: section.address("listen_addr", SSH_PORT).or(fallback(SSH_PORT)),
        tunnel: section.address("tunnel_listen_addr", TUNNEL_PORT).or(fallback(TUNNEL_PORT)),
        kube,
        kube_enabled,
        mysql: section.address("mysql_listen_addr", MYSQL_PORT),
        mongo: section.address("mongo_listen_addr", MONGO_PORT),
        redis: section.address("redis_listen_addr", REDIS_PORT),
        peer: section.address("peer_listen_addr", PEER_PORT),
        ssh_public_addrs: section.addresses("ssh_public_addr", SSH_PORT),
        tunnel_public_addrs: section.addresses("tunnel_public_addr", TUNNEL_PORT),
        kube_public_addrs,
        mysql_public_addrs: section.addresses("mysql_public_addr", MYSQL_PORT),
        postgres_public_addrs: section.addresses("postgres_public_addr", postgres_port),
        mongo_public_addrs: section.addresses("mongo_public_addr", MONGO_PORT),
        peer_public_addr: section.address("peer_public_addr", PEER_PORT),
        https_keypairs: read_key_pairs(section, enabled),
        https_keypairs_reload_interval: section.duration("https_keypairs_reload_interval").unwrap_or_default(),
        proxy_protocol: ProxyProtocol::read(section),
        mysql_server_version: section.text("mysql_server_version"),
        trust_x_forwarded_for: section.flag("trust_x_forwarded_for").unwrap_or(false),
        ui: section.section("ui", read_ui),
        saml_idp: section.section("idp", |idp| {
            idp.section("saml", |saml| {
                saml.ignore("base_url");
                saml.flag("enabled").unwrap_or(true)
            })
        }),
        automatic_upgrades_channels: section.named_sections("automatic_upgrades_channels", read_channel),
        web,
        public_addrs,
        postgres,
    };
    for (public, listen) in [
        ("kube_public_addr", "kube_listen_addr"),
        ("mysql_public_addr", "mysql_listen_addr"),
        ("mongo_public_addr", "mongo_listen_addr"),
        ("peer_public_addr", "peer_listen_addr"),
    ] {
        if section.has(public) && !section.has(listen) {
            section.reject(public, format!("{listen} must be set when {public} is set"));
        }
    }
    refuse_acme(section);
    proxy
}

fn read_kube(section: &Section<'_>, version: Version) -> (Option<HostPort>, Vec<HostPort>, bool) {
    let listen = section.address("kube_listen_addr", KUBE_PORT);
    let public = section.addresses("kube_public_addr", KUBE_PORT);
    let (old_enabled, old_listen, old_public) = section.section("kubernetes", |old| {
        later::check(old, &[("kubeconfig_file", Shape::Text), ("cluster_name", Shape::Text)]);
        let listen = old.address("listen_addr", KUBE_PORT);
        (old.flag("enabled"), listen, old.addresses("public_addr", KUBE_PORT))
    });
    let new_form = section.has("kube_listen_addr") || section.has("kube_public_addr");
    if new_form && old_enabled == Some(true) {
        section.reject("kubernetes", "either kube_listen_addr or kubernetes.enabled can be set, found both");
    }
    if new_form {
        return (listen, public, true);
    }
    match (old_enabled, version) {
        (Some(true), _) => {
            let listen = old_listen.unwrap_or_else(|| HostPort::new("0.0.0.0", KUBE_PORT));
            (Some(listen), old_public, true)
        }
        (_, Version::V1) => (None, Vec::new(), false),
        (_, Version::V2 | Version::V3) => (None, Vec::new(), true),
    }
}

fn read_key_pairs(section: &Section<'_>, enabled: bool) -> Vec<KeyPair> {
    let mut pairs = section.sections("https_keypairs", |pair| {
        let (key, cert) = (pair.path("key_file"), pair.path("cert_file"));
        for (name, path) in [("key_file", &key), ("cert_file", &cert)] {
            if path.is_none() && !pair.has(name) {
                pair.reject(name, "expected a path, found nothing");
            }
        }
        if enabled {
            check_files(pair, "key_file", key.as_deref(), "cert_file", cert.as_deref());
        }
        Some(KeyPair { key_file: key?, cert_file: cert? })
    });
    let (key, cert) = (section.path("https_key_file"), section.path("https_cert_file"));
    if enabled {
        check_files(section, "https_key_file", key.as_deref(), "https_cert_file", cert.as_deref());
    }
    match (key, cert) {
        (Some(key_file), Some(cert_file)) => pairs.push(Some(KeyPair { key_file, cert_file })),
        (Some(_), None) => {
            section.reject("https_key_file", "https_cert_file must be set when https_key_file is set");
        }
        (None, Some(_)) => {
            section.reject("https_cert_file", "https_key_file must be set when https_cert_file is set");
        }
        (None, None) => {}
    }
    pairs.into_iter().flatten().collect()
}

fn check_files(section: &Section<'_>, key_name: &str, key: Option<&Path>, cert_name: &str, cert: Option<&Path>) {
    if let Some(path) = key.filter(|path| !path.exists()) {
        section.reject(key_name, format!("https private key does not exist: {}", path.display()));
    }
    if let Some(path) = cert.filter(|path| !path.exists()) {
        section.reject(cert_name, format!("https cert does not exist: {}", path.display()));
    }
}

fn read_ui(section: &Section<'_>) -> Ui {
    let scrollback_lines = section.number("scrollback_lines");
    let show = section.text("show_resources");
    let known = show.as_deref().map(|text| {
        let known = <ShowResources as crate::section::Choice>::from_name(text);
        if known.is_none() {
            let message = format!("show resources {text:?} not supported, expected requestable or accessible_only");
            section.reject("show_resources", message);
        }
        known.unwrap_or(ShowResources::Requestable)
    });
    Ui { scrollback_lines, show_resources: known.unwrap_or(ShowResources::Requestable) }
}

fn read_channel(name: &str, section: &Section<'_>) -> (String, UpgradeChannel) {
    let channel = UpgradeChannel {
        static_version: section.text("static_version"),
        forward_url: section.text("forward_url"),
        critical: section.flag("critical").unwrap_or(false),
    };
    if channel.static_version.is_some() == channel.forward_url.is_some() {
        section.reject_all("exactly one of static_version and forward_url must be set");
    }
    (name.to_owned(), channel)
}

fn refuse_acme(section: &Section<'_>) {
    let enabled = section.section("acme", |acme| {
        later::check(acme, &[("email", Shape::Text), ("uri", Shape::Text)]);
        acme.flag("enabled").unwrap_or(false)
    });
    if enabled {
        section.reject("acme", "acme is not part of this build yet, use https_keypairs");
    }
}
