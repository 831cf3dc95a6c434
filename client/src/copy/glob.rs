//! Patterns in paths on hosts, which no shell of this machine expands.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use futures::stream::{self, StreamExt};

use super::place::{Place, PlaceError};

/// Most paths that a pattern may stand for.
const MOST: usize = 100_000;
/// Paths that are looked at side by side.
const LOOKS_AT_ONCE: usize = 32;

/// Expands a pattern; a path without one, and one that nothing fits, is itself.
pub(super) async fn expand(place: &Place, path: &Path) -> Result<Vec<PathBuf>, PlaceError> {
    // A file may be called like this.
    if !is_pattern(path.as_os_str()) || place.stat(path).await.is_ok() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = vec![PathBuf::new()];
    for component in path.components() {
        let mut next = Vec::new();
        for base in &found {
            match component {
                Component::Normal(pattern) if is_pattern(pattern) => {
                    let mut names = matching(place, base, pattern).await?;
                    names.sort();
                    next.extend(names.into_iter().map(|name| base.join(name)));
                }
                fixed => next.push(base.join(fixed)),
            }
            if next.len() > MOST {
                return Err(PlaceError::Other("the pattern fits too many files".to_owned()));
            }
        }
        found = next;
    }
    // What follows a pattern may not be there.
    if path.file_name().is_none_or(|last| !is_pattern(last)) {
        let look = |path: PathBuf| async move { place.stat(&path).await.is_ok().then_some(path) };
        found = stream::iter(found).map(look).buffered(LOOKS_AT_ONCE).filter_map(std::future::ready).collect().await;
    }
    Ok(if found.is_empty() { vec![path.to_owned()] } else { found })
}

/// What in a folder fits a pattern. Folders that cannot be read have nothing.
async fn matching(place: &Place, folder: &Path, pattern: &OsStr) -> Result<Vec<OsString>, PlaceError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = match place.entries(folder).await {
        Ok(entries) => entries,
        Err(error) if error.is_final() => return Err(error),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "pattern");
            return Ok(Vec::new());
        }
    };
    let hidden = pattern.as_bytes().starts_with(b".");
    let names = entries.into_iter().map(|(name, _)| name);
    let fits =
        |name: &OsString| (hidden || !name.as_bytes().starts_with(b".")) && fits(pattern.as_bytes(), name.as_bytes());
    Ok(names.filter(fits).collect())
}

fn is_pattern(text: &OsStr) -> bool {
    text.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether a name fits a pattern with `*`, `?`, `[a-z]`, `[!a-z]` and `\`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut name) = (pattern, name);
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            retry = Some((rest, name));
            continue;
        }
        match (one(pattern, name.first().copied()), name) {
            (Some(rest), [_, others @ ..]) => (pattern, name) = (rest, others),
            (_, []) if pattern.is_empty() => return true,
            _ => match retry {
                Some((after_star, [_, others @ ..])) => {
                    (pattern, name) = (after_star, others);
                    retry = Some((after_star, others));
                }
                _ => return false,
            },
        }
    }
}

/// Matches one byte; returns the rest of the pattern.
fn one(pattern: &[u8], byte: Option<u8>) -> Option<&[u8]> {
    let byte = byte?;
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => {
            let (negated, class) = match class {
                [b'!' | b'^', class @ ..] => (true, class),
                class => (false, class),
            };
            // A bracket right at the beginning is a member.
            let end = class.iter().skip(1).position(|byte| *byte == b']')? + 1;
            let (mut members, rest) = (&class[..end], &class[end + 1..]);
            let mut found = false;
            while let [first, others @ ..] = members {
                members = match others {
                    [b'-', last, others @ ..] => {
                        found |= (first..=last).contains(&&byte);
                        others
                    }
                    others => {
                        found |= *first == byte;
                        others
                    }
                };
            }
            (found != negated).then_some(rest)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] if *literal == byte => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name) in [
            ("*", "anything"),
            ("*.log", "a.log"),
            ("a*b*c", "aXbYbZc"),
            ("?", "x"),
            ("[a-c]1", "b1"),
            ("[!a-c]1", "d1"),
            ("[]x]", "]"),
            ("[a-]", "-"),
            ("\\*", "*"),
            ("a**b", "ab"),
            ("", ""),
        ] {
            assert!(fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.log", "a.logs"),
            ("?", ""),
            ("?", "xy"),
            ("[a-c]", "d"),
            ("[!a]", "a"),
            ("[", "["),
            ("a", ""),
            ("\\*", "x"),
            ("a*b", "a"),
        ] {
            assert!(!fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        // Not slow for patterns made to be.
        assert!(!fits("a*a*a*a*a*a*a*a*a*b".as_bytes(), "a".repeat(300).as_bytes()));
    }
}
