//! The reading side: a few connections that serve many readers each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::{sync::Mutex, task::AbortHandle, time::timeout};
use tokio_postgres::{Client, Row, types::ToSql};

use super::{CHANNEL, PostgresOptions, STATEMENT, connect::storage_error, read_item};
use crate::{BackendError, Item, Key, KeyRange, Result, local::Reader, writer::Look};

/// Connections for reading; statements of one connection follow each other.
const CONNECTIONS: usize = 4;
/// Waits before the connection that hears of changes is made anew.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);

pub(super) const ONE: &str = "SELECT key, value, expires, revision FROM kv WHERE key = $1";

/// Reads what is committed.
#[derive(Debug)]
pub struct PostgresReader {
    options: PostgresOptions,
    clients: [Mutex<Option<Arc<Client>>>; CONNECTIONS],
    turn: AtomicUsize,
    listener: AbortHandle,
    closed: std::sync::atomic::AtomicBool,
}

impl PostgresReader {
    /// A reader, and a task that has the writer look when another process has written.
    pub(super) fn new(options: PostgresOptions, look: Look) -> Self {
        let listener = tokio::spawn(listen(options.clone(), look)).abort_handle();
        let (clients, turn) = (Default::default(), AtomicUsize::new(0));
        Self { options, clients, turn, listener, closed: false.into() }
    }

    async fn client(&self) -> Result<Arc<Client>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(BackendError::Closed);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        let Some(slot) = self.clients.get(turn) else { return Err(BackendError::Closed) };
        let mut slot = slot.lock().await;
        if let Some(client) = &*slot
            && !client.is_closed()
        {
            return Ok(client.clone());
        }
        let client = Arc::new(self.options.connect().await?);
        *slot = Some(client.clone());
        Ok(client)
    }

    async fn query(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let work = async {
            let client = self.client().await?;
            client.query(statement, values).await.map_err(|error| storage_error(&error))
        };
        let late =
            || BackendError::ConnectionProblem(format!("no answer of the database in {} s", STATEMENT.as_secs()));
        timeout(STATEMENT, work).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Drop for PostgresReader {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[async_trait]
impl Reader for PostgresReader {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let rows = self.query(ONE, &[&key.as_str().as_bytes()]).await?;
        rows.first().map(read_item).transpose()
    }

    async fn range(&self, range: &KeyRange, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .query(
                "SELECT key, value, expires, revision FROM kv
                 WHERE key >= $1 AND key < $2 AND (expires IS NULL OR expires > $3) ORDER BY key LIMIT $4",
                &[&range.start.as_bytes(), &range.end_text().as_bytes(), &now, &limit],
            )
            .await?;
        rows.iter().map(read_item).collect()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.listener.abort();
    }
}

/// Has the writer look whenever another process has written, for ever.
async fn listen(options: PostgresOptions, look: Look) {
    let look = Arc::new(look);
    let mut retry = MIN_RETRY;
    loop {
        let started = std::time::Instant::now();
        let look = Arc::clone(&look);
        if let Err(error) = options.listen(CHANNEL, move || look.now()).await {
            tracing::warn!(%error, "changes made by other processes are looked for every second");
        }
        if started.elapsed() > MAX_RETRY {
            retry = MIN_RETRY;
        }
        let share = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0;
        tokio::time::sleep(retry.mul_f64(0.5 + share)).await;
        retry = (retry * 2).min(MAX_RETRY);
    }
}
