//! What an agent is told in its `teleport.yaml`.

use serde_json::{Map, Value, json};

use crate::cluster::with;
use crate::ports::{free_port, listen};

/// How an SSH node is to join and what it calls itself.
#[derive(Clone, Debug)]
pub struct AgentSetup {
    pub(crate) name: String,
    labels: Map<String, Value>,
    token: Option<String>,
    pin: Option<String>,
    pub(crate) direct: bool,
    pub(crate) diagnostics: bool,
    pub(crate) variables: Vec<(String, String)>,
    proxy: Option<String>,
    ssh: Value,
    more: Value,
    severity: &'static str,
}

impl AgentSetup {
    /// An SSH node that joins through the public port with the cluster's token, over a reverse tunnel.
    pub fn node(name: &str) -> Self {
        let labels = Map::from_iter([("env".to_owned(), json!("test"))]);
        Self {
            name: name.to_owned(),
            labels,
            token: None,
            pin: None,
            direct: false,
            diagnostics: false,
            variables: Vec::new(),
            proxy: None,
            ssh: json!({}),
            more: json!({}),
            severity: "INFO",
        }
    }

    /// With a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), json!(value));
        self
    }

    /// With another token than the cluster's.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Joining at the Auth Service's own address, whose authority has this pin, and listening for connections.
    pub fn at_auth_with_pin(mut self, pin: &str) -> Self {
        (self.direct, self.pin) = (true, Some(pin.to_owned()));
        self
    }

    /// With everything in its log that can be.
    pub fn talkative(mut self) -> Self {
        self.severity = "TRACE";
        self
    }

    /// With an address for health checks; without, it has no reason to listen at all.
    pub fn with_diagnostics(mut self) -> Self {
        self.diagnostics = true;
        self
    }

    /// With another variable in the environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Told another address than that of the cluster's public port.
    pub fn at_proxy(mut self, address: &str) -> Self {
        self.proxy = Some(address.to_owned());
        self
    }

    /// With another section of the file.
    pub fn section(mut self, name: &str, settings: &Value) -> Self {
        self.more[name] = settings.clone();
        self
    }

    /// With these settings of `ssh_service`.
    pub fn ssh(mut self, settings: &Value) -> Self {
        self.ssh = settings.clone();
        self
    }

    /// The configuration, for a cluster with these addresses.
    pub(crate) fn config(&self, folder: &str, auth: &str, proxy: &str, token: &str) -> Value {
        let token = self.token.as_deref().unwrap_or(token);
        let mut teleport = json!({
            "nodename": self.name,
            "data_dir": format!("{folder}/{}", self.name),
            "join_params": { "method": "token", "token_name": token },
            "log": { "output": "stderr", "severity": self.severity },
        });
        let (key, address) =
            if self.direct { ("auth_server", auth) } else { ("proxy_server", self.proxy.as_deref().unwrap_or(proxy)) };
        teleport[key] = json!(address);
        if let Some(pin) = &self.pin {
            teleport["ca_pin"] = json!(pin);
        }
        let mut ssh = json!({ "enabled": true, "labels": self.labels });
        if self.direct {
            ssh["listen_addr"] = json!(listen(free_port()));
        }
        let ssh = with(ssh, &self.ssh);
        let config = json!({
            "version": "v3",
            "teleport": teleport,
            "auth_service": { "enabled": false },
            "proxy_service": { "enabled": false },
            "ssh_service": ssh,
        });
        with(config, &self.more)
    }
}
