//! A PostgreSQL server for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::PostgresOptions;

/// A server of the machine's PostgreSQL in a temporary folder, for all tests of this process.
pub struct PostgresServer {
    folder: PathBuf,
    made: AtomicU32,
    /// The server and its folder go when this is closed, however this process ends.
    _leash: Child,
}

static SERVER: LazyLock<Option<PostgresServer>> = LazyLock::new(PostgresServer::start);

/// Runs a server until standard input ends, then removes its folder.
const ON_LEASH: &str = r#"
    "$1/initdb" -D "$2/data" -U teleport -A trust -E UTF8 -N >/dev/null 2>&1
    "$1/postgres" -D "$2/data" -k "$2" -h "" -F -c max_connections=400 >/dev/null 2>&1 &
    cat >/dev/null; kill -QUIT $!; wait; rm -rf "$2"
"#;

/// Debian keeps the server's programs away from the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|e| e.path().join("bin"));
    versions.into_iter().find(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
}

impl PostgresServer {
    /// The server of this process; `None` where PostgreSQL is not installed.
    pub fn get() -> Option<&'static Self> {
        SERVER.as_ref()
    }

    fn start() -> Option<Self> {
        let programs = programs()?;
        let folder = TempDir::new().unwrap().keep();
        let mut command = Command::new("sh");
        if nix::unistd::geteuid().is_root() {
            // The server refuses to run as root.
            let user = nix::unistd::User::from_name("postgres").ok()??;
            nix::unistd::chown(&folder, Some(user.uid), Some(user.gid)).unwrap();
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
        }
        command.args(["-c", ON_LEASH, "server"]).arg(programs).arg(&folder).current_dir("/");
        let leash = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { folder, made: AtomicU32::new(0), _leash: leash })
    }

    fn options(&self, database: &str) -> PostgresOptions {
        Self::options_at(&self.folder, database)
    }

    fn options_at(folder: &Path, database: &str) -> PostgresOptions {
        let folder = folder.display().to_string().replace('/', "%2F");
        PostgresOptions::parse(&format!("postgresql:///{database}?host={folder}&user=teleport")).unwrap()
    }

    /// A new, empty database.
    pub async fn database(&self) -> PostgresOptions {
        let name = self.make_database().await;
        self.options(&name)
    }

    /// A new, empty database behind something that can lose answers.
    pub async fn database_behind(&self, lossy: &Lossy) -> (PostgresOptions, PostgresOptions) {
        let name = self.make_database().await;
        lossy.start(self.folder.join(SOCKET));
        (Self::options_at(lossy.folder.path(), &name), self.options(&name))
    }

    async fn make_database(&self) -> String {
        let name = format!("test{}", self.made.fetch_add(1, Ordering::Relaxed));
        let deadline = Instant::now() + Duration::from_secs(30);
        let client = loop {
            match self.options("postgres").connect().await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        name
    }
}

/// The name of the server's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// Stands between a client and the server, and can lose the answer to a commit with the connection.
pub struct Lossy {
    folder: TempDir,
    loses: Arc<AtomicBool>,
}

impl Default for Lossy {
    fn default() -> Self {
        Self::new()
    }
}

impl Lossy {
    /// One that loses nothing yet.
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), loses: Arc::default() }
    }

    /// Loses the answer to the next commit.
    pub fn lose_next_answer(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    fn start(&self, server: PathBuf) {
        let (listener, loses) = (UnixListener::bind(self.folder.path().join(SOCKET)).unwrap(), self.loses.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, UnixStream::connect(&server).await.unwrap(), loses.clone()));
            }
        });
    }
}

async fn relay(client: UnixStream, server: UnixStream, loses: Arc<AtomicBool>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            count = from_client.read(&mut asked) => {
                let Ok(count @ 1..) = count else { return };
                to_server.write_all(&asked[..count]).await.unwrap();
                let commits = asked[..count].windows(6).any(|word| word == b"COMMIT");
                if commits && loses.swap(false, Ordering::SeqCst) {
                    // Done, but nobody hears of it.
                    let _ = from_server.read(&mut answered).await;
                    return;
                }
            }
            count = from_server.read(&mut answered) => {
                let Ok(count @ 1..) = count else { return };
                if to_client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
