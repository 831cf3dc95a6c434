//! An object store that speaks S3, for recordings.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::ports::free_port;
use crate::waiting::wait_for;

/// How long the server may take to start.
const LIMIT: Duration = Duration::from_secs(60);
/// The bucket that is there.
const BUCKET: &str = "recordings";

/// A server on loopback that keeps objects in memory; ended by its id when dropped.
pub struct ObjectServer {
    process: Child,
    port: u16,
}

impl ObjectServer {
    /// What lets a process into every server of this kind.
    pub const CREDENTIALS: [(&'static str, &'static str); 2] =
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

    /// Starts the program that `MOTO_SERVER` names, or `moto_server` of the path; `None` where there is none.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let program = std::env::var_os("MOTO_SERVER").map_or_else(|| PathBuf::from("moto_server"), PathBuf::from);
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { process: command.spawn().ok()?, port };
        wait_for("the object store", LIMIT, || server.make_bucket());
        Some(server)
    }

    /// Settings of `teleport.storage` that keep recordings here.
    pub fn storage(&self) -> Value {
        let options = format!("endpoint=127.0.0.1:{}&insecure=true&disablesse=true", self.port);
        json!({ "audit_sessions_uri": format!("s3://{BUCKET}/teleport?{options}") })
    }

    /// Answers nobody until [`ObjectServer::resume`].
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends [`ObjectServer::pause`].
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("signal the object store");
    }

    fn make_bucket(&self) -> Result<(), String> {
        let failed = |e: std::io::Error| e.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
        let request = format!("PUT /{BUCKET} HTTP/1.1\r\nHost: s3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        if answer.contains("200 OK") { Ok(()) } else { Err(answer) }
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
