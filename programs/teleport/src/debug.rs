//! The debug service: what the administrator of this host asks of a running process, over HTTP on a Unix socket in the
//! data directory; and the other end of it, `teleport debug`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use config::Severity;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::error::{Failure, Result};
use crate::logging::LogLevel;

/// The socket's name in the data directory.
const SOCKET: &str = "debug.sock";
/// Where the severity of the log is read and set.
const LOG_LEVEL: &str = "/log-level";
/// Longest body of a request, in bytes: the name of a severity.
const MAX_REQUEST: usize = 64;
/// Longest answer taken from a process, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How long a process may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Opens the socket and answers on it for as long as the process runs. Trouble is reported and stops nothing else.
pub fn serve(data_dir: &Path, level: LogLevel) {
    let listener = match listen(data_dir) {
        Ok(listener) => listener,
        Err(error) => {
            let socket = data_dir.join(SOCKET);
            return warn!(socket = %socket.display(), %error, "the debug service is not available");
        }
    };
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(level)).await {
            warn!(%error, "the debug service ended");
        }
    });
}

/// A socket for its owner only. It gets its name when it has its permissions, and takes the place of one that an earlier
/// process left behind.
fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let draft = data_dir.join(format!(".{SOCKET}.{}", std::process::id()));
    remove_if_there(&draft)?;
    let listener = UnixListener::bind(&draft)?;
    let placed = fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&draft, data_dir.join(SOCKET)));
    match placed {
        Ok(()) => Ok(listener),
        Err(error) => {
            remove_if_there(&draft)?;
            Err(error)
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn router(level: LogLevel) -> Router {
    Router::new()
        .route(LOG_LEVEL, get(read_level).put(write_level))
        .route("/debug/pprof/{profile}", get(profile))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(level)
}

async fn read_level(State(level): State<LogLevel>) -> String {
    level.get().to_string()
}

async fn write_level(State(level): State<LogLevel>, name: String) -> Response {
    let severity = match Severity::parse(name.trim()) {
        Ok(severity) => severity,
        Err(expected) => return (StatusCode::UNPROCESSABLE_ENTITY, format!("log level: {expected}")).into_response(),
    };
    let before = level.get();
    if let Err(error) = level.set(severity) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    info!(%before, now = %severity, "the severity of the log was changed");
    format!("Changed log level from {before} to {severity}.").into_response()
}

async fn profile() -> Response {
    (StatusCode::NOT_IMPLEMENTED, "profiles are not part of this build, use perf(1) on the process").into_response()
}

/// The process whose data lies in a directory, as `teleport debug` reaches it.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The process of this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { socket: data_dir.join(SOCKET) }
    }

    /// The severity down to which the process logs.
    ///
    /// # Errors
    /// When the process cannot be asked.
    pub fn log_level(&self) -> Result<String> {
        self.ask(Method::GET, LOG_LEVEL, "")
    }

    /// Has the process log down to this severity; what it says about that.
    ///
    /// # Errors
    /// When the process cannot be asked, and its words when it refuses.
    pub fn set_log_level(&self, severity: Severity) -> Result<String> {
        self.ask(Method::PUT, LOG_LEVEL, severity.as_str())
    }

    fn ask(&self, method: Method, path: &str, body: &str) -> Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exchange = runtime.block_on(async { timeout(LIMIT, self.exchange(method, path, body)).await });
        exchange.map_err(|_| Failure(format!("{}: waited 10 s for an answer", self.socket.display())))?
    }

    async fn exchange(&self, method: Method, path: &str, body: &str) -> Result<String> {
        let failed = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", self.socket.display()));
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure(format!(
                "no process with a debug service answers at {}: is teleport running with this configuration?",
                self.socket.display()
            )),
            _ => failed(&error),
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.body(Body::from(body.to_owned())).map_err(|e| failed(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = answer.status();
        let bytes = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await.map_err(|e| failed(&e))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() { Ok(text) } else { Err(Failure(text)) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ask(folder: &Path, work: impl FnOnce(Client) -> Result<String> + Send + 'static) -> Result<String> {
        let client = Client::new(folder);
        std::thread::spawn(move || work(client)).join().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_severity_is_read_and_set_over_a_socket_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SOCKET), "left behind").unwrap();
        serve(folder.path(), LogLevel::unconnected(Severity::Info));
        let mode = fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ask(folder.path(), |c| c.log_level()).unwrap(), "INFO");
        let said = ask(folder.path(), |c| c.set_log_level(Severity::Debug)).unwrap();
        assert_eq!(said, "Changed log level from INFO to DEBUG.");
        assert_eq!(ask(folder.path(), |c| c.log_level()).unwrap(), "DEBUG");
        let said = ask(folder.path(), |c| c.ask(Method::PUT, LOG_LEVEL, "LOUD")).unwrap_err().to_string();
        assert!(said.contains("LOUD") && said.contains("WARN"), "{said}");
        let said = ask(folder.path(), |c| c.ask(Method::GET, "/debug/pprof/heap", "")).unwrap_err().to_string();
        assert!(said.contains("not part of this build"), "{said}");
    }

    #[test]
    fn a_process_that_does_not_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let said = Client::new(folder.path()).log_level().unwrap_err().to_string();
        assert!(said.contains("debug.sock") && said.contains("running"), "{said}");
    }
}
