//! What ends a connection from outside: locks, idleness, the certificate's end, a lost place, shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use process::locks;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::info;

use crate::audit::connection_metadata;
use crate::connection::Connection;
use crate::node::Node;
use crate::session::Command;

/// How long the last words to a client may take to go out.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a session, or a client, may take to hear that it ends.
const TAKEN: Duration = Duration::from_secs(5);

/// When something last happened on a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Activity {
    pub fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Bytes passed, in either direction.
    pub fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Returns when nothing has happened for so long.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let until = self.last() + limit;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Why a connection must end.
#[derive(Debug)]
struct End {
    /// For the audit log.
    reason: String,
    /// For the user's terminal.
    message: String,
}

impl End {
    fn because(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { message: reason.clone(), reason }
    }
}

impl Node {
    /// Watches a connection for as long as it lives, and ends it when it must end.
    pub fn watch(&self, connection: &Arc<Connection>) {
        let (node, connection) = (self.clone(), connection.clone());
        self.tasks.spawn(async move {
            let end = tokio::select! {
                () = connection.handle.closed() => None,
                end = node.must_end(&connection) => Some(end),
                () = node.shutdown.cancelled() => Some(End::because("the service is shutting down")),
            };
            if let Some(end) = end {
                info!(user = %connection.access.user, reason = %end.reason, "connection ended");
                node.end(&connection, end).await;
            }
            connection.closed();
        });
    }

    async fn must_end(&self, connection: &Connection) -> End {
        tokio::select! {
            end = self.locked(connection) => end,
            end = expired(connection) => end,
            end = self.idle(connection) => end,
            reason = connection.place_lost() => End::because(reason),
        }
    }

    /// Returns when a lock is on the user, or when strict mode cannot tell any more.
    async fn locked(&self, connection: &Connection) -> End {
        let access = &connection.access;
        let subject = self.lock_subject(&access.identity, &access.login);
        let strict = locks::are_strict_for(&self.cache, &access.roles);
        End::because(locks::ended(&self.cache, strict, || locks::on(&self.cache, &subject, &access.local_name)).await)
    }

    /// Returns when the client has been idle for longer than its roles and the cluster allow.
    async fn idle(&self, connection: &Connection) -> End {
        let networking = self.cache.networking();
        let spec = networking.spec.as_ref();
        let nanos = spec.and_then(|s| u64::try_from(s.client_idle_timeout).ok()).filter(|n| *n > 0);
        let limit = connection.access.permit.options.idle_timeout(nanos.map(Duration::from_nanos));
        let Some(limit) = limit.filter(|l| !l.is_zero()) else { return std::future::pending().await };
        connection.activity.idle_for(limit).await;
        let reason = format!("Client exceeded idle timeout of {}", wire::duration::text(limit));
        let networking = self.cache.networking();
        let message = networking.spec.as_ref().map(|s| s.client_idle_timeout_message.clone());
        let message = message.filter(|m| !m.is_empty()).unwrap_or_else(|| reason.clone());
        End { reason, message }
    }

    /// Ends a connection and its sessions, in words.
    async fn end(&self, connection: &Connection, end: End) {
        // First: a session that is about to begin looks for these words once it is among the others.
        connection.say_last(&end.message);
        for session in self.sessions.all().into_iter().filter(|s| s.connection == connection.id) {
            // Waits for room among what the user asks of the session; one that is gone needs no word.
            let command = Command::Terminate { by: None, reason: end.message.clone() };
            self.tasks.spawn(async move { timeout(TAKEN, session.commands.send(command)).await });
        }
        let body = wire::events::ClientDisconnect {
            user: Some(connection.access.user_metadata()),
            connection: Some(connection_metadata(connection.client, connection.server)),
            server: Some(self.audit.server(connection.server)),
            reason: end.reason.clone(),
            ..Default::default()
        };
        self.audit.emit(audit::codes::CLIENT_DISCONNECT.event(body)).await;
        let _ = timeout(LAST_WORDS, connection.handle.closed()).await; // the words go out first
        let ended = connection.handle.disconnect(russh::Disconnect::ByApplication, end.reason, String::new());
        let gone = async {
            let _ = ended.await; // the client may be gone
            connection.handle.closed().await;
        };
        if timeout(TAKEN, gone).await.is_err() {
            connection.cut.cancel();
        }
    }
}

/// Returns when the certificate ends, if certificates end connections here.
async fn expired(connection: &Connection) -> End {
    let Some(end) = connection.access.ends else { return std::future::pending().await };
    sleep((end - Utc::now()).to_std().unwrap_or(Duration::ZERO)).await;
    End::because(format!("client certificate expired at {}", end.to_rfc3339()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn activity_puts_off_the_idle_timeout() {
        let activity = Arc::new(Activity::new());
        let watched = activity.clone();
        let start = Instant::now();
        let idle = tokio::spawn(async move { watched.idle_for(Duration::from_secs(10)).await });
        sleep(Duration::from_secs(8)).await;
        activity.touch();
        assert!(idle.await.is_ok());
        assert_eq!(start.elapsed().as_secs(), 18);
    }
}
