//! What the single kinds add to [`Resource`](crate::Resource): their defaults, their checks and their place.

mod access;
mod applications;
mod automation;
mod connectors;
mod databases;
mod desktops;
mod fleet;
mod kubernetes;
mod lists;
mod notices;
mod role;
mod server;
mod sessions;
mod settings;
mod table;
mod token;
mod trust;
mod user;

pub use databases::DATABASE_PROTOCOLS;
pub use lists::next_review;
pub use notices::{NOTIFICATION_CONTENT, NOTIFICATION_TITLE};
#[cfg(test)]
pub(crate) use role::label_fields;
pub use role::{
    CLUSTER_WIDE_KUBERNETES_KINDS, KUBERNETES_KINDS, KUBERNETES_VERBS, MAX_ACCESS_DURATION, MAX_SESSION_TTL,
    ROLE_VERSIONS,
};
pub use settings::{DEFAULT_SESSION_TTL, check_second_factor_allowed};
pub use token::JOIN_METHODS;

use wire::types::BoolValue;

use crate::{ResourceError, Result, resource::is_label_key};

/// A truth value that can also be unset.
pub(crate) fn truth(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// Fills a blank text.
fn default_text(field: &mut String, text: &str) {
    if field.is_empty() {
        text.clone_into(field);
    }
}

/// Fills a blank number.
fn default_number(field: &mut i64, number: i64) {
    if *field == 0 {
        *field = number;
    }
}

/// Refuses a word that is not one of `allowed`; the empty word counts as unset.
fn one_of(path: &str, word: &str, allowed: &[&str]) -> Result<()> {
    if word.is_empty() || allowed.contains(&word) {
        return Ok(());
    }
    let list = allowed.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ");
    Err(ResourceError::field(path, format!("unknown value {word:?}: expected one of {list}")))
}

/// Refuses numbers and durations below zero.
fn not_negative(fields: &[(&str, i64)]) -> Result<()> {
    match fields.iter().find(|(_, value)| *value < 0) {
        Some((path, _)) => Err(ResourceError::field(*path, "must not be negative")),
        None => Ok(()),
    }
}

/// Refuses blank texts.
fn required(fields: &[(&str, &str)]) -> Result<()> {
    match fields.iter().find(|(_, text)| text.is_empty()) {
        Some((path, _)) => Err(ResourceError::field(*path, "missing value")),
        None => Ok(()),
    }
}

/// Refuses keys that labels cannot have.
fn check_labels<'a>(path: &str, mut keys: impl Iterator<Item = &'a String>) -> Result<()> {
    match keys.find(|key| !is_label_key(key)) {
        Some(key) => Err(ResourceError::field(path, format!("invalid label key: {key:?}"))),
        None => Ok(()),
    }
}

/// Refuses what is no web address.
fn check_url(path: &str, url: &str) -> Result<()> {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Ok(());
    }
    Err(ResourceError::field(path, format!("{url:?} is not a URL: expected https://host/path")))
}
