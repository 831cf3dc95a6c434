//! Locks.

use wire::error::{Error, Result};
use wire::proto::{DeleteLockRequest, GetLockRequest, GetLocksRequest, GetLocksResponse, ReplaceRemoteLocksRequest};
use wire::types::LockV2;

use super::{Api, named};
use crate::authz::AuthContext;
use crate::store::kind;

pub async fn get_lock(api: &Api, _: &AuthContext, message: GetLockRequest) -> Result<LockV2> {
    Ok((*api.auth().store().get::<kind::Lock>(named(&message.name, "Name")?).await?).clone())
}

/// The locks that concern one of the targets (all, when none is given), expired ones only on request.
pub async fn get_locks(api: &Api, _: &AuthContext, message: GetLocksRequest) -> Result<GetLocksResponse> {
    Ok(GetLocksResponse { locks: api.auth().locks(message.in_force_only, &message.targets)? })
}

pub async fn upsert_lock(api: &Api, context: &AuthContext, lock: LockV2) -> Result<()> {
    api.auth().upsert_lock(context.caller(), lock).await.map(drop)
}

pub async fn delete_lock(api: &Api, context: &AuthContext, message: DeleteLockRequest) -> Result<()> {
    api.auth().delete_lock(context.caller(), named(&message.name, "Name")?).await
}

pub async fn replace_remote_locks(_: &Api, _: &AuthContext, _: ReplaceRemoteLocksRequest) -> Result<()> {
    Err(Error::not_implemented("locks of other clusters are not taken: this Auth Service does not connect clusters"))
}
