//! What the command line says beside the file. It wins over the file.

use crate::{
    Config, HostPort, Join, JoinMethod, Labels, Secret, Server, Severity, Token, Version,
    error::Problem,
    global,
    section::{nearest, one_of},
};

/// Values of command-line flags, as given; what is empty or `None` leaves the file's value.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--roles`: which services run, and no others.
    pub roles: Vec<String>,
    /// `--token`: the join token or the path of a file with it.
    pub token: Option<Secret>,
    /// `--auth-server`: where the Auth Service is; turns the local one off.
    pub auth_servers: Vec<String>,
    /// `--ca-pin`.
    pub ca_pins: Vec<String>,
    /// `--diag-addr`.
    pub diag_addr: Option<String>,
    /// `--nodename`.
    pub nodename: Option<String>,
    /// `--labels`: labels of the SSH service, as `key=value,key2=[period:command]`.
    pub labels: Option<String>,
    /// `--listen-ip`: where all services listen.
    pub listen_ip: Option<String>,
    /// `--advertise-ip`.
    pub advertise_ip: Option<String>,
    /// `--pid-file`.
    pub pid_file: Option<std::path::PathBuf>,
    /// `--permit-user-env`.
    pub permit_user_env: bool,
    /// `--debug`: log everything down to severity DEBUG.
    pub debug: bool,
    /// `--insecure`: do not verify the certificates of servers this process dials.
    pub insecure: bool,
}

/// Roles of `--roles` that have a service here, and those that will.
const ROLES: &[&str] = &["auth", "proxy", "node"];
const LATER_ROLES: &[&str] = &["app", "db", "kube", "windowsdesktop", "discovery"];

impl Overrides {
    /// Changes `config`; flags that make no sense become problems.
    pub(crate) fn apply(&self, config: &mut Config, problems: &mut Vec<Problem>) {
        let mut flags = Flags { problems };
        self.apply_servers(config, &mut flags);
        self.apply_roles(config, &mut flags);
        if let Some(token) = &self.token {
            // The method stays what the file says; a token alone is a plain one.
            let method = config.global.join.as_ref().map_or(JoinMethod::Token, |join| join.method);
            let azure = config.global.join.take().and_then(|join| join.azure_client_id);
            let token = Some(Token::new(token.expose()));
            config.global.join = Some(Join { method, token, azure_client_id: azure });
        }
        if !self.ca_pins.is_empty() {
            let read = self.ca_pins.iter().filter(|pin| !pin.is_empty()).map(|pin| global::resolve_pin(pin));
            let pins: Result<Vec<_>, _> = read.collect();
            if let Some(pins) = flags.check("--ca-pin", pins) {
                config.global.ca_pins = pins.concat();
            }
        }
        if let Some(text) = &self.diag_addr {
            config.global.diag_addr = flags.address("--diag-addr", text, 3000);
        }
        if let Some(name) = &self.nodename {
            config.global.nodename.clone_from(name);
        }
        if let Some(text) = &self.labels
            && let Some(labels) = flags.check("--labels", Labels::parse(text))
        {
            config.ssh.labels = labels;
        }
        if let Some(text) = &self.advertise_ip {
            let expected = format!("expected an address, with or without port, found {text:?}");
            let address = global::advertise(text).ok_or(expected);
            config.global.advertise = flags.check("--advertise-ip", address);
        }
        self.apply_listen_ip(config, &mut flags);
        if let Some(path) = &self.pid_file {
            config.global.pid_file = Some(path.clone());
        }
        config.ssh.permit_user_env |= self.permit_user_env;
        if self.debug {
            config.global.log.severity = config.global.log.severity.max(Severity::Debug);
        }
        config.insecure |= self.insecure;
    }

    fn apply_servers(&self, config: &mut Config, flags: &mut Flags<'_>) {
        let read = self.auth_servers.iter().map(|text| flags.address("--auth-server", text, global::AUTH_PORT));
        let servers: Vec<HostPort> = read.collect::<Vec<_>>().into_iter().flatten().collect();
        let Some(first) = servers.first() else { return };
        if config.auth.enabled && self.roles.is_empty() {
            config.auth.enabled = false;
            config.warnings.push("--auth-server turns the local auth_service off".to_owned());
        }
        config.global.server = Some(match config.version {
            Version::V3 if servers.len() == 1 => Server::Auth(first.clone()),
            _ => Server::Any(servers),
        });
    }

    fn apply_roles(&self, config: &mut Config, flags: &mut Flags<'_>) {
        let roles: Vec<&str> = self
            .roles
            .iter()
            .flat_map(|roles| roles.split(','))
            .map(str::trim)
            .filter(|role| !role.is_empty())
            .collect();
        if roles.is_empty() {
            return;
        }
        for role in &roles {
            if LATER_ROLES.contains(role) {
                flags.note("--roles", format!("role {role} is not part of this build yet"));
            } else if !ROLES.contains(role) {
                let hint = match nearest(role, ROLES) {
                    Some(known) => format!("did you mean {known:?}?"),
                    None => format!("expected {}", one_of(ROLES)),
                };
                flags.note("--roles", format!("unknown role {role:?}, {hint}"));
            }
        }
        config.auth.enabled = roles.contains(&"auth");
        config.proxy.enabled = roles.contains(&"proxy");
        config.ssh.enabled = roles.contains(&"node");
    }

    fn apply_listen_ip(&self, config: &mut Config, flags: &mut Flags<'_>) {
        let Some(text) = &self.listen_ip else { return };
        let Ok(ip) = text.parse::<std::net::IpAddr>() else {
            return flags.note("--listen-ip", format!("expected an IP address, found {text:?}"));
        };
        let proxy = &mut config.proxy;
        let own = [&mut config.auth.listen_addr, &mut config.ssh.listen_addr, &mut proxy.web];
        let optional = [&mut proxy.ssh, &mut proxy.tunnel, &mut proxy.kube];
        for address in own.into_iter().chain(optional.into_iter().flatten()) {
            address.host = ip.to_string();
        }
    }
}

struct Flags<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Flags<'_> {
    fn note(&mut self, flag: &str, message: String) {
        self.problems.push(Problem {
            file: "command line".to_owned(),
            line: 0,
            key: flag.to_owned(),
            message,
            syntax: false,
        });
    }

    fn check<T>(&mut self, flag: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|message| self.note(flag, message)).ok()
    }

    fn address(&mut self, flag: &str, text: &str, port: u16) -> Option<HostPort> {
        let read =
            HostPort::parse(text, port).map_err(|reason| format!("expected host:port, found {text:?}: {reason}"));
        self.check(flag, read)
    }
}
