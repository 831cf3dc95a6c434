//! What the cache holds, and how an event changes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wire::proto::{Event, Operation, event::Resource};
use wire::types::{
    AuthPreferenceV2, CertAuthorityV2, ClusterNetworkingConfigV2, LockV2, RemoteClusterV3, ResourceHeader, RoleV6,
    ServerV2, SessionRecordingConfigV2,
};

/// A kind of resource the cache can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Certificate authorities of all types and clusters, without private keys.
    Authorities,
    /// Authentication, networking and recording settings, and the cluster's name.
    ClusterSettings,
    /// Locks.
    Locks,
    /// SSH nodes.
    Nodes,
    /// Trusted leaf clusters.
    RemoteClusters,
    /// Roles.
    Roles,
}

impl Kind {
    /// The resource kinds that are watched for it.
    pub(crate) fn watched(self) -> &'static [&'static str] {
        match self {
            Self::Authorities => &["cert_authority"],
            Self::ClusterSettings => {
                &["cluster_name", "cluster_auth_preference", "cluster_networking_config", "session_recording_config"]
            }
            Self::Locks => &["lock"],
            Self::Nodes => &["node"],
            Self::RemoteClusters => &["remote_cluster"],
            Self::Roles => &["role"],
        }
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The whole state was fetched anew.
    Everything,
    /// An authority of this type and cluster.
    Authority(String, String),
    /// A cluster-wide setting.
    Settings,
    /// A lock was made, changed or removed.
    Lock(String),
    /// A node by host UUID.
    Node(String),
    /// A trusted leaf cluster by name.
    RemoteCluster(String),
    /// A role by name.
    Role(String),
}

/// The state itself.
#[derive(Debug, Default)]
pub struct State {
    /// Name of the cluster.
    pub cluster_name: String,
    /// By type and cluster name.
    pub authorities: HashMap<(String, String), Arc<CertAuthorityV2>>,
    /// By name.
    pub roles: HashMap<String, Arc<RoleV6>>,
    /// Increases with every change of a role.
    pub roles_revision: u64,
    /// By host UUID.
    pub nodes: BTreeMap<String, Arc<ServerV2>>,
    /// By name.
    pub locks: HashMap<String, Arc<LockV2>>,
    /// By name.
    pub remote_clusters: BTreeMap<String, Arc<RemoteClusterV3>>,
    /// Authentication settings.
    pub auth_preference: Arc<AuthPreferenceV2>,
    /// Networking settings.
    pub networking: Arc<ClusterNetworkingConfigV2>,
    /// Recording settings.
    pub recording: Arc<SessionRecordingConfigV2>,
}

impl State {
    /// Applies one event; says what changed, if the cache holds it.
    pub fn apply(&mut self, event: Event) -> Option<Change> {
        match (Operation::try_from(event.r#type).ok()?, event.resource?) {
            (Operation::Put, resource) => self.put(resource),
            (Operation::Delete, Resource::ResourceHeader(header)) => self.delete(&header),
            _ => None,
        }
    }

    fn put(&mut self, resource: Resource) -> Option<Change> {
        Some(match resource {
            Resource::CertAuthority(ca) => {
                let key = authority_key(&ca)?;
                self.authorities.insert(key.clone(), Arc::from(ca));
                Change::Authority(key.0, key.1)
            }
            Resource::Role(role) => {
                let name = role.metadata.as_ref()?.name.clone();
                self.roles.insert(name.clone(), Arc::from(role));
                self.roles_revision += 1;
                Change::Role(name)
            }
            Resource::Server(server) if server.kind == "node" => {
                let name = server.metadata.as_ref()?.name.clone();
                self.nodes.insert(name.clone(), Arc::from(server));
                Change::Node(name)
            }
            Resource::Lock(lock) => {
                let name = lock.metadata.as_ref()?.name.clone();
                self.locks.insert(name.clone(), Arc::from(lock));
                Change::Lock(name)
            }
            Resource::RemoteCluster(cluster) => {
                let name = cluster.metadata.as_ref()?.name.clone();
                self.remote_clusters.insert(name.clone(), Arc::from(cluster));
                Change::RemoteCluster(name)
            }
            Resource::AuthPreference(preference) => {
                self.auth_preference = Arc::from(preference);
                Change::Settings
            }
            Resource::ClusterNetworkingConfig(config) => {
                self.networking = Arc::from(config);
                Change::Settings
            }
            Resource::SessionRecordingConfig(config) => {
                self.recording = Arc::from(config);
                Change::Settings
            }
            Resource::ClusterName(name) => {
                self.cluster_name = name.spec.map(|s| s.cluster_name)?;
                Change::Settings
            }
            _ => return None,
        })
    }

    fn delete(&mut self, header: &ResourceHeader) -> Option<Change> {
        let name = header.metadata.as_ref()?.name.clone();
        Some(match header.kind.as_str() {
            "cert_authority" => {
                self.authorities.remove(&(header.sub_kind.clone(), name.clone()));
                Change::Authority(header.sub_kind.clone(), name)
            }
            "role" => {
                self.roles.remove(&name);
                self.roles_revision += 1;
                Change::Role(name)
            }
            "node" => {
                self.nodes.remove(&name);
                Change::Node(name)
            }
            "lock" => {
                self.locks.remove(&name);
                Change::Lock(name)
            }
            "remote_cluster" => {
                self.remote_clusters.remove(&name);
                Change::RemoteCluster(name)
            }
            _ => return None,
        })
    }
}

/// Type and cluster of an authority.
pub(crate) fn authority_key(ca: &CertAuthorityV2) -> Option<(String, String)> {
    let spec = ca.spec.as_ref()?;
    Some((spec.r#type.clone(), spec.cluster_name.clone()))
}

/// Whether a lock is in force at `now`.
pub fn in_force(lock: &LockV2, now: DateTime<Utc>) -> bool {
    lock.spec.as_ref().is_some_and(|s| wire::time::moment(s.expires.as_ref()).is_none_or(|e| e > now))
}

#[cfg(test)]
mod tests {
    use wire::types::Metadata;

    use super::*;

    fn event(operation: Operation, resource: Resource) -> Event {
        Event { r#type: operation as i32, resource: Some(resource) }
    }

    fn role(name: &str) -> RoleV6 {
        RoleV6 { metadata: Some(Metadata { name: name.into(), ..Default::default() }), ..Default::default() }
    }

    #[test]
    fn a_role_that_is_put_is_found_until_it_is_deleted() {
        let mut state = State::default();
        assert_eq!(
            state.apply(event(Operation::Put, Resource::Role(Box::new(role("dev"))))),
            Some(Change::Role("dev".into()))
        );
        let before = state.roles_revision;
        assert!(state.roles.contains_key("dev"));
        let header = ResourceHeader {
            kind: "role".into(),
            metadata: Some(Metadata { name: "dev".into(), ..Default::default() }),
            ..Default::default()
        };
        state.apply(event(Operation::Delete, Resource::ResourceHeader(Box::new(header))));
        assert!(!state.roles.contains_key("dev") && state.roles_revision > before);
    }

    #[test]
    fn an_event_without_a_name_changes_nothing() {
        let mut state = State::default();
        assert_eq!(state.apply(event(Operation::Put, Resource::Role(Box::default()))), None);
        assert_eq!(state.apply(Event::default()), None);
    }
}
