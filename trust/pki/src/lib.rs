//! Keys, certificates and identities: how the parts of a cluster know each other and their users.
//!
//! - [`keys`]: private and public keys in every textual form; [`suite`] chooses algorithms.
//! - [`authority`]: the kinds of certificate authority; [`pin`]: recognising one without having its certificate.
//! - [`x509`] and [`ssh_cert`]: reading and issuing certificates; [`identity`]: what they say about their holder.
//! - [`tls`]: rustls configurations for connections inside a cluster; [`cluster_name`]: which cluster they mean.
//! - [`identity_file`] and [`known_hosts`]: what clients keep on disk.
//!
//! Nothing here waits or talks to the network, and time is always a parameter. Private keys are wiped from memory
//! and never shown by `Debug`. Bytes from strangers are parsed without panicking; trust is a separate, explicit step.

pub mod authority;
pub mod cluster_name;
mod error;
pub mod identity;
pub mod identity_file;
pub mod keys;
pub mod known_hosts;
pub mod pem;
pub mod pin;
pub mod ssh_cert;
pub mod suite;
pub mod tls;
pub mod x509;

pub use error::{Error, ErrorKind};
