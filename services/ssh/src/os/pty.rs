//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Group, fchown, ttyname};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::account::Account;

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
    pub fn open(size: TerminalSize, account: &Account) -> io::Result<Self> {
        let pair = openpty(&size.winsize(), None)?;
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
        Ok(Self { master: AsyncFd::register(pair.master)?, slave: Some(pair.slave), path })
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

#[allow(unsafe_code)] // one ioctl without a safe wrapper
mod window {
    nix::ioctl_write_ptr_bad!(set, nix::libc::TIOCSWINSZ, nix::pty::Winsize);

    /// Sets the window size of an open terminal.
    pub(super) fn set_size(fd: i32, size: &nix::pty::Winsize) -> nix::Result<()> {
        // SAFETY: `fd` is an open terminal and `size` lives through the call.
        unsafe { set(fd, size) }.map(drop)
    }
}

fn set_window_size(fd: &impl AsFd, size: TerminalSize) -> io::Result<()> {
    window::set_size(fd.as_fd().as_raw_fd(), &size.winsize()).map_err(io::Error::from)
}

impl AsyncRead for Pty {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(cx))?;
            let attempt = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buf.initialize_unfilled())?));
            match attempt {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // Linux reports EIO once the last process has closed its end: that is the end of the output.
                Ok(Err(e)) if e.raw_os_error() == Some(Errno::EIO as i32) => return Poll::Ready(Ok(())),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), data)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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
