//! SIGHUP: the configuration is read again, and what can change while the process runs changes.

use auth_service::Auth;
use config::{Config, ConfigError, Environment, Overrides, Source};
use ssh_service::NodeSettings;
use tracing::{error, info, warn};

use crate::error::Result;
use crate::logging::LogLevel;
use crate::{auth, node};

/// Where the configuration came from, so that it can be read again.
pub struct Origin {
    pub source: Source,
    pub overrides: Overrides,
}

impl Origin {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(&self) -> Result<Config, ConfigError> {
        Config::load(&self.source, &self.overrides, &Environment::of_process())
    }
}

/// What a running process follows its configuration with.
pub struct Reload {
    pub origin: Origin,
    /// The configuration that is in effect.
    pub running: Config,
    pub level: LogLevel,
    pub auth: Option<Auth>,
    pub node: Option<NodeSettings>,
}

impl Reload {
    /// Reads the configuration again and follows it. One that is wrong in any place changes nothing.
    pub async fn run(&mut self) {
        let wanted = match self.origin.read() {
            Ok(wanted) => wanted,
            Err(error) => return error!(%error, "the configuration is wrong: nothing has changed"),
        };
        for warning in &wanted.warnings {
            warn!("{warning}");
        }
        if let Err(error) = self.follow(&wanted).await {
            return error!(%error, "the configuration could not be followed");
        }
        let waiting = differences(&self.running, &wanted);
        if waiting.is_empty() {
            info!("the configuration was read again and is in effect");
        } else {
            warn!(
                settings = waiting.join(", "),
                "the configuration was read again: these take effect at the next start"
            );
        }
    }

    /// Applies what can be applied, and notes it in the running configuration.
    async fn follow(&mut self, wanted: &Config) -> Result<()> {
        if wanted.global.log.severity != self.running.global.log.severity {
            self.level.set(wanted.global.log.severity)?;
            self.running.global.log.severity = wanted.global.log.severity;
        }
        if let Some(auth) = &self.auth {
            auth.follow_file(auth::file_settings(wanted)?).await?;
            let (running, wanted) = (&mut self.running.auth, &wanted.auth);
            running.tokens.clone_from(&wanted.tokens);
            running.authentication.clone_from(&wanted.authentication);
            running.disconnect_expired_cert = wanted.disconnect_expired_cert;
            running.message_of_the_day.clone_from(&wanted.message_of_the_day);
            running.networking.clone_from(&wanted.networking);
            running.recording.clone_from(&wanted.recording);
        }
        if let Some(node) = &self.node {
            node.set_labels(wanted.ssh.labels.clone());
            node.set_features(node::features(&wanted.ssh));
            let (running, wanted) = (&mut self.running.ssh, &wanted.ssh);
            running.labels.clone_from(&wanted.labels);
            running.permit_user_env = wanted.permit_user_env;
            running.port_forwarding = wanted.port_forwarding;
            running.file_copy = wanted.file_copy;
            running.x11 = wanted.x11;
        }
        Ok(())
    }
}

/// Names of the settings that differ, as the file spells them.
fn differences(running: &Config, wanted: &Config) -> Vec<&'static str> {
    let mut differing = Vec::new();
    macro_rules! compare {
        ($section:ident: $($field:ident => $name:literal,)*) => {
            $(if running.$section.$field != wanted.$section.$field {
                differing.push($name);
            })*
        };
    }
    compare! { global:
        nodename => "teleport.nodename",
        data_dir => "teleport.data_dir",
        pid_file => "teleport.pid_file",
        join => "teleport.join_params",
        server => "the address of the cluster in teleport",
        ca_pins => "teleport.ca_pin",
        advertise => "teleport.advertise_ip",
        diag_addr => "teleport.diag_addr",
        limits => "teleport.connection_limits",
        log => "teleport.log",
        storage => "teleport.storage",
        cache => "teleport.cache",
        cipher_suites => "teleport.ciphersuites",
        ciphers => "teleport.ciphers",
        key_exchanges => "teleport.kex_algos",
        macs => "teleport.mac_algos",
    }
    if running.ssh.enabled || wanted.ssh.enabled {
        compare! { ssh:
            enabled => "ssh_service.enabled",
            listen_addr => "ssh_service.listen_addr",
            public_addrs => "ssh_service.public_addr",
            create_host_user => "ssh_service.disable_create_host_user",
            pam => "ssh_service.pam",
        }
    }
    if running.auth != wanted.auth && (running.auth.enabled || wanted.auth.enabled) {
        differing.push("auth_service");
    }
    if running.proxy != wanted.proxy && (running.proxy.enabled || wanted.proxy.enabled) {
        differing.push("proxy_service");
    }
    let rest: [(bool, &'static str); 3] = [
        (running.version != wanted.version, "version"),
        (running.metrics != wanted.metrics, "metrics_service"),
        (running.debug_service != wanted.debug_service, "debug_service"),
    ];
    differing.extend(rest.into_iter().filter_map(|(differs, name)| differs.then_some(name)));
    differing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use config::Severity;

    use super::*;

    fn reload(file: &Path) -> Reload {
        let origin = Origin { source: Source::File(file.to_owned()), overrides: Overrides::default() };
        let running = origin.read().unwrap();
        let level = LogLevel::unconnected(running.global.log.severity);
        Reload { origin, running, level, auth: None, node: None }
    }

    const AGENT: &str = "version: v3\nauth_service: {enabled: no}\nproxy_service: {enabled: no}\n\
                         teleport:\n  nodename: n\n  proxy_server: p.example:443\n";

    #[tokio::test]
    async fn the_severity_follows_the_file_and_what_is_wrong_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        fs::write(&file, AGENT).unwrap();
        let mut reload = reload(&file);
        fs::write(&file, format!("{AGENT}  log: {{severity: DEBUG}}\n")).unwrap();
        reload.run().await;
        assert_eq!(reload.level.get(), Severity::Debug);
        fs::write(&file, format!("{AGENT}  log: {{severity: WARN}}\n  datadir: /x\n")).unwrap();
        reload.run().await;
        assert_eq!(reload.level.get(), Severity::Debug);
    }

    #[test]
    fn settings_that_wait_for_the_next_start_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        fs::write(&file, AGENT).unwrap();
        let running = reload(&file).running;
        let changed = AGENT.replace("nodename: n", "nodename: m");
        fs::write(&file, format!("{changed}ssh_service: {{enabled: yes, public_addr: x.example}}\n")).unwrap();
        let wanted = reload(&file).running;
        assert_eq!(differences(&running, &wanted), ["teleport.nodename", "ssh_service.public_addr"]);
        assert!(differences(&wanted, &wanted).is_empty());
    }
}
