//! Writes of several keys that happen together or not at all.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{BackendError, Key, Result};

/// Most keys one atomic write may name.
pub const MAX_ATOMIC_ACTIONS: usize = 64;

/// What must hold for a key before an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Whatever,
    /// A live item exists.
    Exists,
    /// No live item exists.
    NotExists,
    /// A live item exists and has this revision.
    Revision(String),
}

/// What an atomic write does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the key is only a condition.
    Nop,
    /// Stores a value.
    Put {
        /// The value.
        value: Bytes,
        /// From when on the item counts as absent.
        expires: Option<DateTime<Utc>>,
    },
    /// Removes the item, if there is one.
    Delete,
}

/// One key of an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionalAction {
    /// The key.
    pub key: Key,
    /// What must hold.
    pub condition: Condition,
    /// What happens when every condition of the write holds.
    pub action: Action,
}

impl ConditionalAction {
    /// Stores `value` when `condition` holds.
    pub fn put(key: Key, condition: Condition, value: impl Into<Bytes>, expires: Option<DateTime<Utc>>) -> Self {
        Self { key, condition, action: Action::Put { value: value.into(), expires } }
    }

    /// Removes the key when `condition` holds.
    pub fn delete(key: Key, condition: Condition) -> Self {
        Self { key, condition, action: Action::Delete }
    }

    /// Only demands `condition`.
    pub fn require(key: Key, condition: Condition) -> Self {
        Self { key, condition, action: Action::Nop }
    }
}

/// Refuses what no implementation accepts.
pub(crate) fn check(actions: &[ConditionalAction]) -> Result<()> {
    let refuse = |text: String| Err(BackendError::BadParameter(text));
    if actions.is_empty() || actions.len() > MAX_ATOMIC_ACTIONS {
        return refuse(format!("atomic write has {} actions, expected 1 to {MAX_ATOMIC_ACTIONS}", actions.len()));
    }
    let mut keys = HashSet::with_capacity(actions.len());
    for entry in actions {
        if !keys.insert(&entry.key) {
            return refuse("atomic write names a key twice".to_owned());
        }
        match (&entry.condition, &entry.action) {
            (Condition::Whatever, Action::Nop) => {
                return refuse("atomic write has an entry without condition and action".to_owned());
            }
            (_, Action::Put { value, .. }) if value.is_empty() => {
                return refuse("atomic write puts an empty value".to_owned());
            }
            _ => {}
        }
    }
    if actions.iter().all(|entry| entry.action == Action::Nop) {
        return refuse("atomic write has no action".to_owned());
    }
    Ok(())
}
