//! The settings of a new cluster.

use wire::types::{
    AuthPreferenceV2, ClusterAuditConfigV2, ClusterNameSpecV2, ClusterNameV2, ClusterNetworkingConfigV2, Namespace,
    SessionRecordingConfigV2,
};

use crate::{NAMESPACE, Origin, Resource};

/// A setting that nobody chose: all defaults, and a label that says so.
pub fn default_setting<T: Resource>() -> T {
    let mut setting = T::default();
    setting.set_defaults();
    setting.set_origin(Origin::Defaults);
    setting
}

/// Authentication settings that nobody chose.
pub fn auth_preference() -> AuthPreferenceV2 {
    default_setting()
}

/// Networking settings that nobody chose.
pub fn networking_config() -> ClusterNetworkingConfigV2 {
    default_setting()
}

/// Session recording settings that nobody chose.
pub fn session_recording_config() -> SessionRecordingConfigV2 {
    default_setting()
}

/// Audit settings that nobody chose.
pub fn audit_config() -> ClusterAuditConfigV2 {
    default_setting()
}

/// The name of a cluster and its id, a random UUID made once.
pub fn name(cluster_name: &str, cluster_id: &str) -> ClusterNameV2 {
    let spec = ClusterNameSpecV2 { cluster_name: cluster_name.into(), cluster_id: cluster_id.into() };
    let mut name = ClusterNameV2 { spec: Some(spec), ..Default::default() };
    name.set_defaults();
    name
}

/// The only namespace.
pub fn namespace() -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata_mut().name = NAMESPACE.into();
    namespace.set_defaults();
    namespace
}
