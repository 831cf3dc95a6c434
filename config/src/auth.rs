//! Section `auth_service`.

use std::{path::PathBuf, time::Duration};

use crate::{
    Authentication, Environment, HostPort, KeyModule, ProxyProtocol, Secret, authentication,
    global::AUTH_PORT,
    key_module,
    later::{self, Shape},
    section::{Choice, Section, choices, one_of},
};

/// The Auth Service of this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Whether it runs.
    pub enabled: bool,
    /// Where it listens.
    pub listen_addr: HostPort,
    /// Further addresses under which it is reached; they stand in its certificate.
    pub public_addrs: Vec<HostPort>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Name of the cluster; `None`: the name of the host.
    pub cluster_name: Option<String>,
    /// Join tokens that never expire.
    pub tokens: Vec<StaticToken>,
    /// How users log in; `None`: not in the file, so that the stored settings count.
    pub authentication: Option<Authentication>,
    /// How sessions are recorded.
    pub recording: Recording,
    /// How clients and agents connect.
    pub networking: Networking,
    /// Whether sessions end with the user's certificate.
    pub disconnect_expired_cert: Option<bool>,
    /// What users confirm before they log in.
    pub message_of_the_day: Option<String>,
    /// The licence; below the data directory unless absolute. This build needs none.
    pub license_file: PathBuf,
    /// Whether `tsh` loads the authorities of all clusters.
    pub load_all_cas: bool,
    /// The module that keeps the private keys of authorities; `None`: they are in the storage.
    pub key_module: Option<KeyModule>,
}

impl Auth {
    /// Whether the file decides on the login settings, so that they are not changed at run time.
    pub fn decides_authentication(&self) -> bool {
        self.authentication.is_some() || self.disconnect_expired_cert.is_some() || self.message_of_the_day.is_some()
    }
}

/// A join token that never expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticToken {
    /// What the holder may become.
    pub roles: Vec<TokenRole>,
    /// The token.
    pub secret: Secret,
}

choices! {
    /// What an instance that joins with a token may become; spelled as in certificates.
    TokenRole {
        Auth = "Auth",
        Proxy = "Proxy",
        Node = "Node",
        Kube = "Kube" | "kubernetes",
        App = "App",
        Db = "Db" | "database",
        WindowsDesktop = "WindowsDesktop" | "windows_desktop",
        Bot = "Bot",
        Discovery = "Discovery",
        Okta = "Okta",
        Mdm = "MDM",
        TrustedCluster = "Trusted_cluster" | "trusted-cluster" | "trustedcluster",
    }
}

choices! {
    /// Where sessions are recorded.
    RecordingMode {
        Node = "node",
        NodeSync = "node-sync",
        Proxy = "proxy",
        ProxySync = "proxy-sync",
        Off = "off",
    }
}

/// How sessions are recorded, as far as the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Where.
    pub mode: Option<RecordingMode>,
    /// Whether a recording proxy checks the target's host key.
    pub proxy_checks_host_keys: Option<bool>,
    /// Whether recordings are kept so that only the cluster can read them.
    pub encryption: Option<bool>,
}

impl Recording {
    /// Whether the file decides on this, so that it is not changed at run time.
    pub fn is_in_file(&self) -> bool {
        *self != Self::default()
    }
}

choices! {
    /// What clients are told about the proxy's ports.
    ListenerMode {
        Separate = "separate",
        Multiplex = "multiplex",
    }
}

choices! {
    /// Which of several servers with one name is meant.
    RoutingStrategy {
        UnambiguousMatch = "unambiguous_match",
        MostRecent = "most_recent",
    }
}

/// To which proxies agents hold their tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelStrategy {
    /// To all.
    AgentMesh,
    /// To some; proxies pass connections on to each other.
    ProxyPeering {
        /// To how many.
        agent_connection_count: u64,
    },
}

/// How clients and agents connect, as far as the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networking {
    /// When an idle session ends; zero: never.
    pub client_idle_timeout: Option<Duration>,
    /// What the user is told then.
    pub client_idle_timeout_message: Option<String>,
    /// When the web interface logs an idle user out; zero: never.
    pub web_idle_timeout: Option<Duration>,
    /// Time between two signs of life.
    pub keep_alive_interval: Option<Duration>,
    /// How many may be missed.
    pub keep_alive_count_max: Option<u64>,
    /// How long a place among a user's sessions stays taken without renewal.
    pub session_control_timeout: Option<Duration>,
    /// What clients are told about the proxy's ports.
    pub proxy_listener_mode: Option<ListenerMode>,
    /// Which of several servers with one name is meant.
    pub routing_strategy: Option<RoutingStrategy>,
    /// To which proxies agents hold their tunnels.
    pub tunnel_strategy: Option<TunnelStrategy>,
    /// Time between two pings inside wrapped connections.
    pub proxy_ping_interval: Option<Duration>,
    /// Whether names of servers match in any case.
    pub case_insensitive_routing: Option<bool>,
}

impl Networking {
    /// Whether the file decides on this, so that it is not changed at run time.
    pub fn is_in_file(&self) -> bool {
        *self != Self::default()
    }
}

pub(crate) fn read(section: &Section<'_>, environment: &Environment) -> Auth {
    section.ignore_with_warning("kubeconfig_file", "has no effect");
    section.sections("reverse_tunnels", |tunnel| {
        later::check(tunnel, &[("domain_name", Shape::Text), ("addresses", Shape::Texts)]);
    });
    let key_module = section.section("ca_key_params", key_module::read);
    refuse_when_enabled(section, "hosted_plugins", HOSTED_PLUGINS);
    refuse_when_enabled(section, "access_monitoring", ACCESS_MONITORING);
    let authentication = section.section("authentication", |login| authentication::read(login, environment));
    Auth {
        enabled: section.flag("enabled").unwrap_or(true),
        listen_addr: section.address("listen_addr", AUTH_PORT).unwrap_or_else(|| HostPort::new("0.0.0.0", AUTH_PORT)),
        public_addrs: section.addresses("public_addr", AUTH_PORT),
        proxy_protocol: ProxyProtocol::read(section),
        cluster_name: read_cluster_name(section),
        tokens: section.items("tokens", read_tokens).into_iter().flatten().collect(),
        authentication: section.has("authentication").then_some(authentication),
        recording: Recording {
            mode: section.choice("session_recording"),
            proxy_checks_host_keys: section.flag("proxy_checks_host_keys"),
            encryption: section
                .section("session_recording_config", |block| block.section("encryption", |e| e.flag("enabled"))),
        },
        networking: read_networking(section),
        disconnect_expired_cert: section.flag("disconnect_expired_cert"),
        message_of_the_day: section.text("message_of_the_day"),
        license_file: section.path("license_file").unwrap_or_else(|| "license.pem".into()),
        load_all_cas: section.flag("load_all_cas").unwrap_or(false),
        key_module,
    }
}

fn read_cluster_name(section: &Section<'_>) -> Option<String> {
    let name = section.text("cluster_name")?;
    let valid = name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !valid {
        let message = format!("expected letters, digits, dots and dashes, found {name:?}");
        section.reject("cluster_name", message);
    }
    Some(name)
}

fn read_networking(section: &Section<'_>) -> Networking {
    Networking {
        client_idle_timeout: section.duration("client_idle_timeout"),
        client_idle_timeout_message: section.text("client_idle_timeout_message"),
        web_idle_timeout: section.duration("web_idle_timeout"),
        keep_alive_interval: section.duration("keep_alive_interval"),
        keep_alive_count_max: section.number("keep_alive_count_max"),
        session_control_timeout: section.duration("session_control_timeout"),
        proxy_listener_mode: section.choice("proxy_listener_mode"),
        routing_strategy: section.choice("routing_strategy"),
        tunnel_strategy: section.section("tunnel_strategy", read_tunnel_strategy),
        proxy_ping_interval: section.duration("proxy_ping_interval"),
        case_insensitive_routing: section.flag("case_insensitive_routing"),
    }
}

fn read_tunnel_strategy(section: &Section<'_>) -> Option<TunnelStrategy> {
    let count = section.number("agent_connection_count");
    let kind = section.parsed("type", "agent_mesh or proxy_peering", |text| match text {
        "agent_mesh" => Some(TunnelStrategy::AgentMesh),
        "proxy_peering" => Some(TunnelStrategy::ProxyPeering { agent_connection_count: count.unwrap_or(1) }),
        _ => None,
    });
    if section.is_present() && !section.has("type") {
        section.reject("type", "expected agent_mesh or proxy_peering, found nothing");
    }
    if kind == Some(TunnelStrategy::AgentMesh) && count.is_some() {
        section.reject("agent_connection_count", "is for the type proxy_peering only");
    }
    if count == Some(0) {
        section.reject("agent_connection_count", "expected at least 1, found 0");
    }
    kind
}

/// Reads `role1,role2:token`, where the token may be a file with one token a line.
fn read_tokens(text: &str) -> Result<Vec<StaticToken>, String> {
    let (roles, token) = text.split_once(':').ok_or("expected a static token as role1,role2:token, found no colon")?;
    let roles = roles
        .split(',')
        .map(|role| {
            TokenRole::from_name(role.trim()).ok_or_else(|| {
                let known = one_of(TokenRole::NAMES).to_lowercase();
                format!("unknown role {:?} of a static token, expected {known}", role.trim())
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let token = token.trim();
    let secrets: Vec<Secret> = if token.starts_with('/') {
        let lines =
            std::fs::read_to_string(token).map_err(|error| format!("reading the tokens in {token} failed: {error}"))?;
        lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::new).collect()
    } else {
        (!token.is_empty()).then(|| Secret::new(token)).into_iter().collect()
    };
    if secrets.is_empty() {
        return Err("static token has roles and no token".to_owned());
    }
    Ok(secrets.into_iter().map(|secret| StaticToken { roles: roles.clone(), secret }).collect())
}

fn refuse_when_enabled(section: &Section<'_>, key: &'static str, keys: &'static [(&'static str, Shape)]) {
    let enabled = section.section(key, |inner| {
        later::check(inner, keys);
        inner.flag("enabled").unwrap_or(false)
    });
    if enabled {
        section.reject(key, format!("{key} is not part of this build yet"));
    }
}

const HOSTED_PLUGINS: &[(&str, Shape)] = &[(
    "oauth_providers",
    Shape::Map(&[("slack", Shape::Map(&[("client_id", Shape::Text), ("client_secret", Shape::Text)]))]),
)];

const ACCESS_MONITORING: &[(&str, Shape)] = &[
    ("role_arn", Shape::Text),
    ("role_tags", Shape::Labels),
    ("data_limit", Shape::Number),
    ("database", Shape::Text),
    ("table", Shape::Text),
    ("workgroup", Shape::Text),
    ("query_results", Shape::Text),
    ("report_results", Shape::Text),
];
