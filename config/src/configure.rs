//! Writes configuration files: `teleport configure` and `teleport node configure`.

use std::fmt::Write;

use crate::{
    CommandLabel, HostPort, JoinMethod, Labels, Secret, Version, format_duration,
    global::{AUTH_PORT, DEFAULT_DATA_DIR, WEB_PORT},
    section::{Choice, one_of},
};

/// What `teleport configure` is asked for. Empty texts and `None` leave a key out.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--cluster-name`.
    pub cluster_name: Option<String>,
    /// `--version`; `v3` when empty.
    pub version: Option<String>,
    /// `--acme`: order a certificate from Let's Encrypt.
    pub acme: bool,
    /// `--acme-email`.
    pub acme_email: Option<String>,
    /// `--public-addr`.
    pub public_addr: Option<String>,
    /// `--cert-file`.
    pub cert_file: Option<String>,
    /// `--key-file`.
    pub key_file: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--token`: the join token, or a path with it.
    pub token: Option<Secret>,
    /// `--join-method`; `token` when empty.
    pub join_method: Option<String>,
    /// `--roles`: `proxy,node,auth` when empty.
    pub roles: Option<String>,
    /// `--auth-server`.
    pub auth_server: Option<String>,
    /// `--proxy`.
    pub proxy: Option<String>,
    /// `--ca-pin`.
    pub ca_pins: Vec<String>,
    /// `--node-name`; this host's name when empty.
    pub node_name: Option<String>,
    /// `--node-labels` or `--labels`: `key=value,key2=[period:command]`.
    pub node_labels: Option<String>,
    /// `--app-name`.
    pub app_name: Option<String>,
    /// `--app-uri`.
    pub app_uri: Option<String>,
    /// `--azure-client-id`.
    pub azure_client_id: Option<String>,
}

/// Why no configuration is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigureError(String);

/// Text of a file for a cluster or any part of one.
///
/// # Errors
/// When the options contradict each other.
pub fn sample(options: &Options, hostname: &str) -> Result<String, ConfigureError> {
    let checked = check(options, "proxy,node,auth")?;
    Ok(write(options, &checked, hostname))
}

/// Text of a file for a host that joins a cluster with its SSH service.
///
/// # Errors
/// When the options contradict each other.
pub fn node(options: &Options, hostname: &str) -> Result<String, ConfigureError> {
    let checked = check(options, "node")?;
    Ok(write(options, &checked, hostname))
}

struct Checked {
    version: Version,
    method: JoinMethod,
    auth: bool,
    proxy: bool,
    ssh: bool,
    app: bool,
    labels: Labels,
    public_addr: Option<HostPort>,
}

fn check(options: &Options, default_roles: &str) -> Result<Checked, ConfigureError> {
    let fail = |text: String| Err(ConfigureError(text));
    let version = match options.version.as_deref().unwrap_or("v3") {
        "" => Version::V3,
        text => match Version::from_name(text) {
            Some(version) => version,
            None => return fail(format!("unknown version {text:?}, expected v1, v2 or v3")),
        },
    };
    if options.key_file.is_some() != options.cert_file.is_some() {
        return fail("please provide both --key-file and --cert-file".to_owned());
    }
    if options.acme && options.cluster_name.is_none() {
        return fail(
            "please provide --cluster-name when using ACME, for example --cluster-name=example.com".to_owned(),
        );
    }
    if options.acme && options.key_file.is_some() {
        return fail("could not use --key-file/--cert-file when ACME is enabled".to_owned());
    }
    if options.proxy.is_some() && options.auth_server.is_some() {
        return fail("--proxy and --auth-server cannot both be set".to_owned());
    }
    if options.proxy.is_some() && version < Version::V3 {
        return fail("--proxy cannot be used with configuration versions older than v3".to_owned());
    }
    let method = match options.join_method.as_deref().unwrap_or_default() {
        "" => JoinMethod::Token,
        text => match JoinMethod::from_name(text) {
            Some(method) => method,
            None => {
                let known = one_of(JoinMethod::NAMES);
                return fail(format!("unknown --join-method {text:?}, expected {known}"));
            }
        },
    };
    let roles = options.roles.as_deref().filter(|roles| !roles.is_empty()).unwrap_or(default_roles);
    let roles: Vec<&str> = roles.split(',').map(str::trim).collect();
    if let Some(role) = roles.iter().find(|role| !["auth", "proxy", "node", "app"].contains(role)) {
        return fail(format!("unknown role {role:?} in --roles, expected auth, proxy, node or app"));
    }
    let labels = Labels::parse(options.node_labels.as_deref().unwrap_or_default())
        .map_err(|reason| ConfigureError(format!("--node-labels: {reason}")))?;
    let public_addr = match options.public_addr.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => match HostPort::parse(text, if options.acme { 443 } else { WEB_PORT }) {
            Ok(address) => Some(address),
            Err(reason) => return fail(format!("--public-addr {text:?}: {reason}")),
        },
        None => {
            let name = options.cluster_name.as_deref().filter(|_| options.acme);
            name.map(|name| HostPort::new(name, 443))
        }
    };
    for (flag, text, port) in
        [("--auth-server", &options.auth_server, AUTH_PORT), ("--proxy", &options.proxy, WEB_PORT)]
    {
        if let Some(text) = text
            && let Err(reason) = HostPort::parse(text, port)
        {
            return fail(format!("{flag} {text:?}: {reason}"));
        }
    }
    let joins = options.proxy.is_some() || options.auth_server.is_some();
    Ok(Checked {
        version,
        method,
        auth: roles.contains(&"auth") && !joins,
        proxy: roles.contains(&"proxy") && options.proxy.is_none(),
        ssh: roles.contains(&"node"),
        app: roles.contains(&"app") || options.app_name.is_some(),
        labels,
        public_addr,
    })
}

fn write(options: &Options, checked: &Checked, hostname: &str) -> String {
    let mut out = Yaml::default();
    out.comment("A sample Teleport configuration file.");
    out.comment(&format!("Enabled here: {}.", enabled(checked)));
    if checked.proxy && checked.public_addr.is_none() {
        out.comment("Set proxy_service.public_addr to the address at which users and agents reach it.");
    }
    if checked.proxy && !options.acme && options.key_file.is_none() {
        out.comment("Set proxy_service.https_keypairs, or browsers will warn of a self-signed certificate.");
    }
    out.key(0, "version", checked.version.as_str());
    write_global(&mut out, options, checked, hostname);
    write_auth(&mut out, options, checked);
    write_ssh(&mut out, checked);
    write_proxy(&mut out, options, checked);
    if checked.app {
        out.open(0, "app_service");
        out.key(1, "enabled", "yes");
        if let (Some(name), Some(uri)) = (&options.app_name, &options.app_uri) {
            out.open(1, "apps");
            out.line(1, &format!("- name: {}", quote(name)));
            out.key(2, "uri", uri);
        }
    }
    out.text
}

fn enabled(checked: &Checked) -> String {
    let services = [
        (checked.auth, "auth_service"),
        (checked.proxy, "proxy_service"),
        (checked.ssh, "ssh_service"),
        (checked.app, "app_service"),
    ];
    let names: Vec<&str> = services.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn write_global(out: &mut Yaml, options: &Options, checked: &Checked, hostname: &str) {
    out.open(0, "teleport");
    out.key(1, "nodename", options.node_name.as_deref().unwrap_or(hostname));
    out.key(1, "data_dir", options.data_dir.as_deref().unwrap_or(DEFAULT_DATA_DIR));
    if let Some(token) = &options.token {
        out.open(1, "join_params");
        out.key(2, "token_name", token.expose());
        out.key(2, "method", checked.method.as_str());
        if let Some(client_id) = &options.azure_client_id {
            out.open(2, "azure");
            out.key(3, "client_id", client_id);
        }
    }
    match (&options.proxy, &options.auth_server, checked.version) {
        (Some(proxy), _, _) => out.key(1, "proxy_server", proxy),
        (None, Some(server), Version::V3) => out.key(1, "auth_server", server),
        (None, Some(server), _) => {
            out.open(1, "auth_servers");
            out.line(1, &format!("- {}", quote(server)));
        }
        (None, None, _) => {}
    }
    out.open(1, "log");
    out.key(2, "output", "stderr");
    out.key(2, "severity", "INFO");
    out.open(2, "format");
    out.key(3, "output", "text");
    match options.ca_pins.as_slice() {
        [] => out.key(1, "ca_pin", ""),
        [only] => out.key(1, "ca_pin", only),
        pins => {
            out.open(1, "ca_pin");
            pins.iter().for_each(|pin| out.line(1, &format!("- {}", quote(pin))));
        }
    }
    out.key(1, "diag_addr", "");
}

fn write_auth(out: &mut Yaml, options: &Options, checked: &Checked) {
    out.open(0, "auth_service");
    out.key(1, "enabled", yes_no(checked.auth));
    if checked.auth {
        out.key(1, "listen_addr", &format!("0.0.0.0:{AUTH_PORT}"));
        if let Some(name) = &options.cluster_name {
            out.key(1, "cluster_name", name);
        }
        if checked.version > Version::V1 {
            out.key(1, "proxy_listener_mode", "multiplex");
        }
    }
}

fn write_ssh(out: &mut Yaml, checked: &Checked) {
    out.open(0, "ssh_service");
    out.key(1, "enabled", yes_no(checked.ssh));
    if !checked.ssh {
        return;
    }
    if !checked.labels.fixed.is_empty() {
        out.open(1, "labels");
        for (name, value) in &checked.labels.fixed {
            out.key(2, name, value);
        }
    }
    if !checked.labels.commands.is_empty() {
        out.open(1, "commands");
        for CommandLabel { name, command, period } in &checked.labels.commands {
            out.line(1, &format!("- name: {}", quote(name)));
            let argv: Vec<String> = command.iter().map(|part| quote(part)).collect();
            out.line(2, &format!("command: [{}]", argv.join(", ")));
            out.key(2, "period", &format_duration(*period));
        }
    }
}

fn write_proxy(out: &mut Yaml, options: &Options, checked: &Checked) {
    out.open(0, "proxy_service");
    out.key(1, "enabled", yes_no(checked.proxy));
    if !checked.proxy {
        return;
    }
    if checked.version > Version::V1
        && let Some(address) = &checked.public_addr
    {
        out.key(1, "web_listen_addr", &format!("0.0.0.0:{}", address.port));
    }
    if let Some(address) = &checked.public_addr {
        out.key(1, "public_addr", &address.to_string());
    }
    match (&options.key_file, &options.cert_file) {
        (Some(key), Some(cert)) => {
            out.open(1, "https_keypairs");
            out.line(1, &format!("- key_file: {}", quote(key)));
            out.key(2, "cert_file", cert);
        }
        _ => out.line(1, "https_keypairs: []"),
    }
    out.key(1, "https_keypairs_reload_interval", "0s");
    if options.acme {
        out.open(1, "acme");
        out.key(2, "enabled", "yes");
        if let Some(email) = &options.acme_email {
            out.key(2, "email", email);
        }
    } else {
        out.line(1, "acme: {}");
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

#[derive(Default)]
struct Yaml {
    text: String,
}

impl Yaml {
    fn line(&mut self, depth: usize, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", depth * 2);
    }

    fn comment(&mut self, text: &str) {
        self.line(0, &format!("# {text}"));
    }

    fn open(&mut self, depth: usize, key: &str) {
        self.line(depth, &format!("{}:", quote(key)));
    }

    fn key(&mut self, depth: usize, key: &str, value: &str) {
        self.line(depth, &format!("{}: {}", quote(key), quote(value)));
    }
}

/// A scalar as YAML that every reader takes for text: quoted unless it is plainly a word or an address.
fn quote(text: &str) -> String {
    const WORDS: &[&str] = &["yes", "no", "on", "off", "y", "n", "true", "false", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@".contains(c))
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    let address = text.starts_with(|c: char| c.is_ascii_digit())
        && text.matches('.').count() == 3
        && text.chars().all(|c| c.is_ascii_digit() || ".:".contains(c));
    if plain || address {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
