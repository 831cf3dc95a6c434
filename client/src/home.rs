//! The client's folder, `~/.tsh`: where profiles, keys and trusted authorities are kept.
//!
//! Names of proxies, clusters and users become names of files here, so each is checked before it does.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Environment variable that replaces `~/.tsh`.
pub const HOME_VARIABLE: &str = "TELEPORT_HOME";

/// The folder. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

/// What can go wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Reading or writing a file failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A name cannot be the name of a file.
    #[error("{what} {name:?} cannot be a file name")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// How private a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// For its owner only: keys and certificates.
    Secret,
    /// Readable by the group: trusted authorities, profiles.
    Shared,
}

impl Home {
    /// The folder at a path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// `$TELEPORT_HOME`, else `~/.tsh`.
    pub fn from_environment() -> Self {
        if let Some(path) = std::env::var_os(HOME_VARIABLE).filter(|p| !p.is_empty()) {
            return Self::at(path);
        }
        let home = std::env::home_dir().filter(|h| !h.as_os_str().is_empty()).unwrap_or_else(std::env::temp_dir);
        Self::at(home.join(".tsh"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The profile file of a proxy.
    pub fn profile(&self, proxy_host: &str) -> Result<PathBuf, HomeError> {
        Ok(self.path.join(format!("{}.yaml", name("proxy", proxy_host)?)))
    }

    /// The file that names the current profile.
    pub fn current_profile(&self) -> PathBuf {
        self.path.join("current-profile")
    }

    /// The authorities that vouch for SSH hosts.
    pub fn known_hosts(&self) -> PathBuf {
        self.path.join("known_hosts")
    }

    /// The folder of a proxy's keys.
    pub fn keys(&self, proxy_host: &str) -> Result<PathBuf, HomeError> {
        Ok(self.path.join("keys").join(name("proxy", proxy_host)?))
    }

    /// All authorities of a proxy's clusters in one file.
    pub fn all_authorities(&self, proxy_host: &str) -> Result<PathBuf, HomeError> {
        Ok(self.keys(proxy_host)?.join("certs.pem"))
    }

    /// The authorities of one cluster.
    pub fn authorities(&self, proxy_host: &str, cluster: &str) -> Result<PathBuf, HomeError> {
        Ok(self.keys(proxy_host)?.join("cas").join(format!("{}.pem", name("cluster", cluster)?)))
    }

    /// A user's SSH private key.
    pub fn ssh_key(&self, proxy_host: &str, user: &str) -> Result<PathBuf, HomeError> {
        Ok(self.keys(proxy_host)?.join(name("user", user)?))
    }

    /// A user's SSH certificate for a cluster.
    pub fn ssh_certificate(&self, proxy_host: &str, user: &str, cluster: &str) -> Result<PathBuf, HomeError> {
        let folder = format!("{}-ssh", name("user", user)?);
        Ok(self.keys(proxy_host)?.join(folder).join(format!("{}-cert.pub", name("cluster", cluster)?)))
    }

    /// A file of a user's beside the SSH key: `.pub`, `.key` (TLS key), `.crt` (TLS certificate).
    pub fn user_file(&self, proxy_host: &str, user: &str, suffix: &str) -> Result<PathBuf, HomeError> {
        Ok(self.keys(proxy_host)?.join(format!("{}{suffix}", name("user", user)?)))
    }
}

/// A name that may be part of a path: neither empty nor leading elsewhere.
fn name<'a>(what: &'static str, name: &'a str) -> Result<&'a str, HomeError> {
    let bad = name.is_empty() || name == "." || name.contains("..") || name.contains(['/', '\\', '\0']);
    if bad { Err(HomeError::Name { what, name: name.to_owned() }) } else { Ok(name) }
}

/// Reads a text file; `None` when it does not exist.
pub fn read(path: &Path) -> Result<Option<String>, HomeError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HomeError::File { action: "reading", path: path.to_owned(), source }),
    }
}

/// Writes a file whole or not at all, creating its folder.
pub fn write(path: &Path, contents: &[u8], privacy: Privacy) -> Result<(), HomeError> {
    let failed = |source| HomeError::File { action: "writing", path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mode = match privacy {
        Privacy::Secret => 0o600,
        Privacy::Shared => 0o640,
    };
    let unique = format!("{}.{}.tmp", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id());
    let temporary = path.with_file_name(unique);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary); // the error that counts is the first one
        failed(source)
    })
}

/// Removes a file or folder; that it does not exist is fine.
pub fn remove(path: &Path) -> Result<(), HomeError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HomeError::File { action: "removing", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let home = Home::at("/home/alice/.tsh");
        for bad in ["", "..", "../etc", "a/b", "a\0"] {
            assert!(home.ssh_key("proxy", bad).is_err(), "{bad:?}");
            assert!(home.authorities("proxy", bad).is_err(), "{bad:?}");
        }
        let key = home.ssh_certificate("proxy.example.com", "alice", "main").unwrap();
        assert_eq!(key, Path::new("/home/alice/.tsh/keys/proxy.example.com/alice-ssh/main-cert.pub"));
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/p/alice");
        write(&path, b"secret", Privacy::Secret).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().as_deref(), Some("secret"));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
