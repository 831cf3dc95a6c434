//! The operating system's side of a session: accounts, terminals, processes.
//!
//! A session costs one process, the user's own: the child sets its session, terminal and credentials between fork
//! and exec, so the daemon never executes itself again.

pub mod account;
pub(crate) mod accounting;
pub mod environment;
pub(crate) mod host_users;
pub mod process;
pub mod pty;
