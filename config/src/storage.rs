//! Section `teleport.storage`: where the Auth Service keeps its state and the audit log.

use std::{path::PathBuf, time::Duration};

use crate::{
    Secret,
    later::{self, Shape},
    section::{Section, choices, nearest, one_of},
};

/// Where state and audit log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Where the state is.
    pub state: StateStorage,
    /// Where audit events go; empty: files below the data directory. An address may hold a password.
    pub audit_events_uris: Vec<Secret>,
    /// Where session recordings go; `None`: files below the data directory. The address may hold a password.
    pub audit_sessions_uri: Option<Secret>,
    /// How long audit events are kept, above zero; `None`: for ever.
    pub audit_retention: Option<Duration>,
    /// How long session recordings in files are kept, above zero; `None`: for ever.
    pub recordings_retention: Option<Duration>,
}

/// Where the state of the cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateStorage {
    /// A SQLite database on this machine.
    Sqlite(SqliteStorage),
    /// A PostgreSQL database, which several Auth Services may share. The address may hold a password.
    Postgres(Secret),
    /// An etcd cluster, which several Auth Services may share.
    Etcd(EtcdStorage),
    /// The memory of this process; gone when it ends.
    Memory,
}

/// A SQLite database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteStorage {
    /// Directory of the database; `None`: `backend` below the data directory.
    pub path: Option<PathBuf>,
    /// When a write counts as done.
    pub sync: SqliteSync,
    /// How transactions are kept; `None`: the built-in choice.
    pub journal: Option<SqliteJournal>,
    /// How long another process may keep it locked.
    pub busy_timeout: Duration,
    /// How many events may wait for a watcher.
    pub buffer_size: usize,
}

/// An etcd cluster. The storage engine has a type with the same fields; whoever only reads a file needs no engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdStorage {
    /// Addresses of its members, with `https://` or `http://` in front.
    pub peers: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// File with the authorities of the members; `None`: those of this machine.
    pub tls_ca_file: Option<PathBuf>,
    /// File with the certificate that is shown.
    pub tls_cert_file: Option<PathBuf>,
    /// File with its key.
    pub tls_key_file: Option<PathBuf>,
    /// The name to log in with.
    pub username: Option<String>,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// How long connecting may take; `None`: the built-in choice.
    pub dial_timeout: Option<Duration>,
}

choices! {
    /// When SQLite waits for the disk.
    SqliteSync {
        Off = "OFF",
        Normal = "NORMAL",
        Full = "FULL",
        Extra = "EXTRA",
    }
}

choices! {
    /// SQLite's journal.
    SqliteJournal {
        Wal = "WAL",
        Delete = "DELETE",
        Truncate = "TRUNCATE",
        Persist = "PERSIST",
        Memory = "MEMORY",
        Off = "OFF",
    }
}

const TYPES: &[&str] =
    &["sqlite", "dir", "etcd", "dynamodb", "firestore", "postgresql", "postgres", "cockroachdb", "in-memory"];

pub(crate) fn read(section: &Section<'_>) -> Storage {
    let state = read_state(section);
    later::check(section, AUDIT_KEYS);
    Storage {
        state,
        audit_events_uris: section.one_or_more_texts("audit_events_uri").into_iter().map(Secret::new).collect(),
        audit_sessions_uri: section.text("audit_sessions_uri").map(Secret::new),
        audit_retention: retention(section, "retention_period"),
        recordings_retention: retention(section, "recordings_retention_period"),
    }
}

/// How long something is kept. Zero is what other settings call "the default": nobody means that all is to be removed.
fn retention<'a>(section: &Section<'a>, key: &'a str) -> Option<Duration> {
    section.duration(key).filter(|time| !time.is_zero())
}

/// Where the state is, of a section that may say more.
pub(crate) fn read_state(section: &Section<'_>) -> StateStorage {
    let kind = section.text("type").unwrap_or_else(|| "sqlite".to_owned());
    match kind.as_str() {
        "sqlite" | "dir" => StateStorage::Sqlite(read_sqlite(section)),
        "in-memory" => StateStorage::Memory,
        "postgresql" | "postgres" => read_postgres(section),
        "etcd" => StateStorage::Etcd(read_etcd(section)),
        other => {
            match keys_of(other) {
                Some(keys) => {
                    later::check(section, keys);
                    section.reject("type", format!("storage type {other} is not part of this build yet"));
                }
                None => {
                    let hint = match nearest(other, TYPES) {
                        Some(known) => format!("did you mean {known:?}?"),
                        None => format!("expected {}", one_of(TYPES)),
                    };
                    section.reject("type", format!("unknown storage type {other:?}, {hint}"));
                    section.entries().for_each(drop);
                }
            }
            StateStorage::Memory
        }
    }
}

/// How others tell of their changes is this build's own affair, so there is nothing to set about it.
fn read_postgres(section: &Section<'_>) -> StateStorage {
    later::check(section, CHANGE_FEED);
    if let Some(mode) = section.text("auth_mode").filter(|mode| !mode.is_empty()) {
        section.reject(
            "auth_mode",
            format!("auth_mode {mode} is not part of this build yet, use a password or certificate"),
        );
    }
    let address = section.text("conn_string").unwrap_or_default();
    if address.is_empty() {
        section.reject("conn_string", "missing, expected postgresql://user@host/database");
    }
    StateStorage::Postgres(Secret::new(address))
}

/// What all keys in etcd begin with when the file does not say.
const ETCD_PREFIX: &str = "/teleport/";

/// Without TLS the keys of all authorities would cross the network in the clear.
fn read_etcd(section: &Section<'_>) -> EtcdStorage {
    later::check(section, ETCD_TUNING);
    let insecure = section.flag("insecure").unwrap_or(false);
    let peers = section.texts("peers");
    if peers.is_empty() {
        section.reject("peers", "missing, expected addresses such as https://etcd-1.example.test:2379");
    }
    for peer in &peers {
        let here = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"].iter().any(|own| peer.starts_with(own));
        if !peer.starts_with("https://") && !peer.starts_with("http://") {
            section.reject("peers", format!("expected https://host:port, found {peer:?}"));
        } else if peer.starts_with("http://") && !here && !insecure {
            section.reject(
                "peers",
                format!("{peer:?} is another machine and has no TLS: use https://, or set insecure: yes"),
            );
        }
    }
    if insecure && peers.iter().any(|peer| peer.starts_with("https://")) {
        section.reject("insecure", "certificates of etcd are always verified, set tls_ca_file instead");
    }
    let storage = EtcdStorage {
        peers,
        prefix: prefix(&section.text("prefix").unwrap_or_else(|| ETCD_PREFIX.to_owned())),
        tls_ca_file: section.path("tls_ca_file"),
        tls_cert_file: section.path("tls_cert_file"),
        tls_key_file: section.path("tls_key_file"),
        username: section.text("username").filter(|name| !name.is_empty()),
        password_file: section.path("password_file"),
        dial_timeout: section.duration("dial_timeout"),
    };
    if storage.tls_cert_file.is_some() != storage.tls_key_file.is_some() {
        section.reject("tls_cert_file", "tls_cert_file and tls_key_file go together");
    }
    if storage.password_file.is_some() && storage.username.is_none() {
        section.reject("password_file", "username is missing");
    }
    storage
}

/// Keys of one cluster must not begin like those of another.
fn prefix(text: &str) -> String {
    if text.ends_with('/') { text.to_owned() } else { format!("{text}/") }
}

const ETCD_TUNING: &[(&str, Shape)] = &[
    ("etcd_max_client_msg_size_bytes", Shape::Number),
    ("client_pool_size", Shape::Number),
    ("buffer_size", Shape::Number),
];

const CHANGE_FEED: &[(&str, Shape)] = &[
    ("change_feed_conn_string", Shape::Any),
    ("change_feed_poll_interval", Shape::Duration),
    ("change_feed_batch_size", Shape::Number),
    ("disable_expiry", Shape::Flag),
    ("expiry_interval", Shape::Duration),
    ("expiry_batch_size", Shape::Number),
    ("gcp_connection_name", Shape::Text),
    ("gcp_ip_type", Shape::Text),
];

fn read_sqlite(section: &Section<'_>) -> SqliteStorage {
    section.ignore("poll_stream_period");
    section.ignore("events_off");
    let busy_timeout =
        section.parsed("busy_timeout", "a number of milliseconds", |text| text.parse().ok().map(Duration::from_millis));
    SqliteStorage {
        path: section.path("path"),
        sync: section.choice("sync").unwrap_or(SqliteSync::Full),
        journal: section.choice("journal"),
        busy_timeout: busy_timeout.unwrap_or(Duration::from_secs(10)),
        buffer_size: section.number("buffer_size").unwrap_or(1024),
    }
}

const AUDIT_KEYS: &[(&str, Shape)] = &[
    ("region", Shape::Text),
    ("auto_scaling", Shape::Flag),
    ("read_min_capacity", Shape::Number),
    ("read_max_capacity", Shape::Number),
    ("read_target_value", Shape::Any),
    ("write_min_capacity", Shape::Number),
    ("write_max_capacity", Shape::Number),
    ("write_target_value", Shape::Any),
    ("use_fips_endpoint", Shape::Flag),
];

fn keys_of(kind: &str) -> Option<&'static [(&'static str, Shape)]> {
    match kind {
        "dynamodb" => Some(&[
            ("table_name", Shape::Text),
            ("access_key", Shape::Text),
            ("secret_key", Shape::Text),
            ("billing_mode", Shape::Text),
            ("read_capacity_units", Shape::Number),
            ("write_capacity_units", Shape::Number),
            ("continuous_backups", Shape::Flag),
            ("retry_period", Shape::Duration),
            ("poll_stream_period", Shape::Duration),
            ("buffer_size", Shape::Number),
        ]),
        "firestore" => Some(&[
            ("credentials_path", Shape::Text),
            ("project_id", Shape::Text),
            ("collection_name", Shape::Text),
            ("purge_expired_documents_poll_interval", Shape::Duration),
            ("retry_period", Shape::Duration),
            ("disable_expired_document_purge", Shape::Flag),
            ("endpoint", Shape::Text),
            ("buffer_size", Shape::Number),
            ("limit_watch_query", Shape::Flag),
        ]),
        "cockroachdb" => Some(&[
            ("conn_string", Shape::Text),
            ("change_feed_conn_string", Shape::Text),
            ("change_feed_poll_interval", Shape::Duration),
            ("change_feed_batch_size", Shape::Number),
            ("disable_expiry", Shape::Flag),
            ("expiry_interval", Shape::Duration),
            ("expiry_batch_size", Shape::Number),
            ("auth_mode", Shape::Text),
            ("gcp_connection_name", Shape::Text),
            ("gcp_ip_type", Shape::Text),
        ]),
        _ => None,
    }
}
