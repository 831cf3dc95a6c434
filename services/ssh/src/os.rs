//! The operating system's side of a session: accounts, terminals, processes.
//!
//! A session costs one process, the user's own: the child sets its session, terminal and credentials between fork
//! and exec, so the daemon never executes itself again. Where the node uses PAM, each has a second one that is its parent.

pub mod account;
pub(crate) mod accounting;
pub mod environment;
pub(crate) mod host_users;
pub(crate) mod login;
#[allow(unsafe_code)] // calls a library of C that is loaded at run time
pub(crate) mod pam;
pub mod process;
pub mod pty;
