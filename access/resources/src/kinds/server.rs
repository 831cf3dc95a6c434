use uuid::Uuid;
use wire::types::{InstanceV1, ServerV2};

use super::required;
use crate::{
    Place, Resource, ResourceError, Result, kind, places,
    resource::{check_version, embedded_header, is_label_key, plain_header},
};

/// An SSH agent.
const TELEPORT: &str = "teleport";
/// Servers that run sshd instead of an agent.
const OPENSSH: [&str; 2] = ["openssh", "openssh-ec2-ice"];

impl Resource for ServerV2 {
    const KIND: &'static str = kind::NODE;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        let prefix = match self.kind() {
            kind::PROXY => places::PROXIES,
            kind::AUTH_SERVER => places::AUTH_SERVERS,
            _ => places::NODES,
        };
        Place::new(prefix, [self.name()])
    }

    /// A server without an agent that was given no name gets a random one.
    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
        if OPENSSH.contains(&self.sub_kind.as_str()) && self.name().is_empty() {
            self.metadata_mut().name = Uuid::new_v4().to_string();
        }
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        if let Some(key) = spec.cmd_labels.keys().find(|key| !is_label_key(key)) {
            return Err(ResourceError::field("spec.cmd_labels", format!("invalid label key: {key:?}")));
        }
        match self.sub_kind() {
            "" | TELEPORT => Ok(()),
            sub_kind if OPENSSH.contains(&sub_kind) && self.kind() == kind::NODE => {
                required(&[("spec.addr", &spec.addr), ("spec.hostname", &spec.hostname)])?;
                check_openssh(self.name(), &spec.addr, &spec.public_addrs)
            }
            other => Err(ResourceError::field(
                "sub_kind",
                format!("invalid value {other:?}: expected \"teleport\", \"openssh\" or \"openssh-ec2-ice\""),
            )),
        }
    }
}

fn check_openssh(name: &str, addr: &str, public_addrs: &[String]) -> Result<()> {
    if Uuid::parse_str(name).is_err() {
        return Err(ResourceError::field(
            "metadata.name",
            format!("{name:?} is not a UUID: servers without an agent need one"),
        ));
    }
    if !public_addrs.is_empty() {
        return Err(ResourceError::field("spec.public_addrs", "must not be set for servers without an agent"));
    }
    let port = addr.rsplit_once(':').map(|(host, port)| (host.trim_matches(['[', ']']), port.parse::<u16>()));
    match port {
        Some((host, Ok(1..))) if !host.is_empty() => Ok(()),
        _ => Err(ResourceError::field("spec.addr", format!("{addr:?} is not an address: expected host:port"))),
    }
}

impl Resource for InstanceV1 {
    const KIND: &'static str = kind::INSTANCE;
    const VERSION: &'static str = "v1";
    embedded_header!();

    fn place(&self) -> Place {
        places::instance(self.name())
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }
}
