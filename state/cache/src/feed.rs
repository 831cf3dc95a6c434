//! The task that keeps a cache current: subscribe, fetch, apply, and again after a loss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Request, Status};
use tracing::{debug, info, warn};
use wire::client::ApiChannel;
use wire::clusterconfig::{
    GetAuthPreferenceRequest, GetClusterNetworkingConfigRequest, GetSessionRecordingConfigRequest,
    cluster_config_service_client::ClusterConfigServiceClient,
};
use wire::presence::{ListRemoteClustersRequest, presence_service_client::PresenceServiceClient};
use wire::proto::{
    GetLocksRequest, ListResourcesRequest, ListRolesRequest, Operation, Watch, auth_service_client::AuthServiceClient,
    paginated_resource::Resource as Listed,
};
use wire::trust::{GetCertAuthoritiesRequest, trust_service_client::TrustServiceClient};
use wire::types::WatchKind;

use crate::state::{State, authority_key};
use crate::{Cache, Kind};

/// How long the server may take to confirm a subscription.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one fetch of everything may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// First wait after a loss; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(8);
const PAGE: i32 = 1000;
/// The authority types a cache holds.
const AUTHORITY_TYPES: [&str; 9] =
    ["host", "user", "db", "db_client", "openssh", "jwt", "saml_idp", "oidc_idp", "spiffe"];
/// Messages of lists and authorities grow with the cluster; a page above this is asked for in halves.
const MAX_MESSAGE: usize = 64 << 20;

/// Changes that the caches of this process have taken.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// How many changes the caches of this process have taken.
pub fn events() -> u64 {
    EVENTS.load(Ordering::Relaxed)
}

pub(crate) struct Feed {
    cache: Cache,
    channel: ApiChannel,
    kinds: Vec<Kind>,
}

impl Feed {
    pub(crate) fn new(cache: Cache, channel: ApiChannel, kinds: Vec<Kind>) -> Self {
        Self { cache, channel, kinds }
    }

    /// Feeds the cache for ever.
    pub(crate) async fn run(self) {
        let mut backoff = MIN_BACKOFF;
        loop {
            match self.follow(&mut backoff).await {
                Ok(()) => debug!("event stream ended"),
                Err(status) => debug!(code = ?status.code(), message = status.message(), "event stream lost"),
            }
            if self.cache.stale_for().is_none() {
                self.cache.lost();
                info!("auth service out of reach: deciding from the last known state");
            }
            sleep(jittered(backoff)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// One subscription, from the first event to its end.
    async fn follow(&self, backoff: &mut Duration) -> Result<(), Status> {
        let kinds = self
            .kinds
            .iter()
            .flat_map(|k| k.watched())
            .map(|kind| WatchKind { kind: (*kind).to_owned(), ..Default::default() });
        let watch = Watch { kinds: kinds.collect(), allow_partial_success: true };
        let mut client = AuthServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let subscribe = async {
            let mut events = client.watch_events(Request::new(watch)).await?.into_inner();
            let first =
                events.message().await?.ok_or_else(|| Status::unavailable("event stream ended before it began"))?;
            if first.r#type != Operation::Init as i32 {
                return Err(Status::internal("the first event must confirm the subscription"));
            }
            Ok(events)
        };
        let mut events = limited(INIT_TIMEOUT, "waited 30 s for the event stream", subscribe).await?;
        let state = limited(FETCH_TIMEOUT, "waited 60 s for the cluster state", self.fetch()).await?;
        self.cache.replace(state);
        *backoff = MIN_BACKOFF;
        debug!("cluster state is current");
        while let Some(event) = events.message().await? {
            EVENTS.fetch_add(1, Ordering::Relaxed);
            self.cache.apply(event);
        }
        Ok(())
    }

    async fn fetch(&self) -> Result<State, Status> {
        let mut state = State::default();
        let mut auth = AuthServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        state.cluster_name = auth.get_domain_name(Request::new(())).await?.into_inner().domain_name;
        for kind in &self.kinds {
            match kind {
                Kind::Authorities => self.fetch_authorities(&mut state).await?,
                Kind::ClusterSettings => self.fetch_settings(&mut state).await?,
                Kind::Locks => {
                    let locks = auth.get_locks(Request::new(GetLocksRequest::default())).await?.into_inner().locks;
                    let named =
                        locks.into_iter().filter_map(|l| Some((l.metadata.as_ref()?.name.clone(), Arc::new(l))));
                    state.locks = named.collect();
                }
                Kind::Nodes => state.nodes = self.fetch_nodes().await?,
                Kind::RemoteClusters => self.fetch_remote_clusters(&mut state).await?,
                Kind::Roles => self.fetch_roles(&mut state).await?,
            }
        }
        Ok(state)
    }

    async fn fetch_authorities(&self, state: &mut State) -> Result<(), Status> {
        let mut trust = TrustServiceClient::new(self.channel.clone());
        for ca_type in AUTHORITY_TYPES {
            let request = GetCertAuthoritiesRequest { r#type: ca_type.to_owned(), include_key: false };
            let found = trust.get_cert_authorities(Request::new(request)).await?.into_inner();
            for ca in found.cert_authorities_v2 {
                if let Some(key) = authority_key(&ca) {
                    state.authorities.insert(key, Arc::new(ca));
                }
            }
        }
        Ok(())
    }

    async fn fetch_settings(&self, state: &mut State) -> Result<(), Status> {
        let mut config = ClusterConfigServiceClient::new(self.channel.clone());
        let preference = config.get_auth_preference(Request::new(GetAuthPreferenceRequest {})).await?;
        state.auth_preference = Arc::new(preference.into_inner());
        let networking =
            config.get_cluster_networking_config(Request::new(GetClusterNetworkingConfigRequest {})).await?;
        state.networking = Arc::new(networking.into_inner());
        let recording = config.get_session_recording_config(Request::new(GetSessionRecordingConfigRequest {})).await?;
        state.recording = Arc::new(recording.into_inner());
        Ok(())
    }

    async fn fetch_roles(&self, state: &mut State) -> Result<(), Status> {
        let mut auth = AuthServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let mut start_key = String::new();
        loop {
            let request = ListRolesRequest { limit: PAGE, start_key, ..Default::default() };
            let page = auth.list_roles(Request::new(request)).await?.into_inner();
            for role in page.roles {
                if let Some(name) = role.metadata.as_ref().map(|m| m.name.clone()) {
                    state.roles.insert(name, Arc::new(role));
                }
            }
            start_key = page.next_key;
            if start_key.is_empty() {
                return Ok(());
            }
        }
    }

    async fn fetch_nodes(&self) -> Result<BTreeMap<String, Arc<wire::types::ServerV2>>, Status> {
        let mut auth = AuthServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let mut nodes = BTreeMap::new();
        let mut start_key = String::new();
        loop {
            let request = ListResourcesRequest {
                resource_type: "node".into(),
                namespace: "default".into(),
                limit: PAGE,
                start_key,
                ..Default::default()
            };
            let page = auth.list_resources(Request::new(request)).await?.into_inner();
            for item in page.items() {
                if let Some(Listed::Node(node)) = item?.resource
                    && let Some(name) = node.metadata.as_ref().map(|m| m.name.clone())
                {
                    nodes.insert(name, Arc::from(node));
                }
            }
            start_key = page.next_key;
            if start_key.is_empty() {
                return Ok(nodes);
            }
        }
    }

    async fn fetch_remote_clusters(&self, state: &mut State) -> Result<(), Status> {
        let mut presence = PresenceServiceClient::new(self.channel.clone());
        let mut page_token = String::new();
        loop {
            let request = ListRemoteClustersRequest { page_size: PAGE, page_token };
            let page = presence.list_remote_clusters(Request::new(request)).await?.into_inner();
            for cluster in page.remote_clusters {
                if let Some(name) = cluster.metadata.as_ref().map(|m| m.name.clone()) {
                    state.remote_clusters.insert(name, Arc::new(cluster));
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

/// A result within a time limit.
async fn limited<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            warn!(limit = ?limit, "{what}");
            Err(Status::deadline_exceeded(what))
        }
    }
}

/// Between half of a wait and all of it, so that many agents do not come back at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}
