//! What is copied from where, as it is written on the command line.

use std::path::{Path, PathBuf};

use crate::ssh::{Destination, SshError};

/// A file or folder, here or on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// On this machine.
    Here(PathBuf),
    /// On a host.
    There {
        /// The host and the login.
        destination: Destination,
        /// The path; what is relative begins at the account's home.
        path: PathBuf,
    },
}

impl Location {
    /// Reads `path` or `[login@]host:path`. A colon after the first slash belongs to a path, so that `./a:b` is a file
    /// of this machine.
    pub fn parse(text: &str) -> Result<Self, SshError> {
        let Some(colon) = separator(text) else { return Ok(Self::Here(PathBuf::from(text))) };
        let (host, path) = (&text[..colon], &text[colon + 1..]);
        Ok(Self::There { destination: Destination::parse(host)?, path: home_relative(path) })
    }
}

/// Where the colon between host and path is.
fn separator(text: &str) -> Option<usize> {
    let host_start = text.find('@').map_or(0, |at| at + 1);
    if let Some(length) = text[host_start..].strip_prefix('[').and_then(|rest| rest.find("]:")) {
        let colon = host_start + length + 2;
        return (!text[..host_start].contains('/')).then_some(colon);
    }
    let colon = text.find(':').filter(|colon| *colon > 0)?;
    (!text[..colon].contains('/')).then_some(colon)
}

/// The file server begins at the account's home, and knows no tilde.
fn home_relative(path: &str) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => PathBuf::from("."),
        Some(rest) if rest.starts_with('/') => Path::new(".").join(rest.trim_start_matches('/')),
        _ if path.is_empty() => PathBuf::from("."),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ssh::Target;

    fn there(text: &str) -> (Option<String>, String, String) {
        match Location::parse(text).unwrap() {
            Location::There { destination: Destination { login, target }, path } => {
                let host = match target {
                    Target::Host { host, .. } => host,
                    other => other.to_string(),
                };
                (login, host, path.to_str().unwrap().to_owned())
            }
            Location::Here(path) => (None, String::new(), path.to_str().unwrap().to_owned()),
        }
    }

    #[test]
    fn hosts_and_files_are_told_apart() {
        let root = || Some("root".to_owned());
        for (text, login, host, path) in [
            ("file", None, "", "file"),
            ("./a:b", None, "", "./a:b"),
            ("/a:b", None, "", "/a:b"),
            (":b", None, "", ":b"),
            ("web:", None, "web", "."),
            ("web:x y", None, "web", "x y"),
            ("root@web:/etc/a:b", root(), "web", "/etc/a:b"),
            ("root@[::1]:/x", root(), "::1", "/x"),
            ("root@web:~/x", root(), "web", "./x"),
            ("root@web:~", root(), "web", "."),
            ("root@web:~other/x", root(), "web", "~other/x"),
        ] {
            assert_eq!(there(text), (login, host.to_owned(), path.to_owned()), "{text}");
        }
        assert_eq!(there("root@env=test:/x").1, "env=test");
        assert!(Location::parse("@web:x").is_err());
    }
}
