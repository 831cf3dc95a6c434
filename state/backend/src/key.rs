//! Keys and ranges of keys.

use std::{borrow::Cow, fmt};

use crate::{BackendError, Result};

/// Longest key accepted, in bytes.
const MAX_KEY: usize = 4096;

/// A path such as `/web/users/alice/params`.
///
/// Constant prefixes are made with [`Key::root`]; everything that comes from outside is added with
/// [`Key::child`], which refuses what could leave its place in the tree. Keys order by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Cow<'static, str>);

impl Key {
    /// A constant prefix written in the code, such as `/web/users`. Not checked.
    pub const fn root(path: &'static str) -> Self {
        Self(Cow::Borrowed(path))
    }

    /// Reads a whole key, as found in a database or in an event.
    ///
    /// # Errors
    /// `BadParameter` when a part is empty, `.` or `..`, or holds control characters.
    pub fn parse(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let parts = path.strip_prefix('/').unwrap_or(&path);
        for part in parts.split('/') {
            check_part(part)?;
        }
        check_length(&path)?;
        Ok(Self(Cow::Owned(path)))
    }

    /// The key one level below: `/roles` and `dev` give `/roles/dev`.
    ///
    /// # Errors
    /// `BadParameter` when the part is empty, `.` or `..`, or holds a slash or control characters.
    pub fn child(&self, part: impl AsRef<str>) -> Result<Self> {
        let part = part.as_ref();
        check_part(part)?;
        let path = format!("{}/{part}", self.0);
        check_length(&path)?;
        Ok(Self(Cow::Owned(path)))
    }

    /// Every key below this one, at any depth, without the key itself.
    pub fn children(&self) -> KeyRange {
        KeyRange::prefix(&format!("{}/", self.0))
    }

    /// Whether this key is `prefix` or lies below it. A prefix that ends with a slash has only keys below.
    pub fn is_under(&self, prefix: &str) -> bool {
        match self.0.strip_prefix(prefix) {
            Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
            None => false,
        }
    }

    /// What follows `prefix` and its slash: `/roles/dev/params` below `/roles` is `dev/params`.
    pub fn below(&self, prefix: &Key) -> Option<&str> {
        self.0.strip_prefix(prefix.as_str())?.strip_prefix('/')
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The parts between the slashes.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.strip_prefix('/').unwrap_or(&self.0).split('/')
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that is trusted because it was checked when it was stored.
    pub(crate) fn stored(path: String) -> Self {
        Self(Cow::Owned(path))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The keys from `start` (included) to `end` (excluded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key of the range.
    pub start: String,
    /// First key after the range; `None` runs to the last key.
    pub end: Option<String>,
}

impl KeyRange {
    /// The keys from `start` (included) to `end` (excluded).
    pub fn new(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Every key that begins with `prefix`; an empty prefix is every key.
    pub fn prefix(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: range_end(prefix) }
    }

    /// What is left of this range after `key`: where the page after `key` begins.
    pub fn after(&self, key: &Key) -> Self {
        Self { start: format!("{key}\0"), end: self.end.clone() }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str() >= self.start.as_str() && self.end.as_deref().is_none_or(|end| key.as_str() < end)
    }

    /// The end as text that every key can be compared with.
    pub(crate) fn end_text(&self) -> &str {
        self.end.as_deref().unwrap_or("\u{10FFFF}")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= self.start.as_str())
    }
}

/// The first text after all that begin with `prefix`: its last character that has a successor, replaced by it.
fn range_end(prefix: &str) -> Option<String> {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        let successor = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(successor) = successor {
            end.push(successor);
            return Some(end.into_iter().collect());
        }
    }
    None
}

fn check_part(part: &str) -> Result<()> {
    let reason = match part {
        "" => "is empty",
        "." | ".." => "is a relative path",
        _ if part.contains('/') => "contains a slash",
        _ if part.chars().any(char::is_control) => "contains control characters",
        _ => return Ok(()),
    };
    Err(BackendError::BadParameter(format!("name {part:?} {reason}")))
}

fn check_length(path: &str) -> Result<()> {
    if path.len() > MAX_KEY {
        return Err(BackendError::BadParameter(format!("name is longer than {MAX_KEY} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    const USERS: Key = Key::root("/web/users");

    #[test]
    fn parts_join_with_slashes() {
        let key = USERS.child("alice").unwrap().child("params").unwrap();
        assert_eq!(key.as_str(), "/web/users/alice/params");
        assert_eq!(key.name(), "params");
        assert_eq!(key.below(&USERS), Some("alice/params"));
        assert_eq!(key.parts().collect::<Vec<_>>(), ["web", "users", "alice", "params"]);
    }

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        for name in ["", ".", "..", "a/b", "/", "a\0", "line\nbreak"] {
            assert!(USERS.child(name).is_err(), "{name:?}");
        }
        assert!(USERS.child("a".repeat(5000)).is_err());
        assert!(Key::parse("/web//users").is_err());
        assert!(Key::parse("/web/../users").is_err());
        assert!(USERS.child("Jürgen@example.com+x:y").is_ok());
    }

    #[test]
    fn a_prefix_matches_whole_parts_only() {
        let key = Key::root("/nodes/default/1");
        assert!(key.is_under("/nodes"));
        assert!(key.is_under("/nodes/default/1"));
        assert!(key.is_under("/"));
        assert!(!key.is_under("/node"));
        assert!(!Key::root("/nodes2/x").is_under("/nodes"));
    }

    #[test]
    fn children_exclude_neighbours() {
        let range = Key::root("/nodes").children();
        assert_eq!(range, KeyRange::new("/nodes/", "/nodes0"));
        assert!(!range.contains(&Key::root("/nodes")));
        assert!(!range.contains(&Key::root("/nodes0")));
        assert!(range.contains(&Key::root("/nodes/z")));
    }

    proptest! {
        #[test]
        fn a_prefix_range_holds_exactly_what_begins_with_it(prefix in ".{0,4}", key in ".{0,6}") {
            let key = Key::stored(key);
            prop_assert_eq!(KeyRange::prefix(&prefix).contains(&key), key.as_str().starts_with(&prefix));
        }
    }
}
