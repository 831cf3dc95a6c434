//! What the processes of a session do, as the kernel tells it: programs they run, files they open, TCP connections
//! they make.
//!
//! A [`Monitor`] has the kernel run the programs of `bpf/sessions.bpf.c` at tracepoints. A session that is to be
//! watched gets a control group ([`Monitor::watch`]); its first process enters it before it becomes the user's, and
//! everything that it starts is in it too, whatever it does with terminals, users or parents. What the kernel writes
//! into its buffers is read by one thread and handed to the session it belongs to.
//!
//! Nothing here waits for a slow reader: what finds no room, in the kernel's buffers or in a session's queue, is
//! counted, see [`Watched::end`] and [`Monitor::lost`].

mod groups;
mod monitor;
mod record;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

pub use monitor::{Losses, Monitor, Watched};

/// What an administrator sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Size of the buffers, in pages of memory; rounded up to a power of two.
    pub pages: PerKind<u32>,
    /// Where control groups of the second version are, or are to be mounted.
    pub cgroup_path: PathBuf,
    /// The folder below it that has the sessions' groups.
    pub root_path: PathBuf,
}

/// A kind of thing that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Programs that are run.
    Command,
    /// Files that are opened.
    Disk,
    /// TCP connections that are made.
    Network,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Command, Self::Disk, Self::Network];

    /// The name that roles and metrics have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Disk => "disk",
            Self::Network => "network",
        }
    }
}

/// One value for each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerKind<T> {
    /// For [`Kind::Command`].
    pub command: T,
    /// For [`Kind::Disk`].
    pub disk: T,
    /// For [`Kind::Network`].
    pub network: T,
}

impl<T: Copy> PerKind<T> {
    /// The value for a kind.
    pub fn get(&self, kind: Kind) -> T {
        match kind {
            Kind::Command => self.command,
            Kind::Disk => self.disk,
            Kind::Network => self.network,
        }
    }
}

impl PerKind<bool> {
    /// The kinds with these names; others are passed over.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut named = Self::default();
        for name in names {
            match name {
                "command" => named.command = true,
                "disk" => named.disk = true,
                "network" => named.network = true,
                _ => {}
            }
        }
        named
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.command || self.disk || self.network
    }
}

/// Something that happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// Who did it.
    pub process: Process,
    /// What was done.
    pub what: What,
}

/// A process, as it was at the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number, as the host sees it.
    pub id: u32,
    /// The number of its parent.
    pub parent: u32,
    /// The name of its program, at most 15 bytes of it.
    pub program: String,
}

/// What was done. A result that is negative is an error number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A program was run.
    Ran {
        /// Its path, as the call had it.
        path: String,
        /// Its arguments, without its own name.
        arguments: Vec<String>,
        /// Zero, or why it was not run.
        result: i32,
    },
    /// A file was opened.
    Opened {
        /// Its path, as the call had it.
        path: String,
        /// How it was to be opened, see open(2).
        flags: i32,
        /// The descriptor, or why there is none.
        result: i32,
    },
    /// A connection was begun.
    Connected {
        /// The address it comes from.
        source: IpAddr,
        /// Where it goes to.
        destination: SocketAddr,
    },
}

/// Why sessions cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs were not compiled.
    #[error("this program was built without it: {0}")]
    NotBuilt(&'static str),
    /// Not root.
    #[error("it needs the rights of root: the effective user id is {0}")]
    NotRoot(u32),
    /// The kernel is too old.
    #[error("it needs Linux 5.8 or newer, this is {0}")]
    OldKernel(String),
    /// The kernel does not say what its types look like.
    #[error("it needs a kernel with type information (CONFIG_DEBUG_INFO_BTF): {0}")]
    NoTypes(String),
    /// The kernel does not take the programs.
    #[error("the kernel refuses it, and its configuration or a security policy may be why: {0}")]
    Kernel(String),
    /// Something else is where control groups should be.
    #[error("cgroup_path {0}: expected control groups of version 2 or an empty folder to mount them at")]
    NotGroups(PathBuf),
    /// Control groups cannot be mounted.
    #[error("cgroup_path {folder}: mounting control groups: {error}")]
    Mount {
        /// Where.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Control groups cannot be made.
    #[error("making control groups in {folder}: {error}")]
    Groups {
        /// Where.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no thread or pipe to be had.
    #[error("reading what the kernel tells: {0}")]
    Reader(io::Error),
    /// The name of a session is none.
    #[error("session {0:?}: expected a UUID")]
    SessionId(String),
}
