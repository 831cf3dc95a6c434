//! The log in a PostgreSQL database, which several Auth Services share.
//!
//! The table is the one that the known product has, so that either can go on where the other stopped: `events`, with the
//! event's JSON in `event_data`, its time and id as the primary key, and the nil UUID for events of no session.
//!
//! Events that arrive while others are being stored are stored together, in one statement.

mod search;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use backend::{PostgresClient, PostgresOptions};
use chrono::{DateTime, Utc};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, warn};
use uuid::Uuid;
use wire::events::OneOf;

use crate::{Error, EventExt, Page, Query, Result, Sink, json};

/// How long the database may take for one statement.
const STATEMENT: Duration = Duration::from_secs(30);
/// How long events wait for a database that is away before they are refused: less than members wait for an answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// Events that may wait to be stored.
const QUEUE: usize = 4096;
/// Events stored in one statement.
const BATCH: usize = 512;
/// Old events removed in one statement.
const REMOVED: i64 = 5000;
/// The number of the advisory lock under which the table is made.
const LOCK: i64 = 0x7465_6c65_6576_656e;
/// Waits between attempts to connect.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (
        event_time timestamptz NOT NULL,
        event_id uuid NOT NULL,
        event_type text NOT NULL,
        session_id uuid NOT NULL,
        event_data json NOT NULL,
        creation_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT events_pkey PRIMARY KEY (event_time, event_id)
    );
    CREATE INDEX IF NOT EXISTS events_creation_time_idx ON events USING brin (creation_time);
    CREATE INDEX IF NOT EXISTS events_search_session_events_idx ON events (session_id, event_time, event_id)
        WHERE session_id != '00000000-0000-0000-0000-000000000000';
";

const INSERT: &str = "
    INSERT INTO events (event_time, event_id, event_type, session_id, event_data)
    SELECT t, i, k, s, d::json FROM UNNEST($1::timestamptz[], $2::uuid[], $3::text[], $4::uuid[], $5::text[]) AS e (t, i, k, s, d)
    ON CONFLICT DO NOTHING";

/// What the address of a log says besides where the database is.
#[derive(Clone, Debug)]
pub struct PostgresLogOptions {
    /// The database.
    pub database: PostgresOptions,
    /// Events that were stored longer ago are removed.
    pub retention: Duration,
    /// How often that is done; `None`: never.
    pub cleanup: Option<Duration>,
}

impl PostgresLogOptions {
    /// Reads `postgresql://user@host/database?sslmode=…#retention_period=8766h&cleanup_interval=1h`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names what is wrong, without the address: it may hold a password.
    pub fn parse(address: &str) -> Result<Self> {
        let database = PostgresOptions::parse(address).map_err(|e| Error::Invalid(e.to_string()))?;
        let (_, fragment) = address.split_once('#').unwrap_or_default();
        let hour = Duration::from_secs(3600);
        let mut options = Self { database, retention: 8766 * hour, cleanup: Some(hour) };
        for pair in fragment.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = |what: &str| Error::Invalid(format!("PostgreSQL audit log, option {name}: {what}"));
            let duration = || wire::duration::from_text(value).ok().filter(|d| !d.is_zero());
            let period = || duration().ok_or_else(|| wrong("expected a duration such as 8766h"));
            match name {
                "retention_period" => options.retention = period()?,
                "cleanup_interval" => options.cleanup = options.cleanup.and(Some(period()?)),
                "disable_cleanup" if value == "true" => options.cleanup = None,
                "disable_cleanup" if value == "false" => {}
                "disable_cleanup" => return Err(wrong("expected true or false")),
                "auth_mode" if value.is_empty() || value == "static" => {}
                "auth_mode" => return Err(wrong("expected a password or certificate in the address")),
                _ => return Err(wrong("there is no such option")),
            }
        }
        Ok(options)
    }
}

/// Keeps events in a database.
pub struct PostgresLog {
    queue: mpsc::Sender<Waiting>,
    readers: Arc<Connections>,
    tasks: Vec<AbortHandle>,
}

impl Drop for PostgresLog {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// An event on its way, and who waits for it.
struct Waiting {
    row: Row,
    done: oneshot::Sender<Result<()>>,
}

/// An event as the table has it.
struct Row {
    time: DateTime<Utc>,
    id: Uuid,
    kind: String,
    session: Uuid,
    data: String,
}

/// One connection, made anew when it is lost.
pub(crate) struct Connections {
    options: PostgresOptions,
    current: Mutex<Option<Arc<PostgresClient>>>,
}

impl Connections {
    fn new(options: PostgresOptions) -> Arc<Self> {
        Arc::new(Self { options, current: Mutex::new(None) })
    }

    /// The connection.
    pub(crate) async fn get(&self) -> Result<Arc<PostgresClient>> {
        let mut current = self.current.lock().await;
        if let Some(client) = current.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let connecting = timeout(STATEMENT, self.options.connect()).await;
        let connected = connecting.map_err(|_| Error::Database("waited 30 s for the connection".into()))?;
        let client = Arc::new(connected.map_err(|e| Error::Database(e.to_string()))?);
        *current = Some(client.clone());
        Ok(client)
    }

    /// Gives up the connection: something on it has no end.
    async fn forget(&self) {
        *self.current.lock().await = None;
    }
}

impl PostgresLog {
    /// Opens the log, and makes its table if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn open(options: PostgresLogOptions) -> Result<Self> {
        let connections = || Connections::new(options.database.clone());
        let (writer, readers) = (connections(), connections());
        let client = writer.get().await?;
        // Two processes that make the same table at once fail, although both only make it when it is missing.
        let schema = format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK}); {SCHEMA} COMMIT");
        within(client.batch_execute(&schema)).await?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let mut tasks = vec![tokio::spawn(write(writer, waiting)).abort_handle()];
        if let Some(every) = options.cleanup {
            tasks.push(tokio::spawn(clean(connections(), every, options.retention)).abort_handle());
        }
        Ok(Self { queue, readers, tasks })
    }
}

#[async_trait]
impl Sink for PostgresLog {
    async fn emit(&self, event: OneOf) -> Result<()> {
        let (done, stored) = oneshot::channel();
        let row = Row::of(&event)?;
        self.queue.send(Waiting { row, done }).await.map_err(|_| Error::Closed)?;
        stored.await.map_err(|_| Error::Closed)?
    }

    async fn search(&self, query: Query) -> Result<Page> {
        search::search(&self.readers, query).await
    }
}

impl Row {
    fn of(event: &OneOf) -> Result<Self> {
        let data = json::to_json_line(event)?;
        let session = event.session().and_then(|session| session.session_id.parse().ok());
        Ok(Self {
            time: event.time().unwrap_or_default(),
            // Events without an id of their own are told apart by what they say.
            id: event.uid().parse().unwrap_or_else(|_| Uuid::new_v5(&Uuid::nil(), data.as_bytes())),
            kind: event.name().to_owned(),
            session: session.unwrap_or(Uuid::nil()),
            data,
        })
    }
}

/// Stores what waits, for ever.
async fn write(connections: Arc<Connections>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let (rows, done): (Vec<_>, Vec<_>) = batch.drain(..).map(|w| (w.row, w.done)).unzip();
        let outcome = store(&connections, &rows).await;
        if let Err(error) = &outcome {
            warn!(%error, events = rows.len(), "events not stored in the database");
        }
        for waiter in done {
            let _ = waiter.send(outcome.clone()); // whoever emitted may have gone
        }
    }
}

/// Stores rows, waiting for a database that is away, but no longer than [`PATIENCE`].
///
/// Rows may be stored although this failed: the database has them once, however often they are stored.
async fn store(connections: &Connections, rows: &[Row]) -> Result<()> {
    let (deadline, mut wait) = (Instant::now() + PATIENCE, MIN_RETRY);
    loop {
        let attempt = async {
            let client = connections.get().await?;
            insert(&client, rows).await
        };
        let Ok(attempt) = timeout_at(deadline, attempt).await else {
            connections.forget().await;
            return Err(Error::Database(format!("waited {} s for the database", PATIENCE.as_secs())));
        };
        match attempt {
            Err(error @ Error::Database(_)) if Instant::now() + wait < deadline => {
                debug!(%error, "trying again to store events");
                sleep(wait.mul_f64(0.5 + fraction() / 2.0)).await;
                wait = (wait * 2).min(MAX_RETRY);
            }
            other => return other,
        }
    }
}

/// Somewhere between 0 and 1, so that several services do not knock at the same moment.
fn fraction() -> f64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    (low % 1024) as f64 / 1024.0
}

async fn insert(client: &PostgresClient, rows: &[Row]) -> Result<()> {
    // One statement must not have a key twice.
    let mut seen = HashSet::new();
    let rows: Vec<_> = rows.iter().filter(|row| seen.insert((row.time, row.id))).collect();
    let times: Vec<_> = rows.iter().map(|row| row.time).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let kinds: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    let sessions: Vec<_> = rows.iter().map(|row| row.session).collect();
    let data: Vec<_> = rows.iter().map(|row| row.data.as_str()).collect();
    within(client.execute(INSERT, &[&times, &ids, &kinds, &sessions, &data])).await.map(drop)
}

/// Removes old events, again and again.
async fn clean(connections: Arc<Connections>, every: Duration, retention: Duration) {
    loop {
        sleep(every.mul_f64(0.75 + fraction() / 4.0)).await;
        match remove_old(&connections, retention).await {
            Ok(0) => {}
            Ok(removed) => debug!(removed, "old events removed from the database"),
            Err(error) => warn!(%error, "old events not removed from the database"),
        }
        connections.forget().await; // for the next hour nobody needs it
    }
}

/// Removes events that were stored longer ago, a bounded number at a time: no statement takes long or holds many locks.
async fn remove_old(connections: &Connections, retention: Duration) -> Result<u64> {
    let (seconds, mut total) = (retention.as_secs_f64(), 0);
    let statement = "DELETE FROM events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM events WHERE creation_time < now() - make_interval(secs => $1) LIMIT $2))";
    loop {
        let client = connections.get().await?;
        let removed = within(client.execute(statement, &[&seconds, &REMOVED])).await?;
        total += removed;
        if i64::try_from(removed).is_ok_and(|removed| removed < REMOVED) {
            return Ok(total);
        }
    }
}

/// A statement with a limit on its time.
pub(crate) async fn within<T>(statement: impl Future<Output = Result<T, backend::PostgresError>>) -> Result<T> {
    match timeout(STATEMENT, statement).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Error::Database(backend::postgres_words(&error))),
        Err(_) => Err(Error::Database("waited 30 s for an answer".into())),
    }
}

#[cfg(test)]
mod tests;
