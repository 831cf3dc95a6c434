//! Who asks: the identity behind a connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pki::identity::Identity;
use resources::SystemRole;
use wire::{
    error::{Error, Result},
    events,
};

/// The peer of a connection, as proven by its certificate.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What kind of peer it is, and its name.
    pub principal: Principal,
    /// Everything its certificate says; `None` without a certificate and for calls inside this process.
    pub identity: Option<Arc<Identity>>,
    /// Where the connection comes from.
    pub remote_addr: Option<SocketAddr>,
    /// The address for which counts what is asked for: where the connection comes from is the client's own word sometimes.
    pub counted: Option<IpAddr>,
}

/// The kinds of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A user of this cluster.
    User(String),
    /// A user of another cluster; its roles are mapped.
    RemoteUser {
        /// The name there.
        name: String,
        /// The cluster.
        cluster: String,
    },
    /// A service of this cluster.
    Service {
        /// The role its certificate was made for.
        role: SystemRole,
        /// Further roles of a process with several services.
        roles: Vec<SystemRole>,
        /// The UUID of its host.
        host_id: String,
    },
    /// A service of another cluster.
    RemoteService {
        /// The role its certificate was made for.
        role: SystemRole,
        /// The cluster.
        cluster: String,
        /// The UUID of its host.
        host_id: String,
    },
    /// Nobody: no certificate.
    Anonymous,
}

impl Caller {
    fn new(principal: Principal, identity: Option<Arc<Identity>>, remote_addr: Option<SocketAddr>) -> Self {
        Self { principal, identity, remote_addr, counted: remote_addr.map(|address| address.ip()) }
    }

    /// The same, whose calls count for this address.
    #[must_use]
    pub fn counted_for(self, counted: IpAddr) -> Self {
        Self { counted: Some(counted), ..self }
    }

    /// A peer without a certificate.
    pub fn anonymous(remote_addr: Option<SocketAddr>) -> Self {
        Self::new(Principal::Anonymous, None, remote_addr)
    }

    /// A user, for calls that carry no certificate.
    pub fn user(name: impl Into<String>, remote_addr: Option<SocketAddr>) -> Self {
        Self::new(Principal::User(name.into()), None, remote_addr)
    }

    /// A service, for calls inside this process.
    pub fn service(role: SystemRole, host_id: impl Into<String>, remote_addr: Option<SocketAddr>) -> Self {
        let principal = Principal::Service { role, roles: Vec::new(), host_id: host_id.into() };
        Self::new(principal, None, remote_addr)
    }

    /// The peer that a verified certificate stands for.
    ///
    /// # Errors
    /// `AccessDenied` for certificates that are restricted to some use other than this service.
    pub fn from_identity(identity: Identity, local_cluster: &str, remote_addr: Option<SocketAddr>) -> Result<Self> {
        if !identity.usage.is_empty() {
            return Err(Error::access_denied("access denied: invalid client certificate"));
        }
        let role = identity.groups.iter().find_map(|name| SystemRole::from_name(name));
        let local = identity.teleport_cluster == local_cluster;
        let cluster = identity.teleport_cluster.clone();
        let principal = match (role, local) {
            (Some(role), true) => Principal::Service {
                role,
                roles: identity.system_roles.iter().filter_map(|name| SystemRole::from_name(name)).collect(),
                host_id: host_id(&identity.username, &cluster).to_owned(),
            },
            (Some(role), false) => {
                let host_id = host_id(&identity.username, &cluster).to_owned();
                Principal::RemoteService { role, cluster, host_id }
            }
            (None, true) => Principal::User(identity.username.clone()),
            (None, false) => Principal::RemoteUser { name: identity.username.clone(), cluster },
        };
        Ok(Self::new(principal, Some(Arc::new(identity)), remote_addr))
    }

    /// Whether this is a service of this cluster that holds a role.
    pub fn has_role(&self, wanted: SystemRole) -> bool {
        match &self.principal {
            Principal::Service { role, roles, .. } => *role == wanted || roles.contains(&wanted),
            _ => false,
        }
    }

    /// Whether this is the administrator of an auth host.
    pub fn is_admin(&self) -> bool {
        self.has_role(SystemRole::Admin)
    }

    /// Whether this is a service of this cluster.
    pub fn is_local_service(&self) -> bool {
        matches!(self.principal, Principal::Service { .. })
    }

    /// The UUID of the host of a service of this cluster.
    pub fn host_id(&self) -> Option<&str> {
        match &self.principal {
            Principal::Service { host_id, .. } => Some(host_id),
            _ => None,
        }
    }

    /// The name of a user of this cluster.
    pub fn local_user(&self) -> Option<&str> {
        match &self.principal {
            Principal::User(name) => Some(name),
            _ => None,
        }
    }

    /// The name that stands in audit events.
    pub fn user_name(&self) -> String {
        match (&self.principal, &self.identity) {
            (Principal::Anonymous, _) => "nobody".to_owned(),
            // A user of this cluster may have the same name.
            (Principal::RemoteUser { name, cluster }, _) => rbac::remote_user_name(name, cluster),
            (_, Some(identity)) => identity.username.clone(),
            (Principal::User(name), None) => name.clone(),
            (Principal::Service { role, host_id, .. } | Principal::RemoteService { role, host_id, .. }, None) => {
                if host_id.is_empty() {
                    role.name().to_owned()
                } else {
                    host_id.clone()
                }
            }
        }
    }

    /// The address of the peer without port; empty when unknown.
    pub fn remote_ip(&self) -> String {
        self.remote_addr.map(|addr| addr.ip().to_canonical().to_string()).unwrap_or_default()
    }

    /// The part of an audit event that says who did it.
    pub fn user_metadata(&self) -> events::UserMetadata {
        let mut metadata = events::UserMetadata {
            user: self.user_name(),
            user_kind: self.user_kind().into(),
            ..events::UserMetadata::default()
        };
        if let Some(identity) = &self.identity {
            metadata.impersonator = identity.impersonator.clone();
            metadata.access_requests = identity.active_requests.clone();
            metadata.bot_name = identity.bot_name.clone();
            metadata.bot_instance_id = identity.bot_instance_id.clone();
        }
        metadata
    }

    /// The part of an audit event that says from where it was done.
    pub fn connection_metadata(&self) -> events::ConnectionMetadata {
        let remote_addr = self.remote_addr.map(|addr| addr.to_string()).unwrap_or_default();
        events::ConnectionMetadata { remote_addr, ..events::ConnectionMetadata::default() }
    }

    fn user_kind(&self) -> events::UserKind {
        match (&self.principal, &self.identity) {
            (_, Some(identity)) if !identity.bot_name.is_empty() => events::UserKind::Bot,
            (Principal::User(_) | Principal::RemoteUser { .. }, _) => events::UserKind::Human,
            _ => events::UserKind::Unspecified,
        }
    }
}

/// The host's UUID in a service's name `<uuid>.<cluster>`.
fn host_id<'a>(name: &'a str, cluster: &str) -> &'a str {
    name.strip_suffix(cluster).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(name: &str, groups: &[&str], cluster: &str) -> Identity {
        Identity {
            username: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            teleport_cluster: cluster.into(),
            ..Identity::default()
        }
    }

    #[test]
    fn certificates_stand_for_users_and_services_of_this_and_other_clusters() {
        let cases = [
            (identity("alice", &["access"], "here"), Principal::User("alice".into())),
            (
                identity("alice", &["access"], "there"),
                Principal::RemoteUser { name: "alice".into(), cluster: "there".into() },
            ),
            (
                identity("id-1.here", &["Node"], "here"),
                Principal::Service { role: SystemRole::Node, roles: vec![], host_id: "id-1".into() },
            ),
            (
                identity("id-1.there", &["Proxy"], "there"),
                Principal::RemoteService { role: SystemRole::Proxy, cluster: "there".into(), host_id: "id-1".into() },
            ),
        ];
        for (identity, principal) in cases {
            assert_eq!(Caller::from_identity(identity, "here", None).unwrap().principal, principal);
        }
    }

    #[test]
    fn a_certificate_for_one_purpose_opens_nothing_here() {
        let mut restricted = identity("alice", &["access"], "here");
        restricted.usage = vec![pki::identity::USAGE_DATABASE.into()];
        let error = Caller::from_identity(restricted, "here", None).unwrap_err();
        assert_eq!(error.message, "access denied: invalid client certificate");
    }
}
