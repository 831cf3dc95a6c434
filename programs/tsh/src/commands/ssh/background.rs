//! `tsh ssh -f`: the session goes on in the background once it is authenticated.
//!
//! The program starts itself once more. The new process does everything, and says by a byte on its standard input, a
//! socket whose other end the old process holds, that the old one may end.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use client::{Error, Result};

/// Set for the process that goes to the background.
const VARIABLE: &str = "TSH_IN_BACKGROUND";
/// What it says when it does.
const READY: [u8; 1] = [1];

/// Whether this process is the one that goes to the background.
pub fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Keeps a command of this machine from taking itself for the one in the background, and from speaking for it.
pub fn keep_apart(command: &mut tokio::process::Command) {
    if is_child() {
        command.env_remove(VARIABLE).stdin(Stdio::null());
    }
}

/// Starts the process that goes to the background and waits until it has, or has failed.
pub async fn send() -> Result<i32> {
    let (mut near, far) = UnixStream::pair().map_err(Error::io("going to the background"))?;
    let program = std::env::current_exe().map_err(Error::io("finding this program"))?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::from(OwnedFd::from(far)))
        .spawn()
        .map_err(Error::io("going to the background"))?;
    let waiting = tokio::task::spawn_blocking(move || {
        let mut said = [0];
        match near.read(&mut said) {
            Ok(1) if said == READY => Ok(0),
            _ => child.wait().map(super::exit_code),
        }
    });
    let waited = waiting.await.map_err(|error| Error::other(format!("going to the background: {error}")))?;
    waited.map_err(Error::io("waiting for the process in the background"))
}

/// Leaves the terminal and lets the process in the foreground end. A `silent` process lets go of standard output and
/// error as well, which others may wait for the end of.
pub fn detach(silent: bool) -> Result<()> {
    let failed = |error: nix::Error| Error::io("going to the background")(error.into());
    nix::unistd::setsid().map_err(failed)?;
    if silent {
        let nowhere = OpenOptions::new().write(true).open("/dev/null").map_err(Error::io("opening /dev/null"))?;
        nix::unistd::dup2_stdout(&nowhere).map_err(failed)?;
        nix::unistd::dup2_stderr(&nowhere).map_err(failed)?;
    }
    nix::unistd::write(std::io::stdin().as_fd(), &READY).map_err(failed)?;
    Ok(())
}
