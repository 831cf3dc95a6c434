//! What is stored.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::Key;

/// How the revision of an item reads that was stored without one.
pub const NO_REVISION: &str = "00000000-0000-0000-0000-000000000000";

/// One stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it is stored.
    pub key: Key,
    /// What is stored; mostly a resource as JSON.
    pub value: Bytes,
    /// From when on it counts as absent; `None` never.
    pub expires: Option<DateTime<Utc>>,
    /// Changes with every write. Opaque; writers get the new one back.
    pub revision: String,
}

impl Item {
    /// An item that never expires.
    pub fn new(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, value: value.into(), expires: None, revision: String::new() }
    }

    /// The same item with an expiry.
    #[must_use]
    pub fn with_expires(mut self, expires: impl Into<Option<DateTime<Utc>>>) -> Self {
        self.expires = expires.into();
        self
    }

    /// The same item with the revision a conditional update expects.
    #[must_use]
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Names this item to [`keep_alive`](crate::Backend::keep_alive).
    pub fn lease(&self) -> Lease {
        Lease { key: self.key.clone(), revision: self.revision.clone() }
    }

    /// Whether the item counts as absent at `now`.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// An item whose expiry its owner pushes ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The item.
    pub key: Key,
    /// Its revision when the lease was taken or last renewed.
    pub revision: String,
}
