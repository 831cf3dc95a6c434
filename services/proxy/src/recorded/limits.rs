//! What roles limit at servers without an agent: how long nobody need say anything, how many connections a user has and how
//! many sessions a connection, and whether files may be copied. Nodes see to that themselves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cache::Cache;
use process::leases::Lease;
use rbac::Options;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, sleep_until};

/// The limits of one connection, and what counts towards them.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    idle: Option<Duration>,
    sessions: Option<(Arc<Semaphore>, u64)>,
    /// A place among the user's connections, where they are limited.
    lease: Option<Arc<Lease>>,
    user: String,
    copies: bool,
    activity: Arc<Activity>,
}

/// When something last passed.
#[derive(Debug)]
struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Limits {
    /// Those of a connection to a node, which has its own.
    pub(super) fn none() -> Self {
        let activity = Arc::new(Activity { start: Instant::now(), last: AtomicU64::new(0) });
        Self { idle: None, sessions: None, lease: None, user: String::new(), copies: true, activity }
    }

    /// Those that a user's roles and the cluster set.
    pub(super) fn of(options: &Options, cache: &Cache, user: &str) -> Self {
        let networking = cache.networking();
        let nanos = networking.spec.as_ref().and_then(|spec| u64::try_from(spec.client_idle_timeout).ok());
        let cluster_wide = nanos.filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        let places = |max: u64| Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS));
        Self {
            idle: options.idle_timeout(cluster_wide).filter(|limit| !limit.is_zero()),
            sessions: options.max_sessions.filter(|max| *max > 0).map(|max| (Arc::new(places(max)), max)),
            user: user.to_owned(),
            copies: options.ssh_file_copy,
            ..Self::none()
        }
    }

    /// Keeps a place among the user's connections for as long as there are clones of this.
    pub(super) fn hold(&mut self, lease: Lease) {
        self.lease = Some(Arc::new(lease));
    }

    /// Returns when that place is lost, with the reason.
    pub(super) async fn place_lost(&self) -> String {
        match &self.lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Something passed, in either direction.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.activity.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.activity.last.store(now, Ordering::Relaxed);
    }

    /// Returns when nothing has passed for too long, with the reason.
    pub(super) async fn idle(&self) -> String {
        let Some(limit) = self.idle else { return std::future::pending().await };
        loop {
            let until = self.activity.start + Duration::from_millis(self.activity.last.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= until {
                return format!("Client exceeded idle timeout of {}", wire::duration::text(limit));
            }
            sleep_until(until).await;
        }
    }

    /// A place for one more session.
    ///
    /// # Errors
    /// When there is none: what the user reads, and the limit.
    pub(super) fn session(&self) -> Result<Option<OwnedSemaphorePermit>, (String, u64)> {
        let Some((places, max)) = &self.sessions else { return Ok(None) };
        places.clone().try_acquire_owned().map(Some).map_err(|_: TryAcquireError| {
            (format!("too many session channels for user {:?} (max={max})", self.user), *max)
        })
    }

    /// Why files may not be copied; `None` when they may.
    pub(super) fn copies_forbidden(&self) -> Option<&'static str> {
        let reason = "file copying via SCP or SFTP is not permitted: a role of the user sets options.ssh_file_copy";
        (!self.copies).then_some(reason)
    }

    /// A stream whose bytes count as activity.
    pub(super) fn watched<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, limits: self.clone() }
    }
}

/// A stream whose bytes count as activity.
pub(super) struct Watched<S> {
    stream: S,
    limits: Limits,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.limits.touch();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        if polled.is_ready() {
            self.limits.touch();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_puts_off_the_idle_timeout() {
        let limits = Limits { idle: Some(Duration::from_secs(10)), ..Limits::none() };
        let start = Instant::now();
        let watched = limits.clone();
        let idle = tokio::spawn(async move { watched.idle().await });
        tokio::time::sleep(Duration::from_secs(8)).await;
        limits.touch();
        assert_eq!(idle.await.unwrap(), "Client exceeded idle timeout of 10s");
        assert_eq!(start.elapsed().as_secs(), 18);
    }

    #[test]
    fn places_are_given_back() {
        let limits =
            Limits { sessions: Some((Arc::new(Semaphore::new(1)), 1)), user: "alice".into(), ..Limits::none() };
        let place = limits.session().unwrap();
        assert_eq!(limits.session().unwrap_err().0, "too many session channels for user \"alice\" (max=1)");
        drop(place);
        assert!(limits.session().is_ok());
    }
}
