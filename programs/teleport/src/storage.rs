//! Where the Auth Service of this process keeps its state, its audit log and its recordings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit::{Lines, PostgresLogOptions, Sink};
use auth_service::AuthConfig;
use backend::{
    Backend, Etcd, EtcdOptions, Journal, Memory, Postgres, PostgresOptions, Sqlite, SqliteOptions, Synchronous,
};
use config::{Config, EtcdStorage, Secret, SqliteStorage, StateStorage};
use recording::ObjectLocation;
use tracing::warn;

use crate::error::{Failure, Result};

/// What is wrong with a `file://` address of another host.
const NOT_LOCAL: &str = "file:// with the name of a host, expected file:///folder";

/// Kinds of audit storage that others have and this build does not.
const LATER: [&str; 4] = ["athena", "dynamodb", "firestore", "https"];

/// Opens what the file says, and tells the Auth Service where things go.
pub async fn configure(config: &Config, settings: &mut AuthConfig) -> Result<Arc<dyn Backend>> {
    let storage = &config.global.storage;
    let backend = state(config).await?;
    settings.backend = Some(backend.clone());
    settings.audit_retention = storage.audit_retention;
    settings.recordings_retention = storage.recordings_retention;
    for uri in &storage.audit_events_uris {
        match sink(uri.expose())? {
            Place::Folder(folder) if settings.audit_folder.is_none() => settings.audit_folder = Some(folder),
            Place::Folder(_) => return Err(wrong("audit_events_uri", "expected one file:// address at most")),
            Place::Database(options) if settings.audit_database.is_none() => settings.audit_database = Some(*options),
            Place::Database(_) => return Err(wrong("audit_events_uri", "expected one postgresql:// address at most")),
            Place::Sink(sink) => settings.audit_sinks.push(sink),
        }
    }
    if let Some(uri) = storage.audit_sessions_uri.as_ref().map(Secret::expose).filter(|uri| !uri.is_empty()) {
        match recordings(uri)? {
            Recordings::Folder(folder) => settings.recordings_folder = Some(folder),
            Recordings::Objects(location) => settings.recordings_objects = Some(location),
        }
    }
    Ok(backend)
}

async fn state(config: &Config) -> Result<Arc<dyn Backend>> {
    open(&config.global.storage.state, &config.backend_dir()).await
}

/// Opens a storage; `folder` is where a database of this machine lies when the file does not say.
pub async fn open(storage: &StateStorage, folder: &Path) -> Result<Arc<dyn Backend>> {
    Ok(match storage {
        StateStorage::Sqlite(sqlite) => {
            let folder = sqlite.path.as_deref().unwrap_or(folder);
            Arc::new(Sqlite::open(options(folder, sqlite)?).await?)
        }
        StateStorage::Postgres(address) => Arc::new(Postgres::open(PostgresOptions::parse(address.expose())?).await?),
        StateStorage::Etcd(storage) => Arc::new(Etcd::open(etcd(storage)).await?),
        StateStorage::Memory => {
            warn!("the state of the cluster is in memory: it is gone when this process ends");
            Arc::new(Memory::new())
        }
    })
}

fn etcd(storage: &EtcdStorage) -> EtcdOptions {
    EtcdOptions {
        peers: storage.peers.clone(),
        prefix: storage.prefix.clone(),
        tls_ca_file: storage.tls_ca_file.clone(),
        tls_cert_file: storage.tls_cert_file.clone(),
        tls_key_file: storage.tls_key_file.clone(),
        username: storage.username.clone(),
        password_file: storage.password_file.clone(),
        dial_timeout: storage.dial_timeout,
    }
}

fn options(path: &Path, storage: &SqliteStorage) -> Result<SqliteOptions> {
    let mut options = SqliteOptions::new(path);
    options.sync = storage.sync.as_str().parse::<Synchronous>()?;
    if options.sync != Synchronous::Full && options.sync != Synchronous::Extra {
        warn!("storage.sync: a failure of the machine may lose what users were told is stored");
    }
    if let Some(journal) = storage.journal {
        options.journal = journal.as_str().parse::<Journal>()?;
    }
    options.busy_timeout = storage.busy_timeout;
    Ok(options)
}

/// Where audit events go.
enum Place {
    /// Daily files in this folder.
    Folder(PathBuf),
    /// A database, in which events are searched.
    Database(Box<PostgresLogOptions>),
    /// Somewhere besides.
    Sink(Arc<dyn Sink>),
}

fn sink(uri: &str) -> Result<Place> {
    match split(uri) {
        ("file", path) => Ok(Place::Folder(local(path).ok_or_else(|| wrong("audit_events_uri", NOT_LOCAL))?)),
        ("stdout", _) => Ok(Place::Sink(Arc::new(Lines::stdout()))),
        ("postgresql" | "postgres", _) => match PostgresLogOptions::parse(uri) {
            Ok(options) => Ok(Place::Database(Box::new(options))),
            Err(error) => Err(wrong("audit_events_uri", &error.to_string())),
        },
        (scheme, _) if LATER.contains(&scheme) => Err(later("audit_events_uri", scheme)),
        _ => Err(unknown("audit_events_uri", uri, "file:///folder, postgresql:// or stdout://")),
    }
}

/// Where recordings are kept.
#[derive(Debug, PartialEq, Eq)]
enum Recordings {
    /// In this folder.
    Folder(PathBuf),
    /// In an object store.
    Objects(ObjectLocation),
}

fn recordings(uri: &str) -> Result<Recordings> {
    let key = "audit_sessions_uri";
    match split(uri) {
        ("file", path) => local(path).map(Recordings::Folder).ok_or_else(|| wrong(key, NOT_LOCAL)),
        (scheme, _) if ObjectLocation::SCHEMES.contains(&scheme) => {
            ObjectLocation::parse(uri).map(Recordings::Objects).map_err(|error| wrong(key, &error.to_string()))
        }
        _ => Err(unknown(key, uri, "file:///folder, s3://, gs:// or azblob://")),
    }
}

fn split(uri: &str) -> (&str, &str) {
    uri.split_once("://").unwrap_or((uri, ""))
}

/// The path of a `file://` address, whose host may be this one.
fn local(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix("localhost").unwrap_or(path);
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn later(key: &str, scheme: &str) -> Failure {
    Failure(format!("teleport.storage.{key}: {scheme}:// is not part of this build yet"))
}

/// An address of another kind. What follows its scheme may hold a password and is not shown.
fn unknown(key: &str, uri: &str, expected: &str) -> Failure {
    let is_scheme =
        |text: &&str| text.len() <= 32 && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let found = match uri.split_once("://").map(|(scheme, _)| scheme).filter(is_scheme) {
        Some(scheme) => format!("found {scheme}://"),
        None => "found no scheme".to_owned(),
    };
    wrong(key, &format!("expected {expected}, {found}"))
}

fn wrong(key: &str, what: &str) -> Failure {
    Failure(format!("teleport.storage.{key}: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_of_audit_storage_are_understood_or_refused_by_name() {
        assert!(matches!(sink("file:///var/log/x").unwrap(), Place::Folder(path) if path == Path::new("/var/log/x")));
        assert!(matches!(sink("file://localhost/x").unwrap(), Place::Folder(_)));
        assert!(matches!(sink("stdout://").unwrap(), Place::Sink(_)));
        assert!(matches!(sink("postgresql://me@localhost/audit").unwrap(), Place::Database(_)));
        for (uri, word) in
            [("dynamodb://t", "dynamodb"), ("athena://a.b", "athena"), ("file://x/y", "file"), ("x", "no scheme")]
        {
            let said = sink(uri).err().unwrap().to_string();
            assert!(said.contains("audit_events_uri") && said.contains(word), "{said}");
        }
        for uri in ["postgressql://me:hunter2@db/audit", "postgresql:/me:hunter2@db/audit", "me:hunter2@db://x"] {
            for said in [sink(uri).err().unwrap().to_string(), recordings(uri).unwrap_err().to_string()] {
                assert!(!said.contains("hunter2") && said.contains("expected file:///folder"), "{said}");
            }
        }
        assert!(sink("postgressql://me@db").err().unwrap().to_string().contains("postgressql://"));
        assert_eq!(recordings("file:///r").unwrap(), Recordings::Folder("/r".into()));
        assert!(matches!(recordings("s3://bucket/path").unwrap(), Recordings::Objects(_)));
        let said = recordings("s3://bucket?regoin=x").unwrap_err().to_string();
        assert!(said.contains("audit_sessions_uri") && said.contains("regoin"), "{said}");
    }
}
