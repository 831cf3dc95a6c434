//! Lists that only auth's HTTP interface has, read again whenever the event stream says that they changed: the proxies
//! of the cluster, and the tunnels to clusters that this one trusts.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Request;
use tracing::debug;
use wire::client::ApiChannel;
use wire::error::Error;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::{Operation, Watch};
use wire::types::{ReverseTunnelV2, ServerV2, WatchKind};

use crate::upstream::Upstream;

/// How long changes are collected before the lists are read again.
const SETTLE: Duration = Duration::from_millis(100);
/// The lists are read at least so often: records expire.
const AT_LEAST: Duration = Duration::from_secs(120);
/// How long the server may take to confirm a subscription.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// What the lists say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    /// The proxies of the cluster; empty until they are known.
    pub proxies: Vec<ServerV2>,
    /// Tunnels that the proxies of this cluster hold to other clusters.
    pub tunnels: Vec<ReverseTunnelV2>,
}

/// Keeps the lists current for ever; while auth is away they stay as they are.
pub(crate) async fn follow(channel: ApiChannel, upstream: Upstream, lists: watch::Sender<Lists>) {
    let mut backoff = MIN_BACKOFF;
    loop {
        if let Err(error) = subscription(&channel, &upstream, &lists, &mut backoff).await {
            debug!(%error, "lists of proxies and tunnels are not followed, trying again");
        }
        sleep(mux::listener::jittered(backoff)).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn subscription(
    channel: &ApiChannel,
    upstream: &Upstream,
    lists: &watch::Sender<Lists>,
    backoff: &mut Duration,
) -> Result<(), Error> {
    let kinds = ["proxy", "tunnel"].map(|kind| WatchKind { kind: kind.to_owned(), ..Default::default() });
    let request = Watch { kinds: kinds.into(), allow_partial_success: true };
    let mut client = AuthServiceClient::new(channel.clone());
    let subscribing = async {
        let mut events = client.watch_events(Request::new(request)).await?.into_inner();
        let first = events.message().await?;
        let confirmed = first.is_some_and(|event| event.r#type == Operation::Init as i32);
        if confirmed { Ok(events) } else { Err(Error::connection_problem("the event stream did not begin")) }
    };
    let late = |_| Error::connection_problem("waited 30 s for the event stream");
    let mut events = timeout(INIT_TIMEOUT, subscribing).await.map_err(late)??;
    loop {
        let now =
            Lists { proxies: get(upstream, "/v2/proxies").await?, tunnels: get(upstream, "/v2/reversetunnels").await? };
        lists.send_replace(now);
        *backoff = MIN_BACKOFF;
        match timeout(AT_LEAST, events.message()).await {
            Ok(event) => {
                event?.ok_or_else(|| Error::connection_problem("the event stream ended"))?;
            }
            Err(_) => continue,
        }
        // Many proxies that announce themselves at once are one change.
        let settled = sleep(SETTLE);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => break,
                event = events.message() => {
                    event?.ok_or_else(|| Error::connection_problem("the event stream ended"))?;
                }
            }
        }
    }
}

/// A list; `null` stands for an empty one.
async fn get<T: DeserializeOwned>(upstream: &Upstream, path: &str) -> Result<Vec<T>, Error> {
    let answer = upstream.get(path).await?;
    let list: Option<Vec<T>> =
        serde_json::from_value(answer).map_err(|e| Error::other(format!("{path}: unreadable answer: {e}")))?;
    Ok(list.unwrap_or_default())
}
