//! The library behind `tsh`: profiles and keys on disk, login, and dialling what a cluster protects.
//!
//! * [`home`], [`profile`], [`keys`]: what a login leaves in `~/.tsh`.
//! * [`account`]: whose credentials a command uses; [`agent`]: the user's `ssh-agent`; [`login`], [`logout`]: how they come and go; [`status`].
//! * [`cluster`]: connections to a proxy and, through it, to the Auth Service.
//! * [`advice`]: what to do about connections that fail; [`mfa`]: second factors.
//! * [`ssh`]: sessions on servers; [`copy`]: files, by [`sftp`]; [`nodes`], [`clusters`], [`sessions`]: what there is.
//! * [`play`]: recordings; [`openssh`]: configuration for OpenSSH's clients; [`templates`]: rules for names of hosts.
//! * [`terminal`], [`text`]: the user's side.

pub mod account;
pub mod advice;
pub mod agent;
pub mod aliases;
pub mod cluster;
pub mod clusters;
pub mod copy;
pub mod error;
pub mod home;
pub mod keys;
pub mod login;
pub mod logout;
pub mod mfa;
pub mod nodes;
pub mod openssh;
pub mod play;
pub mod profile;
pub mod proxy_stream;
pub mod requests;
pub mod sessions;
pub mod sftp;
pub mod ssh;
pub mod status;
pub mod templates;
pub mod terminal;
pub mod text;

pub use error::{Error, Result};
