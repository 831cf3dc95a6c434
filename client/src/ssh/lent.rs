//! The agent that a proxy uses to log in to a host in the user's name.
//!
//! A proxy that records sessions (`session_recording: proxy`) ends the user's connection and needs the user's signature
//! for its own one to the host. Where nodes record, no proxy has any use for that, and one that asks nevertheless wants
//! to log in where the user is not going. So nothing is lent before the Auth Service has said, over a connection that
//! no proxy can answer, that this is how the cluster records. Asking costs nothing where no proxy asks.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use russh::keys::Certificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use wire::client::ApiChannel;
use wire::clusterconfig::GetSessionRecordingConfigRequest;
use wire::clusterconfig::cluster_config_service_client::ClusterConfigServiceClient;

use super::forward::LocalAgent;
use crate::agent::{message, read_message, write_message};
use crate::cluster::ClusterClient;
use crate::error::Result;
use crate::text;

/// How long the Auth Services may take to say how sessions are recorded.
const CALL: Duration = Duration::from_secs(8);

/// An agent for the proxy, if that has a use for one.
pub struct LentAgent {
    agent: LocalAgent,
    /// Whether the proxy records, asked when it first wants something.
    question: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    answer: OnceCell<bool>,
}

impl LentAgent {
    /// For logins with a certificate, in the name `login` where it is known.
    ///
    /// # Errors
    /// When the key is of no use for SSH.
    pub(crate) fn new(client: &ClusterClient, certificate: &Certificate, login: Option<&str>) -> Result<Self> {
        let agent = LocalAgent::for_logins(client.account(), certificate, login)?;
        let client = client.clone();
        Ok(Self::asking(agent, move || {
            let client = client.clone();
            async move { is_recorded_by_proxies(&client).await }
        }))
    }

    pub(crate) fn asking<F>(agent: LocalAgent, question: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self { agent, question: Box::new(move || Box::pin(question())), answer: OnceCell::new() }
    }

    /// Answers the proxy until it ends. Where it has nothing to ask for, everything fails.
    pub(crate) async fn answer(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
        if *self.answer.get_or_init(|| (self.question)()).await {
            return self.agent.answer(stream).await;
        }
        while read_message(stream).await?.is_some() {
            write_message(stream, &[message::FAILURE]).await?;
        }
        Ok(())
    }
}

/// Whether proxies record the sessions of the cluster that commands are about, or those that begin at this proxy.
async fn is_recorded_by_proxies(client: &ClusterClient) -> bool {
    let account = client.account();
    let mut asked = vec![client.auth_channel()];
    // The proxy is of the root cluster, unless it was chosen as a jump host.
    if account.proxy_cluster.is_none() && account.cluster != account.root_cluster() {
        asked.push(client.root_channel());
    }
    let said = futures::future::join_all(asked.into_iter().map(mode)).await;
    if said.iter().flatten().any(|mode| matches!(mode.as_str(), "proxy" | "proxy-sync")) {
        return true;
    }
    match said.into_iter().find_map(std::result::Result::err) {
        Some(problem) => tracing::warn!(
            "the proxy was not helped to log in to the host in your name: whether it records sessions is unknown, {}",
            text::line(&problem)
        ),
        None => tracing::warn!(
            "the proxy asked for your signature under a login to a host, and does not record sessions in this cluster: \
             refused. Tell your administrator"
        ),
    }
    false
}

/// How a cluster records sessions, as its Auth Service says.
async fn mode(auth: ApiChannel) -> Result<String, String> {
    let mut client = ClusterConfigServiceClient::new(auth);
    let asking = client.get_session_recording_config(GetSessionRecordingConfigRequest::default());
    let answer = timeout(CALL, asking).await.map_err(|_| format!("waited {} s", CALL.as_secs()))?;
    let config = answer.map_err(|status| crate::error::explain(&status))?.into_inner();
    Ok(config.spec.unwrap_or_default().mode)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pki::keys::KeyAlgorithm;

    use super::*;
    use crate::ssh::forward::agent::tests::local;

    /// An agent for a proxy that records, or does not.
    pub(crate) fn lent(records: bool) -> Arc<LentAgent> {
        Arc::new(LentAgent::asking(local(KeyAlgorithm::Ed25519), move || std::future::ready(records)))
    }

    #[tokio::test]
    async fn a_proxy_gets_nothing_unless_it_records_and_nobody_is_asked_before_it_wants_something() {
        for records in [true, false] {
            let asked = Arc::new(AtomicUsize::new(0));
            let counter = asked.clone();
            let agent = LentAgent::asking(local(KeyAlgorithm::Ed25519), move || {
                counter.fetch_add(1, Ordering::Relaxed);
                std::future::ready(records)
            });
            assert_eq!(asked.load(Ordering::Relaxed), 0);
            for _ in 0..2 {
                let (mut near, mut far) = tokio::io::duplex(1 << 16);
                let asking = async {
                    write_message(&mut near, &[message::REQUEST_IDENTITIES]).await.unwrap();
                    let answer = read_message(&mut near).await.unwrap().unwrap();
                    drop(near);
                    answer[0]
                };
                let (served, answer) = tokio::join!(agent.answer(&mut far), asking);
                served.unwrap();
                assert_eq!(answer, if records { message::IDENTITIES_ANSWER } else { message::FAILURE });
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }
}
