//! What the node does for a user outside the user's own processes: copying files, opening sockets.
//!
//! A worker is this program, started again for one connection or one copy. The first thing it does is to become the
//! user, for good; then it does what comes in on its standard input until that ends. Nothing a client asks for is
//! opened with the daemon's rights. A worker has no runtime and few threads: it costs a process and a few hundred
//! kilobytes. The one worker that does not become the user opens and closes sessions of PAM ([`login`]).

pub(crate) mod login;
pub(crate) mod protocol;
pub(crate) mod sftp;
mod sockets;

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitCode;

use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

/// What a worker is for.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Serves the SFTP subsystem on its standard streams; operations are reported on the error stream. With a file
    /// named, of that file only.
    Sftp(Option<sftp::Only>),
    /// Opens sockets for the daemon; see [`protocol`].
    Sockets,
    /// Has PAM open a session, and runs a process in it; see [`login`].
    Login,
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sftp(_) => "sftp",
            Self::Sockets => "sockets",
            Self::Login => "login",
        }
    }
}

/// Whom a worker becomes, as arguments.
pub(crate) fn arguments(kind: &Kind, account: &crate::os::account::Account) -> Vec<OsString> {
    let groups: Vec<String> = account.groups.iter().map(ToString::to_string).collect();
    let mut arguments = vec![
        kind.name().into(),
        account.uid.to_string().into(),
        account.gid.to_string().into(),
        groups.join(",").into(),
        account.home.clone().into_os_string(),
    ];
    if let Kind::Sftp(Some(only)) = kind {
        arguments.push(only.to_argument().into());
    }
    arguments
}

/// Runs a worker to its end. The arguments are those that the daemon gives: kind, user id, group id, groups
/// separated by commas, home folder, and the one file that may be copied if it is for one; or the kind alone, where the rest comes on the standard input.
///
/// Call this before anything starts threads: credentials belong to the whole process only then.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match serve(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[OsString]) -> io::Result<ExitCode> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "started by the daemon only");
    match arguments {
        [kind] if kind == Kind::Login.name() => return login::serve_standard_input().map(|()| ExitCode::SUCCESS),
        [kind, probe] if kind == Kind::Login.name() && probe == login::PROBE => {
            return crate::os::pam::probe().map(|()| ExitCode::SUCCESS).map_err(io::Error::other);
        }
        _ => {}
    }
    let ([kind, uid, gid, groups, home], more) = arguments.split_first_chunk().ok_or_else(wrong)?;
    let number = |text: &OsStr| text.to_str().and_then(|t| t.parse::<u32>().ok()).ok_or_else(wrong);
    let groups = groups.to_str().ok_or_else(wrong)?.split(',').filter(|g| !g.is_empty());
    let groups = groups.map(|g| g.parse().map(Gid::from_raw)).collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
    become_user(Uid::from_raw(number(uid)?), Gid::from_raw(number(gid)?), &groups)?;
    if std::env::set_current_dir(home).is_err() {
        std::env::set_current_dir("/")?;
    }
    match kind.to_str() {
        Some("sftp") => {
            let only = more.first().map(|only| only.to_str().and_then(sftp::Only::from_argument).ok_or_else(wrong));
            sftp::serve_standard_streams(only.transpose()?)?;
        }
        Some("sockets") if more.is_empty() => sockets::serve_standard_input()?,
        _ => return Err(wrong()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives up all rights but the user's. Groups first: after the last step nothing can be changed any more.
fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    if Uid::effective().is_root() {
        nix::unistd::setgroups(groups)?;
        nix::unistd::setgid(gid)?;
        nix::unistd::setuid(uid)?;
    }
    if Uid::effective() != uid || Uid::current() != uid || Gid::effective() != gid {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("cannot become user {uid}")));
    }
    Ok(())
}
