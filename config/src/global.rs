//! Section `teleport`: what all services of a process share.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use crate::{
    Environment, HostPort, Storage, Token, Version,
    section::{Choice, Section, choices, one_of},
    storage,
};

/// Where state is kept when the configuration does not say.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/teleport";

pub(crate) const AUTH_PORT: u16 = 3025;
pub(crate) const WEB_PORT: u16 = 3080;
const DIAG_PORT: u16 = 3000;

/// SSH ciphers, key exchanges and MACs that may be chosen.
const CIPHERS: &[&str] = &[
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
];
const KEY_EXCHANGES: &[&str] = &[
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
];
const MACS: &[&str] =
    &["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"];

/// TLS 1.2 suites that may be chosen; TLS 1.3 has no choice.
const CIPHER_SUITES: &[&str] = &[
    "tls-ecdhe-rsa-with-aes-128-gcm-sha256",
    "tls-ecdhe-ecdsa-with-aes-128-gcm-sha256",
    "tls-ecdhe-rsa-with-aes-256-gcm-sha384",
    "tls-ecdhe-ecdsa-with-aes-256-gcm-sha384",
    "tls-ecdhe-rsa-with-chacha20-poly1305",
    "tls-ecdhe-ecdsa-with-chacha20-poly1305",
];

const LOG_FIELDS: &[&str] = &["level", "timestamp", "component", "caller"];

/// What all services of a process share.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// Name of this host in the cluster.
    pub nodename: String,
    /// Directory of state, certificates and recordings.
    pub data_dir: PathBuf,
    /// File that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// How the process proves itself to the cluster when it has no certificates yet.
    pub join: Option<Join>,
    /// Where the Auth Service is, when it is not in this process.
    pub server: Option<Server>,
    /// Accepted public keys of the cluster's authority: `sha256:` and 64 hexadecimal digits each.
    pub ca_pins: Vec<String>,
    /// The address announced to the cluster, in place of the one found by looking.
    pub advertise: Option<Advertise>,
    /// Where health and metrics are served.
    pub diag_addr: Option<HostPort>,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// What is logged, where and how.
    pub log: Log,
    /// Where the Auth Service keeps its state.
    pub storage: Storage,
    /// The read cache of agents and proxies.
    pub cache: Cache,
    /// TLS 1.2 cipher suites; empty: the built-in choice.
    pub cipher_suites: Vec<&'static str>,
    /// SSH ciphers; empty: the built-in choice.
    pub ciphers: Vec<&'static str>,
    /// SSH key exchanges; empty: the built-in choice.
    pub key_exchanges: Vec<&'static str>,
    /// SSH MACs; empty: the built-in choice.
    pub macs: Vec<&'static str>,
}

/// How a process proves itself for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// What the proof is.
    pub method: JoinMethod,
    /// The token that names the rules of the join; for [`JoinMethod::Token`] it is the secret.
    pub token: Option<Token>,
    /// Client id of the managed identity for the method `azure`.
    pub azure_client_id: Option<String>,
}

choices! {
    /// What an instance shows to join a cluster.
    JoinMethod {
        Token = "token",
        Ec2 = "ec2",
        Iam = "iam",
        Github = "github",
        CircleCi = "circleci",
        Kubernetes = "kubernetes",
        Azure = "azure",
        Gitlab = "gitlab",
        Gcp = "gcp",
        Spacelift = "spacelift",
        Tpm = "tpm",
    }
}

/// The way to the Auth Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Its own address.
    Auth(HostPort),
    /// A proxy, through its public port.
    Proxy(HostPort),
    /// Addresses in version 1 and 2 of the file, where each may be the Auth Service or a proxy.
    Any(Vec<HostPort>),
}

/// The address announced to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Name or IP address.
    pub host: String,
    /// Port; `None`: the port of the service.
    pub port: Option<u16>,
}

/// Bounds on what clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Simultaneous connections per service and client address.
    pub max_connections: u64,
    /// Simultaneous users.
    pub max_users: u64,
    /// Requests over time; empty: no limit.
    pub rates: Vec<Rate>,
}

/// A bound on the number of requests of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Over how long requests are counted.
    pub period: Duration,
    /// Requests per period in the long run.
    pub average: u64,
    /// Requests at once.
    pub burst: u64,
}

/// What is logged, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where it goes.
    pub output: LogOutput,
    /// From which severity on.
    pub severity: Severity,
    /// In which form.
    pub format: LogFormat,
    /// Fields beside the message; empty: all.
    pub extra_fields: Vec<&'static str>,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The system's log.
    Syslog,
    /// A file, appended to and opened again after rotation.
    File(PathBuf),
}

choices! {
    /// How important a message is.
    Severity {
        Error = "ERROR" | "err",
        Warn = "WARN" | "warning",
        Info = "INFO",
        Debug = "DEBUG",
        Trace = "TRACE",
    }
}

impl Severity {
    /// The severity with this name, whatever its case.
    ///
    /// # Errors
    /// What was expected, as one clause.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::from_name(name).ok_or_else(|| format!("expected one of {}, found {name:?}", Self::NAMES.join(", ")))
    }
}

choices! {
    /// The form of a log line.
    LogFormat {
        Text = "text",
        Json = "json",
    }
}

/// The read cache of agents and proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Whether there is one.
    pub enabled: bool,
    /// Longest pause between two attempts to fill it.
    pub max_backoff: Duration,
}

pub(crate) fn read(section: &Section<'_>, version: Version, environment: &Environment) -> Global {
    section.ignore_with_warning("ca_signature_algo", "has no effect");
    Global {
        nodename: section.text("nodename").unwrap_or_else(|| environment.hostname.clone()),
        data_dir: section.path("data_dir").unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
        pid_file: section.path("pid_file"),
        join: read_join(section),
        server: read_server(section, version),
        ca_pins: read_pins(section),
        advertise: section.parsed("advertise_ip", "an address, with or without port", advertise),
        diag_addr: section.address("diag_addr", DIAG_PORT),
        limits: section.section("connection_limits", read_limits),
        log: section.section("log", read_log),
        storage: section.section("storage", storage::read),
        cache: section.section("cache", read_cache),
        cipher_suites: section.names("ciphersuites", CIPHER_SUITES),
        ciphers: section.names("ciphers", CIPHERS),
        key_exchanges: section.names("kex_algos", KEY_EXCHANGES),
        macs: section.names("mac_algos", MACS),
    }
}

pub(crate) fn advertise(text: &str) -> Option<Advertise> {
    let HostPort { host, port } = HostPort::parse(text, 0).ok()?;
    Some(Advertise { host, port: (port != 0).then_some(port) })
}

fn read_join(section: &Section<'_>) -> Option<Join> {
    let auth_token = section.parsed("auth_token", "text", |text| Some(Token::new(text)));
    let has_params = section.has("join_params");
    let params = section.section("join_params", |params| {
        let token = params.parsed("token_name", "text", |text| Some(Token::new(text)));
        let method = params.choice("method");
        let azure_client_id = params.section("azure", |azure| azure.text("client_id"));
        if has_params && !params.has("method") {
            params.reject("method", format!("expected {}", one_of(<JoinMethod as Choice>::NAMES)));
        }
        if has_params && !params.has("token_name") {
            params.reject("token_name", "expected the name of a token, found nothing");
        }
        Join { method: method.unwrap_or(JoinMethod::Token), token, azure_client_id }
    });
    match (auth_token, has_params) {
        (Some(_), true) => {
            section.reject("auth_token", "only one of auth_token or join_params should be set");
            None
        }
        (Some(token), false) => Some(Join { method: JoinMethod::Token, token: Some(token), azure_client_id: None }),
        (None, true) => Some(params),
        (None, false) => None,
    }
}

fn read_server(section: &Section<'_>, version: Version) -> Option<Server> {
    let any = section.addresses("auth_servers", AUTH_PORT);
    let auth = section.address("auth_server", AUTH_PORT);
    let proxy = section.address("proxy_server", WEB_PORT);
    if version == Version::V3 {
        if section.has("auth_servers") {
            section.reject(
                "auth_servers",
                "is not part of version v3, use auth_server or proxy_server instead of auth_servers",
            );
        }
        if auth.is_some() && proxy.is_some() {
            section.reject("proxy_server", "only one of auth_server or proxy_server can be set");
        }
        return auth.map(Server::Auth).or(proxy.map(Server::Proxy));
    }
    for key in ["auth_server", "proxy_server"] {
        if section.has(key) {
            let message = format!("needs version v3, use auth_servers in version {version}");
            section.reject(key, message);
        }
    }
    (!any.is_empty()).then_some(Server::Any(any))
}

fn read_pins(section: &Section<'_>) -> Vec<String> {
    let mut pins = Vec::new();
    for item in section.one_or_more_texts("ca_pin") {
        match resolve_pin(&item) {
            Ok(found) => pins.extend(found),
            Err(reason) => section.reject("ca_pin", reason),
        }
    }
    let mut seen = HashSet::new();
    pins.retain(|pin| seen.insert(pin.clone()));
    pins
}

/// A pin, or the pins in a file, one a line.
pub(crate) fn resolve_pin(item: &str) -> Result<Vec<String>, String> {
    if !item.starts_with('/') {
        return check_pin(item).map(|pin| vec![pin]);
    }
    let text = std::fs::read_to_string(item).map_err(|error| format!("reading {item} failed: {error}"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pins: Vec<String> = lines.map(check_pin).collect::<Result<_, _>>()?;
    if pins.is_empty() { Err(format!("{item} has no pins")) } else { Ok(pins) }
}

fn check_pin(pin: &str) -> Result<String, String> {
    match pin.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(pin.to_ascii_lowercase())
        }
        _ => Err(format!("expected sha256: and 64 hexadecimal digits or a path, found {pin:?}")),
    }
}

fn read_limits(section: &Section<'_>) -> Limits {
    section.ignore_with_warning("max_users", "is not enforced: connections and rates are bounded for each address");
    Limits {
        max_connections: section.number("max_connections").unwrap_or(15_000),
        max_users: section.number("max_users").unwrap_or(250),
        rates: section.sections("rates", |rate| {
            let period = rate.duration("period").unwrap_or_default();
            let average = rate.number("average").unwrap_or_default();
            let burst = rate.number("burst").unwrap_or_default();
            if period.is_zero() || average == 0 || burst == 0 {
                rate.reject_all("expected period, average and burst, all larger than 0");
            }
            Rate { period, average, burst }
        }),
    }
}

fn read_log(section: &Section<'_>) -> Log {
    let output = section.text("output");
    let (format, extra_fields) = if section.is_list("format") {
        (LogFormat::Text, section.names("format", LOG_FIELDS))
    } else {
        section.section("format", |format| {
            let output = format.choice("output").unwrap_or(LogFormat::Text);
            (output, format.names("extra_fields", LOG_FIELDS))
        })
    };
    Log {
        output: match output.as_deref() {
            None | Some("stderr" | "error" | "2") => LogOutput::Stderr,
            Some("stdout" | "out" | "1") => LogOutput::Stdout,
            Some("syslog") => LogOutput::Syslog,
            Some(path) => LogOutput::File(path.into()),
        },
        severity: section.choice("severity").unwrap_or(Severity::Info),
        format,
        extra_fields,
    }
}

fn read_cache(section: &Section<'_>) -> Cache {
    section.ignore_with_warning("type", "has no effect");
    section.ignore_with_warning("ttl", "has no effect");
    Cache {
        enabled: section.flag("enabled").unwrap_or(true),
        max_backoff: section.duration("max_backoff").unwrap_or(Duration::from_secs(90)),
    }
}
