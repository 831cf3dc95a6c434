//! The Auth Service: the state of a cluster, its certificate authorities, and everybody's way in.
//!
//! [`Auth`] is the service as one object; what it can do is grouped in modules by subject. [`Store`] holds the
//! resources, [`http`] and the gRPC services are thin layers that turn requests into calls of methods here, after
//! the authorisation of the caller.

pub mod authz;
pub mod grpc;
pub mod http;
pub mod server;
pub mod store;

mod auth;
mod authority;
mod bots;
mod caller;
mod certs;
mod config;
mod init;
mod integrity;
mod join;
mod lists;
mod locks;
mod login;
mod metrics;
mod presence;
mod random;
mod recordings;
mod records;
mod requests;
mod roles;
mod rotation;
mod sealing;
mod sessions;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod trusted;
mod users;

pub use auth::Auth;
pub use caller::{Caller, Principal};
pub use certs::{CertUsage, HostCertRequest, LocalIdentity, LocalIdentityRequest, PublicKeys, UserCertRequest};
pub use config::{AuthConfig, FileSettings};
pub use integrity::{HostReport, Verification};
pub use lists::UserRights;
pub use login::{
    ChallengeScope, Credentials, LoginClient, SshLogin, SshLoginResponse, TrustedCertificates, WebSessionRequest,
};
pub use presence::SERVER_TTL;
pub use requests::Reviewer;
pub use resources::SystemRole;
pub use rotation::{Phase, RotationRequest};
pub use sealing::SealingStatus;
pub use settings::Write;
pub use store::Store;
pub use trusted::{TrustExchange, ValidateRequest, ValidateResponse};
