//! State in a PostgreSQL database that any number of Auth Services share.
//!
//! Table `kv` holds the items. Every change is also a row of `kv_events`, whose numbers grow in the order of the
//! commits, because whoever writes holds one advisory lock until its transaction is over. So each process reads the
//! changes of the others by number and misses none; `NOTIFY` only says when to look. A process that was away for
//! longer than events are kept is told that it missed some: its watchers end, and their owners read everything anew.
//!
//! One thread writes, as in the other engines: writes that arrive while a transaction is under way share the next.

mod connect;
mod read;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use crate::{
    BackendError, Clock, Event, Item, Key, KeyRange, NO_REVISION, Result, SystemClock,
    local::Local,
    store::{Foreign, Store},
};

pub use connect::{PostgresOptions, words as postgres_words};
pub use read::PostgresReader;
pub use tokio_postgres::{Client as PostgresClient, Error as PostgresError, types::ToSql};

/// Storage in a PostgreSQL database.
pub type Postgres = Local<PostgresReader>;

/// The number of the advisory lock that whoever writes holds.
const LOCK: i64 = 0x7465_6c65_706f_7274;
/// The channel on which changes are announced.
const CHANNEL: &str = "teleport_kv";
/// How long one statement may take, the wait for the lock included.
const STATEMENT: Duration = Duration::from_secs(30);
/// How long events are kept for processes that were away.
const KEPT: &str = "10 minutes";
/// How often old events are removed.
const PRUNING: Duration = Duration::from_secs(60);
/// Changes of others that are taken in at once; whoever missed more reads everything anew.
const MAX_FOREIGN: i64 = 100_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS kv (
        key bytea NOT NULL PRIMARY KEY,
        value bytea NOT NULL,
        expires timestamptz,
        revision uuid NOT NULL
    );
    CREATE INDEX IF NOT EXISTS kv_expires_idx ON kv (expires) WHERE expires IS NOT NULL;
    CREATE TABLE IF NOT EXISTS kv_events (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        made timestamptz NOT NULL DEFAULT now(),
        key bytea NOT NULL,
        value bytea,
        expires timestamptz,
        revision uuid
    );
    CREATE INDEX IF NOT EXISTS kv_events_made_idx ON kv_events (made);
";

impl Postgres {
    /// Opens a database and makes its tables when they are missing.
    ///
    /// # Errors
    /// `ConnectionProblem` when the server cannot be reached, `Storage` when it refuses.
    pub async fn open(options: PostgresOptions) -> Result<Self> {
        Self::open_with_clock(options, Arc::new(SystemClock)).await
    }

    /// The same with a clock by which items expire.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_clock(options: PostgresOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let of_writer = options.clone();
        let opened = tokio::task::spawn_blocking(move || PostgresStore::open(of_writer)).await;
        let store = opened.map_err(|error| BackendError::Storage(error.to_string()))??;
        Ok(Self::start_shared(store, clock, |look| PostgresReader::new(options, look)))
    }
}

/// The writing side: a connection that only the writing thread uses, with the runtime that drives it.
struct PostgresStore {
    runtime: Runtime,
    options: PostgresOptions,
    client: Option<Client>,
    statements: HashMap<&'static str, Statement>,
    /// The number of the last event that was taken in or made here.
    seen: i64,
    pruned: Instant,
}

impl PostgresStore {
    fn open(options: PostgresOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| BackendError::Storage(error.to_string()))?;
        let mut store =
            Self { runtime, options, client: None, statements: HashMap::new(), seen: 0, pruned: Instant::now() };
        store.connect()?;
        // Two processes that make the same table at once fail, although both only make it when it is missing.
        store.execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK}); {SCHEMA} COMMIT"))?;
        store.seen = store.newest()?;
        Ok(store)
    }

    fn connect(&mut self) -> Result<()> {
        if self.client.as_ref().is_some_and(|client| !client.is_closed()) {
            return Ok(());
        }
        self.client = None;
        self.statements.clear();
        let client = self.runtime.block_on(self.options.connect())?;
        self.client = Some(client);
        let limit = STATEMENT.as_millis();
        self.execute(&format!(
            "SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {limit};
             SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'"
        ))
    }

    /// Runs something on the connection; without an answer in time the connection is given up.
    fn run<T>(&mut self, work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>) -> Result<T> {
        let Some(client) = &self.client else {
            return Err(BackendError::ConnectionProblem("no connection to the database".to_owned()));
        };
        // The server ends a statement before that; this is for networks that swallow everything.
        let limit = STATEMENT + Duration::from_secs(5);
        match self.runtime.block_on(async { tokio::time::timeout(limit, work(client)).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(connect::storage_error(&error)),
            Err(_) => {
                self.client = None;
                Err(BackendError::ConnectionProblem(format!("no answer of the database in {} s", limit.as_secs())))
            }
        }
    }

    fn execute(&mut self, statements: &str) -> Result<()> {
        self.run(async |client| client.batch_execute(statements).await)
    }

    fn query(&mut self, statement: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let prepared = match self.statements.get(statement) {
            Some(prepared) => prepared.clone(),
            None => {
                let prepared = self.run(async |client| client.prepare(statement).await)?;
                self.statements.insert(statement, prepared.clone());
                prepared
            }
        };
        self.run(async |client| client.query(&prepared, values).await)
    }

    fn newest(&mut self) -> Result<i64> {
        let rows = self.query("SELECT coalesce(max(id), 0) FROM kv_events", &[])?;
        rows.first().map_or(Ok(0), |row| column(row, 0))
    }

    /// The events after the last that was seen.
    fn foreign(&mut self) -> Result<Foreign> {
        let seen = self.seen;
        let rows = self.query(
            "SELECT id, key, value, expires, revision FROM kv_events WHERE id > $1 ORDER BY id LIMIT $2",
            &[&seen, &(MAX_FOREIGN + 1)],
        )?;
        let Some(first) = rows.first() else { return Ok(Foreign::default()) };
        // A number that is skipped is one that was taken back, or one that is not kept any more.
        let gap = column::<i64>(first, 0)? > seen + 1 && self.seen_is_gone()?;
        if gap || rows.len() as i64 > MAX_FOREIGN {
            self.seen = self.newest()?;
            return Ok(Foreign { events: Vec::new(), missed: true });
        }
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            self.seen = column(row, 0)?;
            let key = Key::stored(text(column(row, 1)?)?);
            events.push(match column::<Option<Vec<u8>>>(row, 2)? {
                None => Event::Delete(Arc::new(key)),
                Some(value) => Event::Put(Arc::new(item(key, value, column(row, 3)?, column(row, 4)?))),
            });
        }
        Ok(Foreign { events, missed: false })
    }

    /// Whether events after the last that was seen may have been removed already.
    fn seen_is_gone(&mut self) -> Result<bool> {
        let rows = self.query("SELECT coalesce(min(id), 0) FROM kv_events", &[])?;
        Ok(rows.first().map_or(Ok(0), |row| column::<i64>(row, 0))? > self.seen)
    }

    /// Removes events that nobody waits for any more. The last one stays: its number says how far things have come.
    fn prune(&mut self) -> Result<()> {
        if self.pruned.elapsed() < PRUNING {
            return Ok(());
        }
        self.pruned = Instant::now();
        self.execute(&format!(
            "DELETE FROM kv_events WHERE made < now() - interval '{KEPT}' AND id < (SELECT max(id) FROM kv_events)"
        ))
    }
}

impl Store for PostgresStore {
    const SHARED: bool = true;

    fn begin(&mut self) -> Result<Foreign> {
        self.connect()?;
        self.execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})"))?;
        self.foreign()
    }

    fn commit(&mut self, events: &[Event]) -> Result<()> {
        let (mut keys, mut values) = (Vec::new(), Vec::<Option<&[u8]>>::new());
        let (mut ends, mut revisions) = (Vec::<Option<DateTime<Utc>>>::new(), Vec::<Option<Uuid>>::new());
        for event in events {
            let (key, value, expires, revision) = match event {
                Event::Init => continue,
                Event::Put(item) => (&item.key, Some(item.value.as_ref()), item.expires, uuid(&item.revision).ok()),
                Event::Delete(key) => (&**key, None, None, None),
            };
            keys.push(key.as_str().as_bytes());
            values.push(value);
            ends.push(expires);
            revisions.push(revision);
        }
        let made = self.query(
            "INSERT INTO kv_events (key, value, expires, revision)
             SELECT k, v, e, r FROM unnest($1::bytea[], $2::bytea[], $3::timestamptz[], $4::uuid[])
             WITH ORDINALITY AS new (k, v, e, r, n) ORDER BY n RETURNING id",
            &[&keys, &values, &ends, &revisions],
        )?;
        let mut last = self.seen;
        for row in &made {
            last = last.max(column(row, 0)?);
        }
        self.execute(&format!("NOTIFY {CHANNEL}; COMMIT"))?;
        self.seen = last;
        if let Err(error) = self.prune() {
            tracing::debug!(%error, "old events could not be removed from the database");
        }
        Ok(())
    }

    fn rollback(&mut self) {
        if self.execute("ROLLBACK").is_err() {
            // A connection whose state is unknown is not used again.
            self.client = None;
        }
    }

    fn look(&mut self) -> Result<Foreign> {
        self.connect()?;
        self.foreign()
    }

    fn get(&mut self, key: &Key) -> Result<Option<Item>> {
        let rows = self.query(read::ONE, &[&key.as_str().as_bytes()])?;
        rows.first().map(read_item).transpose()
    }

    fn put(&mut self, item: &Item, _: DateTime<Utc>) -> Result<()> {
        let (key, value, revision) = (item.key.as_str().as_bytes(), item.value.as_ref(), uuid(&item.revision)?);
        self.query(
            "INSERT INTO kv (key, value, expires, revision) VALUES ($1, $2, $3, $4)
             ON CONFLICT (key) DO UPDATE SET value = $2, expires = $3, revision = $4",
            &[&key, &value, &item.expires, &revision],
        )
        .map(drop)
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.query("DELETE FROM kv WHERE key = $1", &[&key.as_str().as_bytes()]).map(drop)
    }

    fn keys(&mut self, range: &KeyRange, now: DateTime<Utc>) -> Result<Vec<(Key, bool)>> {
        let rows = self.query(
            "SELECT key, coalesce(expires <= $3, false) FROM kv WHERE key >= $1 AND key < $2 ORDER BY key",
            &[&range.start.as_bytes(), &range.end_text().as_bytes(), &now],
        )?;
        rows.iter().map(|row| Ok((Key::stored(text(column(row, 0)?)?), column(row, 1)?))).collect()
    }

    fn expired(&mut self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Key>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.query("SELECT key FROM kv WHERE expires <= $1 ORDER BY key LIMIT $2", &[&now, &limit])?;
        rows.iter().map(|row| Ok(Key::stored(text(column(row, 0)?)?))).collect()
    }

    fn next_expiry(&mut self) -> Result<Option<DateTime<Utc>>> {
        let rows = self.query("SELECT min(expires) FROM kv", &[])?;
        rows.first().map_or(Ok(None), |row| column(row, 0))
    }
}

fn read_item(row: &Row) -> Result<Item> {
    Ok(item(Key::stored(text(column(row, 0)?)?), column(row, 1)?, column(row, 2)?, column(row, 3)?))
}

fn item(key: Key, value: Vec<u8>, expires: Option<DateTime<Utc>>, revision: Option<Uuid>) -> Item {
    let revision = revision.map_or_else(|| NO_REVISION.to_owned(), |revision| revision.to_string());
    Item { key, value: Bytes::from(value), expires, revision }
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at)
        .map_err(|error| BackendError::Storage(format!("the database has another form than expected: {error}")))
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| BackendError::Storage("a key in the database is not text".to_owned()))
}

fn uuid(revision: &str) -> Result<Uuid> {
    revision.parse().map_err(|_| BackendError::Storage(format!("revision {revision:?} is no UUID")))
}

#[cfg(test)]
mod tests;
