//! Writing.

use prost_types::FieldMask;
use resources::{AnyResource, Origin, kind};
use wire::clusterconfig::{
    UpdateAuthPreferenceRequest, UpdateClusterNetworkingConfigRequest, UpdateSessionRecordingConfigRequest,
    UpsertAuthPreferenceRequest, UpsertClusterNetworkingConfigRequest, UpsertSessionRecordingConfigRequest,
};
use wire::error::ErrorKind;
use wire::presence::UpdateRemoteClusterRequest;
use wire::proto::{
    CreateRoleRequest, UpdateRoleRequest, UpsertClusterAlertRequest, UpsertRoleRequest, UpsertTokenV2Request,
    upsert_token_v2_request,
};
use wire::trust::UpsertCertAuthorityRequest;
use wire::types::RoleV6;
use wire::users::{CreateUserRequest, UpdateUserRequest, UpsertUserRequest};

use super::{SETTINGS, current, devices, kinds, origin, served, title};
use crate::api::{Api, Call};
use crate::error::{Error, Result};

/// What a write may replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// What exists (`--force`).
    pub existing: bool,
    /// What comes from the configuration file (`--confirm`).
    pub configured: bool,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was none before.
    Created,
    /// There was one before.
    Updated,
}

impl Outcome {
    /// The word for messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
        }
    }

    fn of(before: Option<&AnyResource>) -> Self {
        match before {
            None => Self::Created,
            Some(before) if origin(before) == Some(Origin::Defaults) => Self::Created,
            Some(_) => Self::Updated,
        }
    }
}

/// What is wrong in a role beyond its shape: templates, expressions, patterns. The second part are doubts that do not
/// keep it from being stored.
///
/// # Errors
/// The first problem because of which a part of the role could never work.
pub fn check_role(role: &RoleV6) -> Result<Vec<String>> {
    let name = role.metadata.as_ref().map_or("", |m| m.name.as_str());
    let (fatal, doubts): (Vec<_>, Vec<_>) = rbac::lint_role(role).into_iter().partition(|problem| problem.fatal);
    match fatal.first() {
        Some(problem) => Err(Error::bad(format!("role {name:?}: {problem}"))),
        None => Ok(doubts.into_iter().map(|problem| format!("role {name:?}: {problem}")).collect()),
    }
}

/// Whether a resource may be written over what is there.
///
/// # Errors
/// `AlreadyExists` or `BadParameter`, with the flag that would allow it.
pub fn check_replaces(resource: &AnyResource, before: Option<&AnyResource>, permission: Permission) -> Result<()> {
    let Some(before) = before else {
        return match resource.kind() {
            kind::REMOTE_CLUSTER => Err(Error::not_found(format!(
                "{} not found: remote clusters appear when they connect and can only be changed",
                resource.title()
            ))),
            _ => Ok(()),
        };
    };
    let title = title(resource);
    let exists = || {
        Error::Plain(wire::error::Error::already_exists(format!(
            "{title} already exists, use -f or --force to overwrite"
        )))
    };
    match (resource.kind(), origin(before)) {
        (kind, Some(Origin::ConfigFile)) if SETTINGS.contains(&kind) => match permission {
            Permission { existing: true, configured: true } => Ok(()),
            _ => Err(Error::bad(format!(
                "{title} is set in the configuration file, which is read again at every start; \
                 use --force and --confirm to overwrite it until then"
            ))),
        },
        (kind, Some(Origin::Defaults)) if SETTINGS.contains(&kind) => Ok(()),
        // These have always been replaced without being asked.
        (
            kind::SESSION_RECORDING_CONFIG | kind::TOKEN | kind::INSTALLER | kind::UI_CONFIG | kind::WINDOWS_DESKTOP,
            _,
        ) => Ok(()),
        _ if permission.existing => Ok(()),
        _ => Err(exists()),
    }
}

/// Creates a resource, or replaces the one there is.
///
/// Whatever state the text was made from: `edit` is for changes that must not overwrite those of others.
pub async fn put(api: &Api, mut resource: AnyResource, permission: Permission) -> Result<Outcome> {
    resource.metadata_mut().revision.clear();
    let before = current(api, &resource).await?;
    check_replaces(&resource, before.as_ref(), permission)?;
    let what = format!("writing {}", resource.kind());
    let exists = before.is_some();
    match resource {
        // Created, not replaced: somebody else may have been faster.
        AnyResource::User(user) if !permission.existing => {
            api.users().create_user(CreateUserRequest { user: Some(*user) }).within(&what).await.map(drop)?;
        }
        AnyResource::User(user) => {
            api.users().upsert_user(UpsertUserRequest { user: Some(*user) }).within(&what).await.map(drop)?;
        }
        AnyResource::Role(role) if !permission.existing => {
            api.auth().create_role(CreateRoleRequest { role: Some(*role) }).within(&what).await.map(drop)?;
        }
        AnyResource::Role(role) => {
            api.auth().upsert_role_v2(UpsertRoleRequest { role: Some(*role) }).within(&what).await.map(drop)?;
        }
        AnyResource::RemoteCluster(cluster) if exists => update_remote_cluster(api, *cluster, &what).await?,
        other => upsert(api, other, exists, &what).await?,
    }
    Ok(Outcome::of(before.as_ref()))
}

async fn upsert(api: &Api, resource: AnyResource, exists: bool, what: &str) -> Result<()> {
    match resource {
        AnyResource::Token(token) => {
            let token = Some(upsert_token_v2_request::Token::V2(*token));
            api.auth().upsert_token_v2(UpsertTokenV2Request { token }).within(what).await
        }
        AnyResource::Lock(lock) => api.auth().upsert_lock(*lock).within(what).await,
        AnyResource::Server(server) if server.kind == kind::NODE => {
            api.auth().upsert_node(*server).within(what).await.map(drop)
        }
        AnyResource::AuthPreference(preference) => {
            let request = UpsertAuthPreferenceRequest { auth_preference: Some(*preference) };
            api.settings().upsert_auth_preference(request).within(what).await.map(drop)
        }
        AnyResource::NetworkingConfig(config) => {
            let request = UpsertClusterNetworkingConfigRequest { cluster_network_config: Some(*config) };
            api.settings().upsert_cluster_networking_config(request).within(what).await.map(drop)
        }
        AnyResource::SessionRecordingConfig(config) => {
            let request = UpsertSessionRecordingConfigRequest { session_recording_config: Some(*config) };
            api.settings().upsert_session_recording_config(request).within(what).await.map(drop)
        }
        AnyResource::CertAuthority(authority) => {
            let request = UpsertCertAuthorityRequest { cert_authority: Some(*authority) };
            api.trust().upsert_cert_authority(request).within(what).await.map(drop)
        }
        AnyResource::TrustedCluster(cluster) => {
            api.auth().upsert_trusted_cluster(*cluster).within(what).await.map(drop)
        }
        AnyResource::ClusterAlert(alert) => {
            let request = UpsertClusterAlertRequest { alert: Some(*alert) };
            api.auth().upsert_cluster_alert(request).within(what).await
        }
        AnyResource::Device(device) => devices::put(api, *device, exists, what).await,
        AnyResource::AppServer(server) => served::put(api, *server, what).await,
        other => kinds::put(api, other, exists, what).await,
    }
}

async fn update_remote_cluster(api: &Api, cluster: wire::types::RemoteClusterV3, what: &str) -> Result<()> {
    let paths = vec!["Metadata.labels".to_owned()];
    let request = UpdateRemoteClusterRequest { remote_cluster: Some(cluster), update_mask: Some(FieldMask { paths }) };
    api.presence().update_remote_cluster(request).within(what).await.map(drop)
}

/// Replaces the state that `resource` was made from: its revision says which. Kinds without such a call are compared
/// here just before they are written.
///
/// # Errors
/// `CompareFailed` when somebody changed it meanwhile.
pub async fn update(api: &Api, resource: AnyResource) -> Result<()> {
    let what = format!("updating {}", resource.kind());
    let title = title(&resource);
    let done = match resource {
        AnyResource::User(user) => {
            api.users().update_user(UpdateUserRequest { user: Some(*user) }).within(&what).await.map(drop)
        }
        AnyResource::Role(role) => {
            api.auth().update_role(UpdateRoleRequest { role: Some(*role) }).within(&what).await.map(drop)
        }
        AnyResource::AuthPreference(preference) => {
            let request = UpdateAuthPreferenceRequest { auth_preference: Some(*preference) };
            api.settings().update_auth_preference(request).within(&what).await.map(drop)
        }
        AnyResource::NetworkingConfig(config) => {
            let request = UpdateClusterNetworkingConfigRequest { cluster_network_config: Some(*config) };
            api.settings().update_cluster_networking_config(request).within(&what).await.map(drop)
        }
        AnyResource::SessionRecordingConfig(config) => {
            let request = UpdateSessionRecordingConfigRequest { session_recording_config: Some(*config) };
            api.settings().update_session_recording_config(request).within(&what).await.map(drop)
        }
        other => {
            let stored = current(api, &other).await?;
            let revision = stored.as_ref().map(|stored| stored.metadata().revision.as_str());
            if revision != Some(other.metadata().revision.as_str()) {
                return Err(changed(&title));
            }
            match other {
                AnyResource::RemoteCluster(cluster) => update_remote_cluster(api, *cluster, &what).await,
                other => upsert(api, other, true, &what).await,
            }
        }
    };
    done.map_err(|error| match error.kind() {
        ErrorKind::CompareFailed => changed(&title),
        _ => error,
    })
}

fn changed(title: &str) -> Error {
    Error::Plain(wire::error::Error::compare_failed(format!(
        "{title} was changed by somebody else meanwhile (its revision differs): look at it again and repeat the change"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use resources::{Fields, Resource, cluster, parse_documents};

    use super::*;

    fn read(text: &str) -> AnyResource {
        parse_documents(text, Fields::Known).unwrap().remove(0)
    }

    fn role() -> AnyResource {
        read("{kind: role, version: v7, metadata: {name: dev}, spec: {}}")
    }

    const FORCE: Permission = Permission { existing: true, configured: false };
    const CONFIRM: Permission = Permission { existing: true, configured: true };
    const PLAIN: Permission = Permission { existing: false, configured: false };

    #[test]
    fn what_exists_is_replaced_only_with_force() {
        let error = check_replaces(&role(), Some(&role()), PLAIN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("--force"), "{error}");
        check_replaces(&role(), Some(&role()), FORCE).unwrap();
        check_replaces(&role(), None, PLAIN).unwrap();
    }

    #[test]
    fn settings_of_the_configuration_file_need_confirmation() {
        let with = |origin| {
            let mut config = cluster::networking_config();
            config.set_origin(origin);
            AnyResource::from(config)
        };
        let new = with(Origin::Dynamic);
        for permission in [PLAIN, FORCE] {
            let error = check_replaces(&new, Some(&with(Origin::ConfigFile)), permission).unwrap_err().to_string();
            assert!(error.contains("configuration file") && error.contains("--confirm"), "{error}");
        }
        check_replaces(&new, Some(&with(Origin::ConfigFile)), CONFIRM).unwrap();
        check_replaces(&new, Some(&with(Origin::Defaults)), PLAIN).unwrap();
        assert!(check_replaces(&new, Some(&with(Origin::Dynamic)), PLAIN).is_err());
        assert_eq!(Outcome::of(Some(&with(Origin::Defaults))), Outcome::Created);
        assert_eq!(Outcome::of(Some(&with(Origin::Dynamic))), Outcome::Updated);
    }

    #[test]
    fn a_role_that_could_never_work_is_refused() {
        let AnyResource::Role(mut role) = role() else { return };
        assert!(check_role(&role).unwrap().is_empty());
        role.spec.get_or_insert_default().allow.get_or_insert_default().node_labels_expression = "labels[".into();
        let error = check_role(&role).unwrap_err().to_string();
        assert!(error.contains("dev") && error.contains("node_labels_expression"), "{error}");
    }
}
