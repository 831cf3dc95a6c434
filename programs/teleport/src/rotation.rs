//! Members living through a rotation of the host authority: they renew their identity, and nobody notices.

use std::sync::Arc;
use std::time::Duration;

use cache::{Cache, Change};
use dialer::{Credentials, Line};
use process::{HostIdentity, IdentityStore, Outlook, keep_alive, keep_connected, renew};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use wire::client::ApiChannel;

use crate::error::Result;
use crate::member::Names;

/// How often a member looks, even if it heard of no change.
const LOOK: Duration = Duration::from_secs(600);
/// How long a renewal may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Waits between attempts.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Members renew within this time of hearing of a phase, each at its own moment.
const SPREAD: Duration = Duration::from_secs(2);

/// Shows another identity to those who connect.
pub type Serve = Box<dyn Fn(&HostIdentity) -> Result<()> + Send + Sync>;

/// A member, as far as its identity goes.
pub struct Identities {
    /// Shown where the member connects to.
    pub client: HostIdentity,
    /// Shown to those who connect to the member.
    pub server: HostIdentity,
    pub credentials: Credentials,
    pub store: Arc<IdentityStore>,
    pub channel: ApiChannel,
    /// What the channel's connection is on.
    pub line: Line,
    pub cache: Cache,
    pub node_name: String,
    pub names: Names,
    pub serve: Serve,
}

impl Identities {
    /// Follows the host authority for ever, over a connection that works.
    pub async fn follow(self) {
        let connection = keep_connected(self.line.clone(), self.channel.clone(), {
            let cache = self.cache.clone();
            move || keep_alive(&cache)
        });
        tokio::select! {
            () = connection => {}
            () = self.follow_authority() => {}
        }
    }

    async fn follow_authority(mut self) {
        let mut changes = self.cache.subscribe();
        let mut retry = MIN_RETRY;
        loop {
            let wait = match self.catch_up().await {
                Ok(()) => {
                    retry = MIN_RETRY;
                    LOOK
                }
                Err(error) => {
                    warn!(role = self.client.role, %error, "the identity could not follow the host authority");
                    retry = (retry * 2).min(MAX_RETRY);
                    retry
                }
            };
            let wait = mux::listener::jittered(wait);
            if let Ok(false) = timeout(wait, changed(&mut changes, &self.client.cluster)).await {
                return;
            }
        }
    }

    /// Brings both identities to where the authority is.
    async fn catch_up(&mut self) -> Result<()> {
        let Some(ca) = self.cache.authority("host", &self.client.cluster) else { return Ok(()) };
        let outlook = Outlook::of(&ca)?;
        let now = std::time::SystemTime::now().into();
        if !outlook.is_current(&self.client, now) {
            sleep(mux::listener::jittered(SPREAD)).await;
            let names = &self.names;
            let work = renew(self.channel.clone(), &self.client, &self.node_name, &names.principals, &names.dns_names);
            let renewed = match timeout(LIMIT, work).await {
                Ok(renewed) => renewed?,
                Err(_) => return Err(crate::error::Failure("waited 30 s for the Auth Service".into())),
            };
            info!(role = renewed.role, "identity renewed, the host authority has other keys");
            self.keep(renewed).await?;
        }
        if !outlook.knows(&self.client) {
            self.keep(outlook.teach(self.client.clone())).await?;
            info!(role = self.client.role, authorities = outlook.tls_authorities.len(), "host authorities learnt");
        }
        let behind = self.server.tls_certificate != self.client.tls_certificate;
        if behind && !(outlook.clients_first && outlook.is_trusted(&self.server, now)) {
            (self.serve)(&self.client)?;
            self.server = self.client.clone();
            info!(role = self.client.role, "clients are shown the renewed identity");
        }
        Ok(())
    }

    /// Uses an identity where this member connects to, also after a restart. Nothing changes unless it was stored.
    async fn keep(&mut self, identity: HostIdentity) -> Result<()> {
        self.store.save(&identity).await?;
        self.credentials.replace((*identity.credentials().current()).clone());
        self.client = identity;
        Ok(())
    }
}

/// Waits for a change of the host authority; false when there will be none any more.
async fn changed(changes: &mut tokio::sync::broadcast::Receiver<Change>, cluster: &str) -> bool {
    loop {
        match changes.recv().await {
            Ok(Change::Everything) | Err(RecvError::Lagged(_)) => return true,
            Ok(Change::Authority(ca_type, of)) if ca_type == "host" && of == cluster => return true,
            Ok(_) => {}
            Err(RecvError::Closed) => return false,
        }
    }
}
