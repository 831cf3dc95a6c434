//! Servers of storage engines, as Debian has them, in temporary folders.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, chown, geteuid};
use serde_json::{Value, json};

use crate::daemon::READY;
use crate::waiting::wait_for;

/// A server of PostgreSQL or etcd for one test. It goes when this is dropped, however this process ends.
pub struct Database {
    storage: Value,
    // Dropping it closes the input on which the server's life hangs.
    _leash: Child,
}

/// Runs PostgreSQL until standard input ends, then removes its folder.
const POSTGRES: &str = r#"
    "$1/initdb" -D "$2/data" -U teleport -A trust -E UTF8 -N >/dev/null 2>&1
    "$1/postgres" -D "$2/data" -k "$2" -h "" -F >/dev/null 2>&1 &
    cat >/dev/null; kill -QUIT $!; wait; rm -rf "$2"
"#;

/// The same for etcd.
const ETCD: &str = r#"
    etcd --data-dir "$1" --listen-client-urls "$2" --advertise-client-urls "$2" --listen-peer-urls "$3" \
        --initial-advertise-peer-urls "$3" --initial-cluster "default=$3" --unsafe-no-fsync >/dev/null 2>&1 &
    cat >/dev/null; kill -KILL $!; wait; rm -rf "$1"
"#;

impl Database {
    /// A PostgreSQL server; `None` where it is not installed.
    pub fn postgres() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let programs = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("postgres").is_file());
        let Some(programs) = programs else { return lacks("PostgreSQL") };
        let folder = kept_folder();
        let mut command = Command::new("sh");
        if geteuid().is_root() {
            // The server refuses to run as root.
            let user = User::from_name("postgres").ok()??;
            chown(&folder, Some(user.uid), Some(user.gid)).expect("give the folder to the server");
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
        }
        command.args(["-c", POSTGRES, "server"]).arg(&programs).arg(&folder);
        let host = folder.display().to_string().replace('/', "%2F");
        let address = format!("postgresql:///postgres?host={host}&user=teleport");
        let storage = json!({ "type": "postgresql", "conn_string": address });
        let database = Self { storage, _leash: leash(&mut command) };
        wait_for("PostgreSQL", READY, || {
            let asked = Command::new(programs.join("pg_isready")).arg("-h").arg(&folder).output().expect("ask it");
            if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&asked.stdout).into_owned()) }
        });
        Some(database)
    }

    /// An etcd server; `None` where it is not installed.
    pub fn etcd() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            return lacks("etcd");
        }
        let free = || format!("http://{}", TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it"));
        let (folder, address) = (kept_folder(), free());
        let mut command = Command::new("sh");
        command.args(["-c", ETCD, "server"]).arg(folder).arg(&address).arg(free());
        let storage = json!({ "type": "etcd", "peers": [address], "prefix": "/e2e" });
        let database = Self { storage, _leash: leash(&mut command) };
        let socket = address.trim_start_matches("http://");
        wait_for("etcd", READY, || TcpStream::connect(socket).map(drop));
        Some(database)
    }

    /// What stands in `teleport.storage`.
    pub fn storage(&self) -> &Value {
        &self.storage
    }
}

/// What a test gets that needs a program which is not installed; where everything has to be there, it fails.
///
/// # Panics
/// When `TESTS_COMPLETE` is set, as `check` does.
#[track_caller]
pub fn lacks<T>(program: &str) -> Option<T> {
    assert!(std::env::var_os("TESTS_COMPLETE").is_none(), "{program} is missing: tests/setup --all installs it");
    eprintln!("skipped: {program} is missing");
    None
}

fn kept_folder() -> PathBuf {
    tempfile::tempdir().expect("make a temporary folder").keep()
}

fn leash(command: &mut Command) -> Child {
    let command = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("start a server")
}
