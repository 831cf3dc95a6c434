//! The user's agent, which signs the proxy's login to the node.

use std::time::Duration;

use futures::future::BoxFuture;
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Certificate, HashAlg};
use tokio::time::timeout;
use tunnel::BoxedStream;

use super::target::NodeSide;

/// How long an agent may take to list what it holds.
const LISTING: Duration = Duration::from_secs(10);
/// Identities looked at.
const MOST_IDENTITIES: usize = 256;

/// Opens a connection to the user's agent, or says why there is none.
pub(crate) struct AgentSource(Box<dyn FnOnce() -> BoxFuture<'static, Result<BoxedStream, String>> + Send>);

impl AgentSource {
    /// An agent that `open` leads to.
    pub(crate) fn new<F>(open: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<BoxedStream, String>> + Send + 'static,
    {
        Self(Box::new(move || Box::pin(open())))
    }
}

/// Logs in to a node with a certificate that the user's agent holds: the one that the client has shown, else another of
/// the same user.
pub(super) async fn log_in(
    handle: &mut Handle<NodeSide>,
    login: &str,
    shown: &Certificate,
    agent: AgentSource,
) -> Result<(), String> {
    let stream = (agent.0)().await?;
    let mut agent = AgentClient::connect(stream);
    let listed = timeout(LISTING, agent.request_identities()).await;
    let listed = listed.map_err(|_| "waited 10 s for the user's agent".to_owned())?;
    let listed = listed.map_err(|error| format!("the user's agent: {error}"))?;
    let held: Vec<Certificate> = listed.into_iter().take(MOST_IDENTITIES).filter_map(certificate).collect();
    let same = held.iter().find(|held| *held == shown);
    let chosen = same.or_else(|| held.iter().find(|held| is_of(held, shown, login)));
    let chosen = chosen.ok_or("the user's agent holds no certificate of this login: log in again with tsh")?.clone();
    let hash = matches!(chosen.public_key().algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
    match handle.authenticate_certificate_with(login, chosen, hash, &mut agent).await {
        Ok(AuthResult::Success) => Ok(()),
        Ok(AuthResult::Failure { .. }) => Err(String::new()),
        Err(error) => Err(format!("the user's agent did not sign the login to the node: {error}")),
    }
}

fn certificate(identity: AgentIdentity) -> Option<Certificate> {
    match identity {
        AgentIdentity::Certificate { certificate, .. } => Some(certificate),
        AgentIdentity::PublicKey { .. } => None,
    }
}

/// Whether a certificate is of the user who has shown another one, and good for the login.
fn is_of(held: &Certificate, shown: &Certificate, login: &str) -> bool {
    held.key_id() == shown.key_id()
        && held.signature_key() == shown.signature_key()
        && held.valid_principals().iter().any(|principal| principal == login)
}
