//! Copies of one file: what a request may be about where others approved of that file alone.

use std::path::Path;

use serde::{Deserialize, Serialize};

// Kinds of requests, draft-ietf-secsh-filexfer-02 §3.
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const EXTENDED: u8 = 200;

/// Flag of an open for reading; every other one is for writing.
const FOR_READING: u32 = 1;

/// The one file that may be copied.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Only {
    /// Its absolute path, or that of the folder that it comes into.
    pub path: String,
    /// Its name, where the path may be that of a folder.
    pub within: Option<String>,
    /// Whether it comes to this host.
    pub upload: bool,
}

/// What a request is about.
pub(super) enum About<'a> {
    /// A path, from the root, and the flags where it is to be opened.
    Path(&'a Path, u32),
    /// An open file, or nothing.
    Other,
    /// What an extension of this name is about.
    Extension(&'a [u8]),
}

impl Only {
    /// As an argument of a worker.
    pub fn to_argument(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // texts always can be, and an empty argument is refused
    }

    /// The same, read by the worker.
    pub fn from_argument(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn is(&self, path: &Path) -> bool {
        let whole = Path::new(&self.path);
        path == whole || self.within.as_ref().is_some_and(|name| path == whole.join(name))
    }

    /// Whether a request may be made.
    pub(super) fn allows(&self, kind: u8, about: &About<'_>) -> bool {
        match (kind, about) {
            (OPEN, About::Path(path, flags)) => {
                let (reads, writes) = (flags & FOR_READING != 0, flags & !FOR_READING != 0);
                self.is(path) && reads != self.upload && writes == self.upload
            }
            (SETSTAT, About::Path(path, _)) => self.upload && self.is(path),
            // Programs look at the folder that they copy to or from.
            (LSTAT | STAT, About::Path(path, _)) => self.is(path) || Path::new(&self.path).starts_with(path),
            (FSETSTAT | WRITE, _) => self.upload,
            (CLOSE | READ | FSTAT | REALPATH, _) => true,
            (EXTENDED, About::Extension(name)) => {
                matches!(*name, b"limits@openssh.com" | b"fsync@openssh.com" | b"expand-path@openssh.com")
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_copied_in_its_direction_and_nothing_else_done() {
        let download = Only { path: "/home/dev/a".into(), within: None, upload: false };
        let upload = Only { path: "/srv".into(), within: Some("notes".into()), upload: true };
        let path = |path: &'static str, flags| About::Path(Path::new(path), flags);
        let cases = [
            (&download, OPEN, path("/home/dev/a", 1), true),
            (&download, OPEN, path("/home/dev/a", 3), false),
            (&download, OPEN, path("/home/dev/b", 1), false),
            (&download, OPEN, path("/home/dev/a/b", 1), false),
            (&download, STAT, path("/home/dev", 0), true),
            (&download, STAT, path("/home/other", 0), false),
            (&download, SETSTAT, path("/home/dev/a", 0), false),
            (&download, FSETSTAT, About::Other, false),
            (&upload, OPEN, path("/srv/notes", 0b1_1010), true),
            (&upload, OPEN, path("/srv", 0b1_1010), true),
            (&upload, OPEN, path("/srv/notes", 1), false),
            (&upload, OPEN, path("/srv/other", 2), false),
            (&upload, 13, path("/srv/notes", 0), false),
            (&upload, EXTENDED, About::Extension(b"posix-rename@openssh.com"), false),
            (&upload, EXTENDED, About::Extension(b"limits@openssh.com"), true),
        ];
        for (index, (only, kind, about, allowed)) in cases.into_iter().enumerate() {
            assert_eq!(only.allows(kind, &about), allowed, "case {index}");
        }
    }
}
