//! Removing.

use resources::{Reference, kind};
use wire::clusterconfig::{
    ResetAuthPreferenceRequest, ResetClusterNetworkingConfigRequest, ResetSessionRecordingConfigRequest,
};
use wire::presence::DeleteRemoteClusterRequest;
use wire::proto::{DeleteLockRequest, DeleteRoleRequest};
use wire::trust::DeleteCertAuthorityRequest;
use wire::types::{ResourceInNamespaceRequest, ResourceRequest, SemaphoreFilter};
use wire::users::DeleteUserRequest;

use super::{ONCE, SETTINGS, Secrets, devices, kinds, not_built, served};
use crate::api::{Api, Call};
use crate::error::{Error, Result};

/// Removes the resource that a reference names, and says so. Settings go back to their defaults.
///
/// # Errors
/// `BadParameter` when the reference has no name, `NotFound` when there is no such resource.
pub async fn remove(api: &Api, reference: &Reference) -> Result<String> {
    let kind = reference.kind.as_str();
    if SETTINGS.contains(&kind) {
        reset(api, kind).await?;
        return Ok(format!("{kind} has been reset to defaults\n"));
    }
    if ONCE.contains(&kind) {
        kinds::remove(api, reference).await?;
        return Ok(format!("{kind} has been deleted\n"));
    }
    let Some(name) = reference.name.clone() else {
        return Err(Error::bad(format!("the full name is missing: expected {kind}/name, see 'tctl get {kind}'")));
    };
    let what = format!("removing {kind}");
    match kind {
        kind::USER => api.users().delete_user(DeleteUserRequest { name: name.clone() }).within(&what).await?,
        kind::ROLE => api.auth().delete_role(DeleteRoleRequest { name: name.clone() }).within(&what).await?,
        kind::TOKEN => api.auth().delete_token(ResourceRequest { name: name.clone() }).within(&what).await?,
        kind::LOCK => api.auth().delete_lock(DeleteLockRequest { name: name.clone() }).within(&what).await?,
        kind::NODE => remove_node(api, reference).await?,
        kind::TRUSTED_CLUSTER => {
            api.auth().delete_trusted_cluster(ResourceRequest { name: name.clone() }).within(&what).await?;
        }
        kind::REMOTE_CLUSTER => {
            let request = DeleteRemoteClusterRequest { name: name.clone() };
            api.presence().delete_remote_cluster(request).within(&what).await?;
        }
        kind::CERT_AUTHORITY => {
            let Some(r#type) = reference.sub_kind.clone() else {
                return Err(Error::bad("the full name of an authority is cert_authority/<type>/<cluster>"));
            };
            let request = DeleteCertAuthorityRequest { r#type, domain: name.clone() };
            api.trust().delete_cert_authority(request).within(&what).await?;
        }
        kind::SEMAPHORE => {
            let Some(semaphore_kind) = reference.sub_kind.clone() else {
                return Err(Error::bad("the full name of a semaphore is semaphore/<kind>/<name>"));
            };
            let request = SemaphoreFilter { semaphore_kind, semaphore_name: name.clone() };
            api.auth().delete_semaphore(request).within(&what).await?;
        }
        kind::PROXY => api.http().delete::<()>(&format!("/v2/proxies/{}", segment(&name)?)).await?,
        kind::TUNNEL => api.http().delete::<()>(&format!("/v2/reversetunnels/{}", segment(&name)?)).await?,
        kind::APP_SERVER | kind::DB_SERVER | kind::KUBE_SERVER | kind::DB_SERVICE => {
            served::remove(api, reference).await?;
        }
        kind::DEVICE => devices::remove(api, reference).await?,
        other => {
            if !kinds::remove(api, reference).await? {
                return Err(not_built(other, "removing"));
            }
        }
    }
    Ok(format!("{kind} {name:?} has been deleted\n"))
}

/// Servers go by id; a hostname will do if it is unique.
async fn remove_node(api: &Api, reference: &Reference) -> Result<()> {
    let wanted = reference.name.clone().unwrap_or_default();
    let found = match super::get(api, reference, Secrets::Hidden).await {
        Ok(found) => found,
        // Who may delete need not be allowed to look.
        Err(error) if error.kind() == wire::error::ErrorKind::AccessDenied => Vec::new(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let ids: Vec<&str> = found.iter().map(|node| node.metadata().name.as_str()).collect();
    let id = match ids.as_slice() {
        ids if ids.contains(&wanted.as_str()) => wanted,
        [] => wanted,
        [id] => (*id).to_owned(),
        ids => {
            return Err(Error::bad(format!(
                "several servers are named {wanted:?}: give the id, one of {}",
                ids.join(", ")
            )));
        }
    };
    let request = ResourceInNamespaceRequest { name: id, namespace: resources::NAMESPACE.to_owned() };
    api.auth().delete_node(request).within("removing a server").await
}

async fn reset(api: &Api, kind: &str) -> Result<()> {
    let what = format!("resetting {kind}");
    match kind {
        kind::CLUSTER_AUTH_PREFERENCE => {
            api.settings().reset_auth_preference(ResetAuthPreferenceRequest {}).within(&what).await.map(drop)
        }
        kind::CLUSTER_NETWORKING_CONFIG => {
            let request = ResetClusterNetworkingConfigRequest {};
            api.settings().reset_cluster_networking_config(request).within(&what).await.map(drop)
        }
        _ => {
            let request = ResetSessionRecordingConfigRequest {};
            api.settings().reset_session_recording_config(request).within(&what).await.map(drop)
        }
    }
}

/// A name as a segment of a path.
fn segment(name: &str) -> Result<&str> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    let plain = plain && !name.chars().all(|c| c == '.');
    plain.then_some(name).ok_or_else(|| Error::not_found(format!("{name:?} not found")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        assert_eq!(segment("a-1.b_c").unwrap(), "a-1.b_c");
        for name in ["", "..", "a/b", "a?b", "a b", "%2e"] {
            assert!(segment(name).is_err(), "{name}");
        }
    }
}
