//! Pluggable authentication modules, as the administrator of the node configured them.
//!
//! Cluster and roles have let the user in by then; the host has a word too: whether the account may be used now, and what
//! a session of it is to have. Everything that runs with the user's rights is behind this: shells, commands, copies and
//! what opens forwarded ports.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use rbac::{Template, Traits};
use tokio::time::timeout;
use tracing::info;

use crate::access::Denial;
use crate::channel::Inbox;
use crate::connection::Connection;
use crate::node::NodeConfig;
use crate::os::login::Gate;
use crate::os::process::{Begun, Running};
use crate::worker::login::Rules;

/// Folders in which Linux-PAM looks for services.
const FOLDERS: [&str; 4] = ["/etc/pam.d", "/usr/etc/pam.d", "/usr/lib/pam.d", "/lib/pam.d"];
/// File with all services, on hosts without a folder.
const ONE_FILE: &str = "/etc/pam.conf";
/// How long a channel waits to hear whether its process runs; the worker gives up sooner.
const ANSWER: Duration = Duration::from_secs(150);

/// How the node uses PAM.
#[derive(Clone, Debug)]
pub struct Pam {
    service: String,
    authenticate: bool,
    variables: Vec<(String, Template)>,
}

impl Pam {
    /// What a configuration says.
    ///
    /// # Errors
    /// In words, when the host has no such service, or a variable's template cannot be read.
    pub fn new(config: &config::Pam) -> Result<Self, String> {
        let service = config.service_name.clone();
        let is_file_name = !service.is_empty() && !service.contains('/') && service != "." && service != "..";
        let exists = FOLDERS.iter().any(|folder| Path::new(folder).join(&service).is_file());
        // The one file counts only where there is no folder.
        let in_one_file = !Path::new(FOLDERS[0]).is_dir() && Path::new(ONE_FILE).is_file();
        if !is_file_name || !(exists || in_one_file) {
            return Err(format!(
                "ssh_service.pam.service_name: expected the name of a file in {}, found {service:?}",
                FOLDERS[0]
            ));
        }
        let read = |(name, value): (&String, &String)| match Template::parse(value) {
            Ok(template) => Ok((name.clone(), template)),
            Err(error) => Err(format!("ssh_service.pam.environment.{name}: {error}")),
        };
        let variables = config.environment.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { service, authenticate: config.use_auth, variables })
    }

    /// What modules are told of a user. Variables whose traits the user does not have are left out.
    fn variables(&self, user: &str, login: &str, roles: &[String], traits: &Traits) -> Vec<(String, String)> {
        let expanded = self.variables.iter().filter_map(|(name, template)| {
            let values = template.expand(traits);
            (!values.is_empty()).then(|| (name.clone(), values.join(" ")))
        });
        // Last, so that no configuration can say something else.
        let fixed = [("TELEPORT_USERNAME", user.to_owned()), ("TELEPORT_LOGIN", login.to_owned())];
        let fixed = fixed.into_iter().chain([("TELEPORT_ROLES", roles.join(" "))]);
        expanded.chain(fixed.map(|(name, value)| (name.to_owned(), value))).collect()
    }
}

impl Connection {
    /// What processes of the user go through; `None` where the node uses no PAM.
    pub(crate) fn gate(&self) -> Option<Gate> {
        let NodeConfig { pam, worker, .. } = &*self.node.config;
        let pam = pam.as_ref()?;
        let access = &self.access;
        let traits = Traits::from(access.identity.traits.clone().unwrap_or_default());
        let rules = Rules {
            service: pam.service.clone(),
            authenticate: pam.authenticate,
            variables: pam.variables(&access.user, &access.login, &access.identity.groups, &traits),
            remote_host: self.client.ip().to_canonical().to_string(),
        };
        Some(Gate { worker: worker.clone(), rules, tasks: self.node.tasks.clone() })
    }

    /// Waits until a process runs. It is given up when its client goes, or the connection is ended, before that.
    ///
    /// # Errors
    /// In words, when it does not run. A refusal of PAM is in the audit log.
    pub(crate) async fn let_in(&self, inbox: &mut Inbox, process: &Running) -> Result<(), String> {
        let begun = inbox.meanwhile(self, self.let_in_when(process.begun())).await.flatten();
        if begun.is_err() {
            process.signal(Signal::SIGKILL); // it may have begun at this moment
        }
        begun.map(drop)
    }

    /// Waits for what [`Running::begun`] returned; gives the id of the process, while it runs.
    ///
    /// # Errors
    /// As [`Connection::let_in`].
    pub(crate) async fn let_in_when(&self, begun: impl Future<Output = Begun>) -> Begun {
        let begun = timeout(ANSWER, begun).await.unwrap_or_else(|_| Err("waited 150 s for PAM".to_owned()));
        if let Err(reason) = &begun {
            let access = &self.access;
            info!(client = %self.client, user = %access.user, login = %access.login, reason, "session refused");
            let denial = Denial { user: access.user.clone(), reason: reason.clone() };
            self.audit.auth_failed(self.client, self.server, &access.login, &denial).await;
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn configured(service: &str, variables: &[(&str, &str)]) -> Result<Pam, String> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Pam::new(&config::Pam { service_name: service.to_owned(), use_auth: false, environment })
    }

    #[test]
    fn variables_come_from_traits_and_say_who_the_user_is() {
        let pam = configured(
            "other",
            &[
                ("TEAMS", "{{external.teams}}"),
                ("NOTHING", "{{external.none}}"),
                ("FIXED", "x"),
                ("TELEPORT_LOGIN", "root"),
            ],
        );
        let mut traits = Traits::default();
        traits.set("teams", vec!["a".to_owned(), "b".to_owned()]);
        let variables = pam.unwrap().variables("alice", "dev", &["access".to_owned(), "ops".to_owned()], &traits);
        let told: std::collections::BTreeMap<_, _> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!((told["TEAMS"], told["FIXED"]), ("a b", "x"));
        assert!(!told.contains_key("NOTHING"));
        assert_eq!((told["TELEPORT_USERNAME"], told["TELEPORT_LOGIN"]), ("alice", "dev"));
        assert_eq!(told["TELEPORT_ROLES"], "access ops");
    }

    #[test]
    fn a_service_that_is_not_there_and_a_template_that_cannot_be_read_are_named() {
        for service in ["no-such-service", "", "..", "../passwd"] {
            assert!(configured(service, &[]).unwrap_err().contains("ssh_service.pam.service_name"));
        }
        assert!(configured("other", &[("A", "{{external.")]).unwrap_err().contains("ssh_service.pam.environment.A"));
    }
}
