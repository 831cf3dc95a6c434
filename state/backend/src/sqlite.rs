//! State in one SQLite database.
//!
//! The database is in WAL mode: one connection writes, others read beside it what is committed. Table `kv`
//! holds the items; times are UTC in SQLite's own notation, so that they order as text.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use crate::{
    BackendError, Clock, Event, Item, Key, KeyRange, NO_REVISION, Result, SystemClock,
    local::{Local, Reader},
    store::{Foreign, Store},
};

/// Storage in a SQLite database.
pub type Sqlite = Local<SqliteReader>;

/// Name of the database in its directory.
const FILE: &str = "sqlite.db";

/// How many reads run at once.
const READERS: usize = 4;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS kv (
        key TEXT NOT NULL PRIMARY KEY,
        modified INTEGER NOT NULL,
        expires DATETIME,
        value BLOB,
        revision TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX IF NOT EXISTS kv_expires ON kv (expires);
";

/// Where the database is and how safe its writes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Directory of the database; created with mode 0700.
    pub path: PathBuf,
    /// When a write counts as done.
    pub sync: Synchronous,
    /// How a transaction is kept until it is complete.
    pub journal: Journal,
    /// How long to wait for another process that has the database locked.
    pub busy_timeout: Duration,
}

impl SqliteOptions {
    /// Durable writes to `sqlite.db` in the directory `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            sync: Synchronous::Full,
            journal: Journal::Wal,
            busy_timeout: Duration::from_secs(10),
        }
    }
}

/// When SQLite waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Never: a power failure may damage the database.
    Off,
    /// At checkpoints: a power failure may lose the last writes.
    Normal,
    /// At each commit.
    #[default]
    Full,
    /// At each commit, and for the directory too.
    Extra,
}

/// SQLite's journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// Write-ahead log: readers and the writer do not wait for each other.
    #[default]
    Wal,
    /// Rollback journal, deleted after each transaction.
    Delete,
    /// Rollback journal, truncated after each transaction.
    Truncate,
    /// Rollback journal, kept.
    Persist,
    /// Rollback journal in memory: a crash may damage the database.
    Memory,
    /// No journal: a crash will damage the database.
    Off,
}

impl Synchronous {
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Normal => "NORMAL",
            Self::Full => "FULL",
            Self::Extra => "EXTRA",
        }
    }
}

impl FromStr for Synchronous {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Off, Self::Normal, Self::Full, Self::Extra]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| bad_parameter("sync", text, "OFF, NORMAL, FULL or EXTRA"))
    }
}

impl Journal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "WAL",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Persist => "PERSIST",
            Self::Memory => "MEMORY",
            Self::Off => "OFF",
        }
    }
}

impl FromStr for Journal {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Wal, Self::Delete, Self::Truncate, Self::Persist, Self::Memory, Self::Off]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| bad_parameter("journal", text, "WAL, DELETE, TRUNCATE, PERSIST, MEMORY or OFF"))
    }
}

fn bad_parameter(name: &str, found: &str, expected: &str) -> BackendError {
    BackendError::BadParameter(format!("sqlite {name} is {found:?}, expected {expected}"))
}

impl Sqlite {
    /// Opens the database, creating it when it does not exist.
    ///
    /// # Errors
    /// `Storage` when the directory or the file cannot be used; `ConnectionProblem` when another process
    /// has it locked.
    pub async fn open(options: SqliteOptions) -> Result<Self> {
        Self::open_with_clock(options, Arc::new(SystemClock)).await
    }

    /// As [`open`](Self::open), by the given clock.
    pub async fn open_with_clock(options: SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let opening = tokio::task::spawn_blocking(move || {
            let file = prepare_file(&options.path)
                .map_err(|error| BackendError::Storage(format!("{}: {error}", options.path.display())))?;
            let store = SqliteStore { connection: open_writer(&file, &options)? };
            Ok::<_, BackendError>((store, SqliteReader::new(file, options.busy_timeout)))
        });
        let (store, reader) = opening.await.map_err(|error| BackendError::Storage(error.to_string()))??;
        Ok(Local::start(store, reader, clock))
    }
}

/// Creates the directory and the file so that only their owner can read them.
fn prepare_file(directory: &Path) -> std::io::Result<PathBuf> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(FILE);
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(path)
}

fn open_writer(file: &Path, options: &SqliteOptions) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    let known: bool =
        connection
            .query_row("SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'kv_expires'", [], |row| row.get(0))?;
    if known {
        connection.pragma_update(None, "journal_mode", options.journal.as_str())?;
    } else {
        create_schema(&connection, file, options.journal)?;
    }
    connection.pragma_update(None, "synchronous", options.sync.as_str())?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    Ok(connection)
}

/// Makes the tables of a new database and waits for the disk once instead of at every step.
fn create_schema(connection: &Connection, file: &Path, journal: Journal) -> Result<()> {
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
    connection.pragma_update(None, "journal_mode", journal.as_str())?;
    let sync = |path: &Path| fs::File::open(path)?.sync_all();
    sync(file)
        .and_then(|()| file.parent().map_or(Ok(()), sync))
        .map_err(|error| BackendError::Storage(format!("{}: {error}", file.display())))
}

struct SqliteStore {
    connection: Connection,
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<Foreign> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Foreign::default())
    }

    fn commit(&mut self, _: &[Event]) -> Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rolling back a transaction failed");
        }
    }

    fn get(&mut self, key: &Key) -> Result<Option<Item>> {
        select_one(&self.connection, key)
    }

    fn put(&mut self, item: &Item, now: DateTime<Utc>) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO kv (key, modified, expires, value, revision)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute(params![
            item.key.as_str(),
            now.timestamp_nanos_opt().unwrap_or(i64::MAX),
            item.expires.map(write_time),
            item.value.as_ref(),
            item.revision,
        ])?;
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM kv WHERE key = ?1")?.execute([key.as_str()])?;
        Ok(())
    }

    fn keys(&mut self, range: &KeyRange, now: DateTime<Utc>) -> Result<Vec<(Key, bool)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT key, expires IS NOT NULL AND expires <= ?3 FROM kv
             WHERE key >= ?1 AND key < ?2 ORDER BY key",
        )?;
        let rows = statement.query_map(params![range.start, range.end_text(), write_time(now)], |row| {
            Ok((Key::stored(row.get(0)?), row.get(1)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn expired(&mut self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Key>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT key FROM kv WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY key LIMIT ?2")?;
        let rows = statement.query_map(params![write_time(now), limit as i64], |row| Ok(Key::stored(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn next_expiry(&mut self) -> Result<Option<DateTime<Utc>>> {
        let mut statement = self.connection.prepare_cached("SELECT min(expires) FROM kv WHERE expires IS NOT NULL")?;
        let first: Option<String> = statement.query_row([], |row| row.get(0))?;
        first.as_deref().map(read_time).transpose()
    }
}

/// Reads beside the writer, each read on a connection of its own.
#[derive(Debug)]
pub struct SqliteReader {
    shared: Arc<Readers>,
    places: Semaphore,
}

#[derive(Debug)]
struct Readers {
    file: PathBuf,
    busy_timeout: Duration,
    idle: Mutex<Option<Vec<Connection>>>,
}

impl SqliteReader {
    fn new(file: PathBuf, busy_timeout: Duration) -> Self {
        let shared = Readers { file, busy_timeout, idle: Mutex::new(Some(Vec::new())) };
        Self { shared: Arc::new(shared), places: Semaphore::new(READERS) }
    }

    /// Runs a read where it may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _place = self.places.acquire().await.map_err(|_| BackendError::Closed)?;
        let readers = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            let connection = readers.take()?;
            let result = query(&connection);
            if result.is_ok() {
                readers.give_back(connection);
            }
            result
        });
        reading.await.map_err(|error| BackendError::Storage(error.to_string()))?
    }
}

impl Readers {
    fn take(&self) -> Result<Connection> {
        if let Some(connection) = self.idle.lock().as_mut().ok_or(BackendError::Closed)?.pop() {
            return Ok(connection);
        }
        // Also for reading a WAL database must be opened for writing: readers note themselves in shared memory.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -1024)?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        if let Some(idle) = self.idle.lock().as_mut() {
            idle.push(connection);
        }
    }
}

#[async_trait]
impl Reader for SqliteReader {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let key = key.clone();
        self.read(move |connection| select_one(connection, &key)).await
    }

    async fn range(&self, range: &KeyRange, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>> {
        let range = range.clone();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, value, expires, revision FROM kv
                 WHERE key >= ?1 AND key < ?2 AND (expires IS NULL OR expires > ?3)
                 ORDER BY key LIMIT ?4",
            )?;
            let mut rows = statement.query(params![range.start, range.end_text(), write_time(now), limit as i64])?;
            let mut items = Vec::new();
            while let Some(row) = rows.next()? {
                items.push(read_item(row)?);
            }
            Ok(items)
        })
        .await
    }

    fn close(&self) {
        self.shared.idle.lock().take();
    }
}

fn select_one(connection: &Connection, key: &Key) -> Result<Option<Item>> {
    let mut statement = connection.prepare_cached("SELECT key, value, expires, revision FROM kv WHERE key = ?1")?;
    statement.query_row([key.as_str()], |row| Ok(read_item(row))).optional()?.transpose()
}

fn read_item(row: &Row<'_>) -> Result<Item> {
    let value: Option<Vec<u8>> = row.get(1)?;
    let expires: Option<String> = row.get(2)?;
    let revision: String = row.get(3)?;
    Ok(Item {
        key: Key::stored(row.get(0)?),
        value: Bytes::from(value.unwrap_or_default()),
        expires: expires.as_deref().map(read_time).transpose()?,
        revision: if revision.is_empty() { NO_REVISION.to_owned() } else { revision },
    })
}

/// `2026-11-21 13:52:00.5+00:00`; orders as the time does, whatever the number of decimals.
fn write_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.f+00:00").to_string()
}

fn read_time(text: &str) -> Result<DateTime<Utc>> {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z")
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .map(|time| time.to_utc())
        .map_err(|_| BackendError::Storage(format!("time in the database is not valid: {text:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::{Backend, ManualClock, conformance::Fixture};

    async fn open(clock: ManualClock) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(directory.path().join("backend"));
        let backend = Sqlite::open_with_clock(options, Arc::new(clock.clone())).await.unwrap();
        Fixture::new(Arc::new(backend), clock).keep(directory)
    }

    crate::conformance_tests!(open);

    #[tokio::test]
    async fn state_survives_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(directory.path());
        let clock = ManualClock::default();
        let first = Sqlite::open(options.clone()).await.unwrap();
        let key = Key::root("/roles/dev/params");
        let expires = clock.now() + chrono::TimeDelta::nanoseconds(3_600_000_000_001);
        let revision = first.put(Item::new(key.clone(), "value").with_expires(expires)).await.unwrap();
        first.close().await;

        let second = Sqlite::open_with_clock(options, Arc::new(clock.clone())).await.unwrap();
        let item = second.get(&key).await.unwrap();
        assert_eq!((item.revision, item.expires), (revision, Some(expires)));
        let mut watcher = second.watch(crate::Watch::new("test", [])).await.unwrap();
        clock.advance(Duration::from_secs(7200));
        assert_eq!(watcher.recv().await.unwrap(), crate::Event::Init);
        assert_eq!(watcher.recv().await.unwrap().key(), Some(&key));
    }

    #[tokio::test]
    async fn only_the_owner_can_read_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/backend");
        let backend = Sqlite::open(SqliteOptions::new(&path)).await.unwrap();
        backend.put(Item::new(Key::root("/secret"), "x")).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[tokio::test]
    async fn rows_without_a_revision_read_as_the_nil_revision() {
        let directory = tempfile::tempdir().unwrap();
        let backend = Sqlite::open(SqliteOptions::new(directory.path())).await.unwrap();
        let key = Key::root("/old");
        backend.put(Item::new(key.clone(), "x")).await.unwrap();
        Connection::open(directory.path().join(FILE))
            .unwrap()
            .execute("UPDATE kv SET revision = '', expires = '2999-01-01 01:00:00+01:00'", [])
            .unwrap();
        let item = backend.get(&key).await.unwrap();
        assert_eq!(item.revision, NO_REVISION);
        assert_eq!(item.expires.unwrap().to_rfc3339(), "2999-01-01T00:00:00+00:00");
        backend.conditional_update(item).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_database_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "this is not a database, but a long text".repeat(99)).unwrap();
        let error = Sqlite::open(SqliteOptions::new(directory.path())).await.unwrap_err();
        assert!(matches!(error, BackendError::Storage(_)), "{error}");
    }

    #[test]
    fn times_order_as_text() {
        let base: DateTime<Utc> = "2026-11-21T13:52:00Z".parse().unwrap();
        let times = [0, 1, 500_000_000, 500_000_001, 550_000_000, 999_999_999, 1_000_000_000]
            .map(|nanos| base + chrono::TimeDelta::nanoseconds(nanos));
        let texts = times.map(write_time);
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[0], "2026-11-21 13:52:00+00:00");
        for (text, time) in texts.iter().zip(times) {
            assert_eq!(read_time(text).unwrap(), time);
        }
    }

    #[test]
    fn modes_are_read_as_sqlite_spells_them() {
        assert_eq!("full".parse::<Synchronous>().unwrap(), Synchronous::Full);
        assert_eq!("MEMORY".parse::<Journal>().unwrap(), Journal::Memory);
        assert!("sometimes".parse::<Synchronous>().is_err());
        assert!("".parse::<Journal>().is_err());
    }
}
