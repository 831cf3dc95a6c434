//! The whole configuration of a process.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    Auth, ConfigError, Global, HostPort, KeyPair, Overrides, Proxy, Server, Ssh, auth, global, later, proxy,
    section::{Context, Section, choices},
    ssh, yaml,
};

/// Where the configuration is when the command line does not say.
pub const DEFAULT_FILE: &str = "/etc/teleport.yaml";

const METRICS_PORT: u16 = 3081;

/// What a `teleport` process is to do: built-in defaults, overridden by the file, overridden by flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from, if it came from one.
    pub file: Option<PathBuf>,
    /// Version of the file's format.
    pub version: Version,
    /// What all services share.
    pub global: Global,
    /// The Auth Service.
    pub auth: Auth,
    /// The Proxy Service.
    pub proxy: Proxy,
    /// The SSH Service.
    pub ssh: Ssh,
    /// The service that serves metrics on a port of its own.
    pub metrics: Option<Metrics>,
    /// Whether the process answers on the socket `debug.sock` in the data directory.
    pub debug_service: bool,
    /// Whether certificates of servers this process dials go unverified. Never relaxes what it accepts.
    pub insecure: bool,
    /// What an administrator should know and what does not keep the process from starting.
    pub warnings: Vec<String>,
}

choices! {
    /// Version of the configuration's format.
    Version {
        V1 = "v1",
        V2 = "v2",
        V3 = "v3",
    }
}

/// Metrics on a port of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served.
    pub listen_addr: HostPort,
    /// Certificates of the port; empty: plain HTTP.
    pub keypairs: Vec<KeyPair>,
    /// Authorities of the clients; empty: clients need no certificate.
    pub ca_certs: Vec<PathBuf>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// [`DEFAULT_FILE`] if it exists, otherwise the built-in defaults.
    Default,
    /// This file.
    File(PathBuf),
    /// Base64 of a whole file, from a flag or an environment variable.
    Base64 {
        /// The flag or variable, for messages.
        name: String,
        /// The base64 text.
        text: String,
    },
}

/// What the configuration takes from its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Name of this host.
    pub hostname: String,
    /// Whether the Auth Service may run without second factor, as `TELEPORT_ALLOW_NO_SECOND_FACTOR=yes` says.
    /// Tools that only read the configuration set it.
    pub allow_no_second_factor: bool,
}

impl Environment {
    /// This host and the variables of this process.
    pub fn of_process() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = match hostname.trim() {
            "" => "localhost",
            name => name,
        };
        let variable = std::env::var("TELEPORT_ALLOW_NO_SECOND_FACTOR").unwrap_or_default();
        Self { hostname: hostname.to_owned(), allow_no_second_factor: matches!(variable.as_str(), "yes" | "true") }
    }

    /// As [`of_process`](Self::of_process), for tools that only read what a server runs with.
    pub fn of_tool() -> Self {
        Self { allow_no_second_factor: true, ..Self::of_process() }
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When the named file is missing or unreadable, and with all problems at once when its content or the
    /// flags are wrong.
    pub fn load(source: &Source, overrides: &Overrides, environment: &Environment) -> Result<Self, ConfigError> {
        match source {
            Source::Default if !Path::new(DEFAULT_FILE).exists() => {
                Self::parse("built-in defaults", "", overrides, environment)
            }
            Source::Default => Self::load_file(Path::new(DEFAULT_FILE), overrides, environment),
            Source::File(path) => Self::load_file(path, overrides, environment),
            Source::Base64 { name, text } => {
                let undecodable = |reason: String| ConfigError::Undecodable { name: name.clone(), reason };
                let bytes = STANDARD.decode(text.trim()).map_err(|error| undecodable(error.to_string()))?;
                let text = String::from_utf8(bytes).map_err(|error| undecodable(error.to_string()))?;
                Self::parse(name, &text, overrides, environment)
            }
        }
    }

    fn load_file(path: &Path, overrides: &Overrides, environment: &Environment) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::NotFound { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
        let config = Self::parse(&path.display().to_string(), &text, overrides, environment)?;
        Ok(Self { file: Some(path.to_owned()), ..config })
    }

    /// Reads the configuration from the text of a file; `file` is its name in messages.
    ///
    /// # Errors
    /// All problems at once when the content or the flags are wrong.
    pub fn parse(
        file: &str,
        text: &str,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let tree = match yaml::parse(file, text, &mut problems) {
            Ok(tree) => tree,
            Err(problem) => {
                problems.push(problem);
                return Err(ConfigError::from_problems(problems));
            }
        };
        let context = Context::new(file, problems);
        let (mut config, mentions_server) =
            Section::read(&context, String::new(), Some(&tree), |root| read(root, environment));
        config.warnings = context.warnings.take();
        overrides.apply(&mut config, &mut context.problems.borrow_mut());
        config.check(&context, mentions_server);
        match context.problems.take() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::from_problems(problems)),
        }
    }

    /// Directory of the cluster's database.
    pub fn backend_dir(&self) -> PathBuf {
        match &self.global.storage.state {
            crate::StateStorage::Sqlite(sqlite) => {
                sqlite.path.clone().unwrap_or_else(|| self.global.data_dir.join("backend"))
            }
            crate::StateStorage::Memory | crate::StateStorage::Postgres(_) | crate::StateStorage::Etcd(_) => {
                self.global.data_dir.join("backend")
            }
        }
    }

    /// Name of the cluster when this process starts it.
    pub fn cluster_name(&self) -> &str {
        self.auth.cluster_name.as_deref().unwrap_or(&self.global.nodename)
    }

    /// What only makes sense, or does not, with everything known.
    fn check(&mut self, context: &Context, mentions_server: bool) {
        let reject = |key: &str, message: &str| context.note(0, key, message.to_owned(), false);
        let services = self.auth.enabled || self.proxy.enabled || self.ssh.enabled;
        if !services && context.problems.borrow().is_empty() {
            reject("", "all services are disabled, enable at least one of auth_service, proxy_service and ssh_service");
        }
        if services && !self.auth.enabled && self.global.server.is_none() && !mentions_server {
            let message = match self.version {
                Version::V3 => "auth_server or proxy_server must be set when auth_service is not enabled",
                Version::V1 | Version::V2 => "auth_servers must be set when auth_service is not enabled",
            };
            reject("teleport", message);
        }
        match &self.global.server {
            Some(Server::Proxy(_)) if self.proxy.enabled => {
                reject("teleport.proxy_server", "can not be set when proxy_service is enabled, use auth_server");
            }
            Some(Server::Proxy(address)) if address.port == global::AUTH_PORT => {
                self.warnings.push(format!(
                    "teleport.proxy_server: {address} has the port of an Auth Service, did you mean auth_server?"
                ));
            }
            Some(Server::Auth(address)) if [443, global::WEB_PORT].contains(&address.port) => {
                self.warnings.push(format!(
                    "teleport.auth_server: {address} has the port of a proxy, did you mean proxy_server?"
                ));
            }
            _ => {}
        }
    }
}

/// Reads the whole file, and says whether it mentions a server to connect to.
fn read(root: &Section<'_>, environment: &Environment) -> (Config, bool) {
    let version = root.choice("version").unwrap_or(Version::V1);
    let (global, mentions_server) = root.section("teleport", |section| {
        let global = global::read(section, version, environment);
        let keys = ["auth_servers", "auth_server", "proxy_server"];
        (global, keys.into_iter().any(|key| section.has(key)))
    });
    let auth = root.section("auth_service", |section| auth::read(section, environment));
    later::read(root, global.server.as_ref(), auth.enabled);
    let config = Config {
        file: None,
        version,
        global,
        auth,
        proxy: root.section("proxy_service", |section| proxy::read(section, version)),
        ssh: root.section("ssh_service", ssh::read),
        metrics: root.section("metrics_service", read_metrics),
        debug_service: root.section("debug_service", |section| {
            section.ignore("listen_addr");
            section.flag("enabled").unwrap_or(true)
        }),
        insecure: false,
        warnings: Vec::new(),
    };
    (config, mentions_server)
}

fn read_metrics(section: &Section<'_>) -> Option<Metrics> {
    section.flag("grpc_server_latency");
    section.flag("grpc_client_latency");
    let metrics = Metrics {
        listen_addr: section
            .address("listen_addr", METRICS_PORT)
            .unwrap_or_else(|| HostPort::new("0.0.0.0", METRICS_PORT)),
        keypairs: section
            .sections("keypairs", |pair| {
                let (key, cert) = (pair.path("key_file"), pair.path("cert_file"));
                Some(KeyPair { key_file: key?, cert_file: cert? })
            })
            .into_iter()
            .flatten()
            .collect(),
        ca_certs: section.texts("ca_certs").into_iter().map(PathBuf::from).collect(),
    };
    section.flag("enabled").unwrap_or(false).then_some(metrics)
}
