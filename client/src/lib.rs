//! The library behind `tsh`: profiles and keys on disk, login, and dialling what a cluster protects.
//!
//! * [`home`], [`profile`], [`keys`]: what a login leaves in `~/.tsh`.
//! * [`account`]: whose credentials a command uses; [`login`], [`logout`]: how they come and go; [`status`].
//! * [`cluster`]: connections to a proxy and, through it, to the Auth Service.
//! * [`ssh`]: sessions on servers; [`nodes`], [`clusters`], [`sessions`]: what there is.
//! * [`play`]: recordings; [`openssh`]: configuration for OpenSSH's clients.
//! * [`terminal`], [`text`]: the user's side.

pub mod account;
pub mod cluster;
pub mod clusters;
pub mod error;
pub mod home;
pub mod keys;
pub mod login;
pub mod logout;
pub mod nodes;
pub mod openssh;
pub mod play;
pub mod profile;
pub mod proxy_stream;
pub mod sessions;
pub mod ssh;
pub mod status;
pub mod terminal;
pub mod text;

pub use error::{Error, Result};
