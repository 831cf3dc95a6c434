//! Telling clusters that trust this one, and those that it trusts, of this cluster's authorities: whenever keys change here, so
//! that a rotation shuts nobody out there.
//!
//! The other cluster believes what it is told because the connection shows a host certificate that the keys it knows vouch for.

use std::time::Duration;

use cache::{Cache, Change};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tonic::{Request, Status};
use tracing::debug;
use wire::client::ApiChannel;
use wire::error::Error;
use wire::trust::RotateExternalCertAuthorityRequest;
use wire::trust::trust_service_client::TrustServiceClient;

/// The authorities of this cluster that leaves believe.
pub(crate) const KNOWN_TO_LEAVES: &[&str] = &["host", "user", "db", "openssh"];
/// The one that roots believe.
pub(crate) const KNOWN_TO_ROOTS: &[&str] = &["host"];
/// How long the other cluster may take to store one, and when it is told again after a failure.
const TIMEOUT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps another cluster told, for ever. `channel` leads to its Auth Service; it is asked for anew each time.
pub(crate) async fn keep_told<C>(cache: Cache, types: &[&str], to: &str, channel: C)
where
    C: Fn() -> Result<ApiChannel, Error>,
{
    let own = cache.cluster_name();
    let mut changes = cache.subscribe();
    loop {
        while let Err(status) = tell(&cache, &own, types, &channel).await {
            debug!(cluster = to, reason = status.message(), "a cluster was not told this cluster's authorities");
            sleep(mux::listener::jittered(AGAIN)).await;
        }
        loop {
            match changes.recv().await {
                Ok(Change::Authority(_, of)) if of == own => break,
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

async fn tell<C>(cache: &Cache, own: &str, types: &[&str], channel: &C) -> Result<(), Status>
where
    C: Fn() -> Result<ApiChannel, Error>,
{
    let mut trust = TrustServiceClient::new(channel().map_err(Status::from)?);
    for ca_type in types {
        let Some(authority) = cache.authority(ca_type, own) else { continue };
        let cert_authority = Some((*authority).clone());
        let request = Request::new(RotateExternalCertAuthorityRequest { cert_authority });
        let late = |_| Status::deadline_exceeded("waited 10 s for the other cluster");
        timeout(TIMEOUT, trust.rotate_external_cert_authority(request)).await.map_err(late)??;
    }
    Ok(())
}
