//! A process as a member of its cluster: who it is, how it joined, where it keeps that.

mod identity;
pub mod inventory;
mod join;
pub mod leases;
pub mod locks;
mod rotation;
pub mod said;
mod signed;
mod storage;
mod tunnel;
mod vigil;

pub use self::tunnel::TunnelDialer;
pub use identity::{HostIdentity, IdentityError, NewHostKeys, Parts};
pub use join::{JoinError, JoinRequest, join_at_auth, join_through_proxy};
pub use rotation::{Outlook, RenewError, renew};
pub use signed::SignedByProxy;
pub use storage::{IdentityStore, StorageError, host_uuid};
pub use vigil::{keep_alive, keep_connected};
