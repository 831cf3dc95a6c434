//! Issuing certificates.

mod claims;
mod database;
mod desktop;
mod host;
mod keys;
mod local;
mod rights;
mod user;

pub use database::DatabaseEnd;
pub use host::HostCertRequest;
pub use keys::PublicKeys;
pub use local::{LocalIdentity, LocalIdentityRequest};
pub use user::{CertUsage, UserCertRequest};
