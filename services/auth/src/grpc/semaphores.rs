//! Semaphores: counted leases, such as one for every connection of a user with `max_connections`.

use wire::error::{Error, Result};
use wire::proto::Semaphores;
use wire::types::{AcquireSemaphoreRequest, SemaphoreFilter, SemaphoreLease};

use super::{Api, named};
use crate::authz::AuthContext;

pub async fn acquire_semaphore(
    api: &Api,
    _: &AuthContext,
    message: AcquireSemaphoreRequest,
) -> Result<SemaphoreLease> {
    check(&message.semaphore_kind, &message.semaphore_name)?;
    if message.max_leases <= 0 {
        return Err(Error::bad_parameter("max_resources must be positive"));
    }
    let expires = wire::time::moment(message.expires.as_ref());
    if expires.is_none_or(|expires| expires <= api.auth().now()) {
        return Err(Error::bad_parameter("the lease would be expired already"));
    }
    api.auth().acquire_semaphore(message).await
}

pub async fn keep_alive_semaphore_lease(api: &Api, _: &AuthContext, lease: SemaphoreLease) -> Result<()> {
    check_lease(&lease)?;
    api.auth().keep_alive_semaphore(lease).await
}

pub async fn cancel_semaphore_lease(api: &Api, _: &AuthContext, lease: SemaphoreLease) -> Result<()> {
    check_lease(&lease)?;
    api.auth().cancel_semaphore(lease).await
}

pub async fn get_semaphores(api: &Api, _: &AuthContext, filter: SemaphoreFilter) -> Result<Semaphores> {
    Ok(Semaphores { semaphores: api.auth().list_semaphores(&filter).await? })
}

pub async fn delete_semaphore(api: &Api, _: &AuthContext, filter: SemaphoreFilter) -> Result<()> {
    check(&filter.semaphore_kind, &filter.semaphore_name)?;
    api.auth().delete_semaphore(&filter).await
}

fn check_lease(lease: &SemaphoreLease) -> Result<()> {
    check(&lease.semaphore_kind, &lease.semaphore_name)?;
    named(&lease.lease_id, "lease_id").map(drop)
}

fn check(kind: &str, name: &str) -> Result<()> {
    named(kind, "kind")?;
    named(name, "name").map(drop)
}
