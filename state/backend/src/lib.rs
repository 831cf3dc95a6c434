//! Key/value storage of a cluster: the one place where state lives.
//!
//! Everything the Auth Service knows is an [`Item`]: a path-like [`Key`], opaque bytes, an optional
//! expiry and a revision that changes with every write. The [`Backend`] trait is what the layers above
//! see; [`Sqlite`] keeps the state on disk, [`Postgres`] and [`Etcd`] where several Auth Services share it,
//! and [`Memory`] for the life of the process. All pass one conformance suite, which the feature `conformance` offers to other crates.
//!
//! # Promises of every implementation
//!
//! * A write is durable before it is acknowledged.
//! * A caller that has seen its write acknowledged sees it in every later read, and its event is already
//!   in the queue of every watcher.
//! * An expired item is absent, whatever is asked of it; its removal is announced to watchers.
//! * Events of one key reach a watcher in the order of its revisions. A watcher that falls behind is closed
//!   with an error and never silently skips.
//!
//! ```
//! # use backend::{Backend, Item, Key, Memory};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! const ROLES: Key = Key::root("/roles");
//!
//! let backend = Memory::new();
//! let key = ROLES.child("dev")?.child("params")?;
//! let revision = backend.create(Item::new(key.clone(), r#"{"kind":"role"}"#)).await?;
//! assert_eq!(backend.get(&key).await?.revision, revision);
//! assert_eq!(backend.get_range(&ROLES.children(), 0).await?.len(), 1);
//! # Ok::<(), backend::BackendError>(()) }).unwrap();
//! ```

mod api;
mod atomic;
mod clock;
mod error;
mod etcd;
mod group;
mod item;
mod key;
mod local;
mod lock;
mod memory;
mod metered;
mod postgres;
#[cfg(test)]
mod shared;
mod sqlite;
mod store;
mod watch;
mod writer;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use api::{Backend, MAX_PAGE, MAX_RANGE, Pager, get_all};
pub use atomic::{Action, Condition, ConditionalAction, MAX_ATOMIC_ACTIONS};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::BackendError;
pub use etcd::{Etcd, EtcdOptions};
pub use group::GroupCommit;
pub use item::{Item, Lease, NO_REVISION};
pub use key::{Key, KeyRange};
pub use lock::{Lock, LockOptions};
pub use memory::Memory;
pub use metered::Metered;
pub use postgres::{Postgres, PostgresClient, PostgresError, PostgresOptions, ToSql, postgres_words};
pub use sqlite::{Journal, Sqlite, SqliteOptions, Synchronous};
pub use watch::{DEFAULT_QUEUE, Event, Watch, Watcher};
pub use wire::error::ErrorKind;

/// Result of every storage operation.
pub type Result<T, E = BackendError> = std::result::Result<T, E>;
