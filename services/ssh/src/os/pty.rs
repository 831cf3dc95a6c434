//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Group, fchown, ttyname};
use tokio::io::unix::AsyncFd;

use super::account::Account;
use crate::channel::TerminalRequest;

/// One read of a terminal; the kernel hands out at most 4 KiB at a time.
const READ_SIZE: usize = 4096;

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

impl TerminalSize {
    /// The size a client asks for; anything outside 1..=4096 becomes 80 columns or 25 rows.
    pub fn requested(columns: u32, rows: u32) -> Self {
        let side = |n: u32, default: u16| u16::try_from(n).ok().filter(|n| (1..=4096).contains(n)).unwrap_or(default);
        Self { columns: side(columns, 80), rows: side(rows, 25) }
    }

    fn winsize(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

impl std::fmt::Display for TerminalSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.columns, self.rows)
    }
}

/// The server's end of a terminal.
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<OwnedFd>,
    /// The process's end; dropped once the process has it.
    slave: Option<OwnedFd>,
    path: PathBuf,
}

impl Pty {
    /// Opens a terminal that belongs to `account`.
    pub(crate) fn open(asked: &TerminalRequest, account: &Account) -> io::Result<Self> {
        let pair = openpty(&asked.size.winsize(), None)?;
        tunnel::modes::apply(&pair.slave, &asked.modes)?;
        let path = ttyname(&pair.slave)?;
        if nix::unistd::Uid::effective().is_root() {
            let tty_group = Group::from_name("tty").ok().flatten().map(|g| g.gid);
            fchown(&pair.slave, Some(account.uid), Some(tty_group.unwrap_or(account.gid)))?;
            fchmod(&pair.slave, Mode::from_bits_truncate(0o620))?;
        }
        for fd in [&pair.master, &pair.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let flags = OFlag::from_bits_truncate(fcntl(&pair.master, FcntlArg::F_GETFL)?);
        fcntl(&pair.master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { master: raw::watch(pair.master)?, slave: Some(pair.slave), path })
    }

    /// Path of the process's end, such as `/dev/pts/3`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy of the process's end, for its standard streams.
    pub fn slave(&self) -> io::Result<OwnedFd> {
        self.slave.as_ref().ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }

    /// Gives up the process's end, so that the master sees the end of its last process.
    pub fn release_slave(&mut self) {
        self.slave = None;
    }

    /// Changes the size; the foreground process gets SIGWINCH.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        set_window_size(self.master.get_ref(), size)
    }
}

#[allow(unsafe_code)] // one ioctl without a safe wrapper, and readiness of an owned descriptor
pub(crate) mod raw {
    use std::io;
    use std::os::fd::OwnedFd;

    use tokio::io::unix::AsyncFd;

    nix::ioctl_write_ptr_bad!(set, nix::libc::TIOCSWINSZ, nix::pty::Winsize);

    /// Watches a descriptor for readiness.
    pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an `OwnedFd` owns its descriptor and always gives out the same one.
        Ok(unsafe { AsyncFd::register(fd) }?)
    }

    /// Sets the window size of an open terminal.
    pub(super) fn set_size(fd: i32, size: &nix::pty::Winsize) -> nix::Result<()> {
        // SAFETY: `fd` is an open terminal and `size` lives through the call.
        unsafe { set(fd, size) }.map(drop)
    }
}

fn set_window_size(fd: &impl AsFd, size: TerminalSize) -> io::Result<()> {
    raw::set_size(fd.as_fd().as_raw_fd(), &size.winsize()).map_err(io::Error::from)
}

impl Pty {
    /// Appends output to `buffer`; 0 once the last process has closed its end. Cancel-safe.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut chunk = [0; READ_SIZE];
        loop {
            let mut guard = self.master.readable().await?;
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut chunk)?)) {
                Ok(Ok(n)) => {
                    buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
                    return Ok(n);
                }
                // Linux reports EIO once the last process has closed its end: that is the end of the output.
                Ok(Err(e)) if e.raw_os_error() == Some(Errno::EIO as i32) => return Ok(0),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }

    /// Writes some of `data`; says how much. Cancel-safe.
    pub async fn write(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.master.writable().await?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), data)?)) {
                return result;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_out_of_range_becomes_the_default() {
        assert_eq!(TerminalSize::requested(0, 5000), TerminalSize { columns: 80, rows: 25 });
        assert_eq!(TerminalSize::requested(132, 43).to_string(), "132:43");
    }
}
