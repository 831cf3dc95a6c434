//! Protocols of services that this build does not have.
//!
//! Their names and ports are taken, so that a configuration and a client of the whole product find them; each client
//! is told in its own protocol that the service is missing, instead of hanging or reading a reset.

mod mongo;
mod mysql;
mod postgres;

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub(crate) use postgres::{Answer as PostgresAnswer, first_answer as postgres_first_answer};

/// What every client of a database is told.
const DATABASES: &str = "database access is not part of this build yet";
/// How long a client may take to say something, and to read its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read of a client's first message before it is answered, and of what it says afterwards.
const MOST_READ: usize = 64 * 1024;

/// The language in which a client of a database expects its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// PostgreSQL and what speaks like it.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// MongoDB.
    Mongo,
    /// Redis.
    Redis,
    /// Databases with an HTTP interface.
    Http,
    /// Databases whose protocol has no message for this: the connection is closed.
    Silent,
}

impl Database {
    /// The language behind an application protocol of the router's table, with or without pings.
    pub(crate) fn of_protocol(name: &str) -> Self {
        let name = name.strip_suffix(mux::alpn::PING_SUFFIX).unwrap_or(name);
        match name.strip_prefix("teleport-").unwrap_or(name) {
            "postgres" => Self::Postgres,
            "mysql" => Self::MySql,
            "mongodb" => Self::Mongo,
            "redis" => Self::Redis,
            "elasticsearch" | "opensearch" | "dynamodb" | "clickhouse" | "snowflake" => Self::Http,
            _ => Self::Silent,
        }
    }
}

/// Answers a client of a database and waits until it has read the answer. HTTP is served elsewhere.
pub(crate) async fn refuse<S>(database: Database, stream: &mut S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = match database {
        // This server speaks first.
        Database::MySql => Some(mysql::error(DATABASES)),
        Database::Postgres => postgres::refusal(stream, DATABASES).await,
        Database::Mongo => mongo::refusal(stream, DATABASES).await,
        Database::Redis => first_bytes(stream, 1).await.map(|_| format!("-ERR {DATABASES}\r\n").into_bytes()),
        Database::Http | Database::Silent => None,
    };
    if let Some(answer) = answer {
        farewell(stream, &answer).await;
    }
}

/// Every request for Kubernetes gets this: the object that its clients print.
pub(crate) fn kubernetes() -> Router {
    Router::new().fallback(async || {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Kubernetes access is not part of this build yet",
            "reason": "NotImplemented", "code": 501,
        });
        (StatusCode::NOT_IMPLEMENTED, Json(status)).into_response()
    })
}

/// Every request for a database with an HTTP interface, and for an application, gets this.
pub(crate) fn http(what: &'static str) -> Router {
    Router::new().fallback(async move || {
        (StatusCode::NOT_IMPLEMENTED, Json(json!({"error": {"message": what}}))).into_response()
    })
}

/// What clients of databases with an HTTP interface are told.
pub(crate) fn http_database() -> Router {
    http(DATABASES)
}

/// Reads exactly so many bytes in time.
async fn first_bytes<S: AsyncRead + Unpin>(stream: &mut S, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count.min(MOST_READ)];
    match timeout(PATIENCE, stream.read_exact(&mut bytes)).await {
        Ok(Ok(_)) => Some(bytes),
        _ => None,
    }
}

/// Says the last word. What the client still sends is read away for a moment: closing a socket with unread bytes
/// would reset the connection, and the client might never see the answer.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answer: &[u8]) {
    let said = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        let mut seen = 0;
        while seen < MOST_READ {
            match stream.read(&mut rest).await? {
                0 => break,
                count => seen += count,
            }
        }
        std::io::Result::Ok(())
    };
    let _ = timeout(PATIENCE, said).await; // the client may be gone
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::duplex;

    use super::*;

    async fn told(database: Database, question: &[u8]) -> Vec<u8> {
        let (mut near, mut far) = duplex(1 << 16);
        let answering = tokio::spawn(async move { refuse(database, &mut near).await });
        far.write_all(question).await.unwrap();
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        drop(far);
        answering.await.unwrap();
        answer
    }

    #[test]
    fn every_name_of_the_routing_table_has_its_language() {
        assert_eq!(Database::of_protocol("teleport-postgres-ping"), Database::Postgres);
        assert_eq!(Database::of_protocol("teleport-mongodb"), Database::Mongo);
        assert_eq!(Database::of_protocol("teleport-dynamodb-ping"), Database::Http);
        assert_eq!(Database::of_protocol("teleport-oracle"), Database::Silent);
    }

    #[tokio::test]
    async fn each_client_reads_an_error_in_its_own_protocol() {
        let redis = told(Database::Redis, b"*1\r\n$4\r\nPING\r\n").await;
        assert!(redis.starts_with(b"-ERR database access") && redis.ends_with(b"\r\n"));
        let mysql = told(Database::MySql, b"").await;
        assert_eq!((mysql[3], mysql[4]), (0, 0xff));
        let startup = [&[0, 0, 0, 9, 0, 3, 0, 0, 0][..]].concat();
        let postgres = told(Database::Postgres, &startup).await;
        assert_eq!(postgres[0], b'E');
        assert!(postgres.windows(5).any(|w| w == b"0A000"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_given_up() {
        let (mut near, _far) = duplex(64);
        refuse(Database::Redis, &mut near).await;
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection_and_nothing_else() {
        for database in [Database::Postgres, Database::Mongo] {
            for nonsense in [&[0xff; 64][..], &[0; 64], b"GET / HTTP/1.1\r\n\r\n0123456789"] {
                let (mut near, mut far) = duplex(1 << 16);
                far.write_all(nonsense).await.unwrap();
                drop(far);
                refuse(database, &mut near).await;
            }
        }
    }
}
