//! Semaphores: counted leases, such as one for every connection of a user with `max_connections`.

use wire::error::{Error, Result};
use wire::proto::Semaphores;
use wire::types::{AcquireSemaphoreRequest, SemaphoreFilter, SemaphoreLease};

use super::{Api, named};
use crate::authz::AuthContext;

pub async fn acquire_semaphore(
    api: &Api,
    context: &AuthContext,
    mut message: AcquireSemaphoreRequest,
) -> Result<SemaphoreLease> {
    if let (Some(own), false) = (context.host_id(), context.is_admin()) {
        own.clone_into(&mut message.holder);
    }
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

/// The semaphores; services see their own leases only, because a lease's id is enough to end it.
pub async fn get_semaphores(api: &Api, context: &AuthContext, filter: SemaphoreFilter) -> Result<Semaphores> {
    let mut semaphores = api.auth().list_semaphores(&filter).await?;
    if context.is_service() && !context.is_admin() {
        for spec in semaphores.iter_mut().filter_map(|semaphore| semaphore.spec.as_mut()) {
            spec.leases.retain(|lease| context.is_host(&lease.holder));
        }
    }
    Ok(Semaphores { semaphores })
}

pub async fn delete_semaphore(api: &Api, context: &AuthContext, filter: SemaphoreFilter) -> Result<()> {
    if context.is_service() && !context.is_admin() {
        return Err(Error::access_denied("access denied: services end their own leases only"));
    }
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
