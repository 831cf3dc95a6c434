//! Limits that a user's roles set across the cluster: simultaneous SSH connections.
//!
//! A connection of somebody with `max_connections` holds a lease at the Auth Service for as long as it lives. A member
//! that dies leaves leases that end by themselves.

use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Status};
use tracing::debug;
use wire::client::ApiChannel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::{AcquireSemaphoreRequest, SemaphoreLease};

/// Kind of the semaphores that count SSH connections; their name is the user's.
const CONNECTIONS: &str = "connection";
/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a lease lives where the cluster does not say.
const DEFAULT_TTL: Duration = Duration::from_secs(120);
/// Part of an error's text that says that all leases are taken.
const ALL_TAKEN: &str = "err-max-leases";

/// Takes leases. Clones share the connection to the Auth Service.
#[derive(Clone)]
pub struct Leases {
    /// The way to the Auth Service.
    pub channel: ApiChannel,
    /// Where leases are renewed and given back.
    pub tasks: TaskTracker,
    /// UUID of the host that takes them.
    pub host_uuid: String,
}

/// A lease; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    lost: watch::Receiver<Option<String>>,
    _release: DropGuard,
}

/// Why there is no lease.
#[derive(Debug)]
pub enum NoLease {
    /// The limit is reached.
    AllTaken,
    /// It is not known whether it is.
    Unknown(String),
}

impl Leases {
    /// Takes one of `max` places for connections of `user`. A lease that is not renewed lives for `ttl`.
    ///
    /// # Errors
    /// When all are taken, or the Auth Service does not say.
    pub async fn take(&self, user: &str, max: u64, ttl: Option<Duration>) -> Result<Lease, NoLease> {
        let ttl = ttl.filter(|t| !t.is_zero()).unwrap_or(DEFAULT_TTL);
        let lease = acquire(&self.channel, &self.host_uuid, user, max, ttl).await.map_err(|status| {
            if is_taken(&status) { NoLease::AllTaken } else { NoLease::Unknown(status.message().to_owned()) }
        })?;
        let (lost_sender, lost) = watch::channel(None);
        let released = CancellationToken::new();
        let holder = Holder { leases: self.clone(), user: user.to_owned(), max, ttl, lost: lost_sender };
        self.tasks.spawn(holder.hold(lease, released.clone()));
        Ok(Lease { lost, _release: released.drop_guard() })
    }
}

impl Lease {
    /// Returns when the place is lost, with the reason.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let reason = match lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None, // only on shutdown, which ends connections itself
        };
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

struct Holder {
    leases: Leases,
    user: String,
    max: u64,
    ttl: Duration,
    lost: watch::Sender<Option<String>>,
}

impl Holder {
    /// Renews the lease until it is released. An Auth Service out of reach ends nothing: established sessions go on.
    async fn hold(self, mut lease: SemaphoreLease, released: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            let pause = self.ttl.mul_f64(rand::random_range(0.3..=0.4));
            tokio::select! {
                () = released.cancelled() => break,
                () = sleep(pause) => {}
            }
            lease.expires = Some(wire::time::timestamp(Utc::now() + self.ttl));
            match call(&self.leases.channel, lease.clone()).await {
                Ok(()) => renewed = Instant::now(),
                Err(status) if status.code() == Code::NotFound || renewed.elapsed() > self.ttl => {
                    let channel = &self.leases.channel;
                    match acquire(channel, &self.leases.host_uuid, &self.user, self.max, self.ttl).await {
                        Ok(new) => (lease, renewed) = (new, Instant::now()),
                        Err(status) if is_taken(&status) => {
                            self.lost.send_replace(Some(too_many(&self.user, self.max)));
                            return;
                        }
                        Err(status) => debug!(reason = status.message(), "lease of a connection not renewed"),
                    }
                }
                Err(status) => debug!(reason = status.message(), "lease of a connection not renewed"),
            }
        }
        let mut client = AuthServiceClient::new(self.leases.channel.clone());
        let given_back = client.cancel_semaphore_lease(Request::new(lease));
        if !matches!(timeout(CALL, given_back).await, Ok(Ok(_))) {
            debug!(user = %self.user, "lease of a connection not given back: it ends by itself");
        }
    }
}

/// What somebody over the limit is told.
pub fn too_many(user: &str, max: u64) -> String {
    format!("too many concurrent ssh connections for user {user:?} (max={max})")
}

fn is_taken(status: &Status) -> bool {
    status.message().contains(ALL_TAKEN) || status.code() == Code::ResourceExhausted
}

async fn acquire(
    channel: &ApiChannel,
    holder: &str,
    user: &str,
    max: u64,
    ttl: Duration,
) -> Result<SemaphoreLease, Status> {
    let request = AcquireSemaphoreRequest {
        semaphore_kind: CONNECTIONS.to_owned(),
        semaphore_name: user.to_owned(),
        max_leases: i64::try_from(max).unwrap_or(i64::MAX),
        expires: Some(wire::time::timestamp(Utc::now() + ttl)),
        holder: holder.to_owned(),
    };
    let mut client = AuthServiceClient::new(channel.clone());
    match timeout(CALL, client.acquire_semaphore(Request::new(request))).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("waited 10 s for the auth service")),
    }
}

async fn call(channel: &ApiChannel, lease: SemaphoreLease) -> Result<(), Status> {
    let mut client = AuthServiceClient::new(channel.clone());
    match timeout(CALL, client.keep_alive_semaphore_lease(Request::new(lease))).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Status::deadline_exceeded("waited 10 s for the auth service")),
    }
}
