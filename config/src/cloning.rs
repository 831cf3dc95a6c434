//! The file of `teleport backend clone`: from which storage to which.

use std::path::Path;

use crate::{
    ConfigError, StateStorage,
    section::{Context, Section},
    storage, yaml,
};

/// What is to be copied where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloning {
    /// The storage to read.
    pub source: StateStorage,
    /// The storage to write.
    pub destination: StateStorage,
    /// How many items are written at once.
    pub parallel: usize,
    /// Whether the destination may hold something.
    pub force: bool,
}

impl Cloning {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or unreadable, and with all problems of its content at once.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::NotFound { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let tree = match yaml::parse(file, text, &mut problems) {
            Ok(tree) => tree,
            Err(problem) => {
                problems.push(problem);
                return Err(ConfigError::from_problems(problems));
            }
        };
        let context = Context::new(file, problems);
        let read = Section::read(&context, String::new(), Some(&tree), |root| {
            let storage = |name: &'static str| {
                if !root.has(name) {
                    root.reject(name, "missing, expected a storage as in teleport.storage");
                }
                let state = root.section(name, storage::read_state);
                match &state {
                    StateStorage::Memory if root.has(name) => {
                        root.reject(name, "expected a storage that outlives this command");
                    }
                    StateStorage::Sqlite(sqlite) if sqlite.path.is_none() && root.has(name) => {
                        root.reject(name, "path is missing");
                    }
                    _ => {}
                }
                state
            };
            Self {
                source: storage("src"),
                destination: storage("dst"),
                parallel: root.number("parallel").unwrap_or(32usize).clamp(1, 1024),
                force: root.flag("force").unwrap_or(false),
            }
        });
        if read.source == read.destination && context.problems.borrow().is_empty() {
            context.note(0, "dst", "is the same storage as src".to_owned(), false);
        }
        match context.problems.take() {
            problems if problems.is_empty() => Ok(read),
            problems => Err(ConfigError::from_problems(problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_copy_goes_from_one_storage_to_another() {
        let text = "src: {type: sqlite, path: /var/lib/teleport/backend}\n\
                    dst: {type: etcd, peers: [\"https://e:2379\"], prefix: /one}\nforce: yes\n";
        let read = Cloning::parse("clone.yaml", text).unwrap();
        assert!(read.force && matches!(read.source, StateStorage::Sqlite(_)));
        let StateStorage::Etcd(etcd) = read.destination else { unreachable!() };
        assert_eq!((etcd.prefix.as_str(), etcd.peers.len()), ("/one/", 1));
    }

    #[test]
    fn all_that_is_wrong_is_named() {
        for (text, words) in [
            ("src: {type: sqlite, path: /a}\n", &["dst", "missing"][..]),
            ("src: {path: /a}\ndst: {path: /a}\n", &["dst", "same"]),
            ("src: {}\ndst: {type: in-memory}\n", &["src", "path", "dst", "outlives"]),
            ("src: {path: /a}\ndst: {type: etcd}\nsrcc: 1\n", &["peers", "srcc"]),
        ] {
            let said = Cloning::parse("clone.yaml", text).unwrap_err().to_string();
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }
}
