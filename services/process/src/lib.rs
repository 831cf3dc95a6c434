//! A process as a member of its cluster: who it is, how it joined, where it keeps that.

mod identity;
mod join;
mod storage;

pub use identity::{HostIdentity, IdentityError, NewHostKeys, Parts};
pub use join::{JoinError, JoinRequest, join_at_auth, join_through_proxy};
pub use storage::{IdentityStore, StorageError, host_uuid};
