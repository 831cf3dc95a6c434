//! Accounts of the host.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// Files whose presence keeps everybody but root out, nologin(5).
pub const NO_LOGIN: [&str; 2] = ["/run/nologin", "/etc/nologin"];
/// The most that is told of such a file.
const MAX_NOTICE: usize = 4096;

/// A Unix account, with everything a process needs to become it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Primary and supplementary groups.
    pub groups: Vec<Gid>,
    /// Home directory, whether it exists or not.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` when the account names none.
    pub shell: PathBuf,
}

/// Why an account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The host has no such account.
    #[error("unknown user {0:?}")]
    Unknown(String),
    /// The host takes nobody but root at the moment.
    #[error("{0}")]
    Closed(String),
    /// The account database could not be read.
    #[error("looking up user {0:?}: {1}")]
    Lookup(String, nix::Error),
}

impl Account {
    /// Looks an account up in the host's databases. Blocks: call it off the runtime's threads.
    pub fn find(name: &str) -> Result<Self, AccountError> {
        let failed = |e| AccountError::Lookup(name.to_owned(), e);
        let user = User::from_name(name).map_err(failed)?.ok_or_else(|| AccountError::Unknown(name.to_owned()))?;
        let c_name = CString::new(name).map_err(|_| AccountError::Unknown(name.to_owned()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(failed)?;
        let shell = if user.shell.as_os_str().is_empty() { PathBuf::from("/bin/sh") } else { user.shell };
        Ok(Self { name: user.name, uid: user.uid, gid: user.gid, groups, home: user.dir, shell })
    }

    /// Refuses everybody but root while the host has a file that says so.
    ///
    /// # Errors
    /// With what the file says.
    pub fn check_host_is_open(&self, files: &[&str]) -> Result<(), AccountError> {
        if self.uid.is_root() {
            return Ok(());
        }
        match files.iter().find_map(|file| std::fs::read(file).ok()) {
            None => Ok(()),
            Some(text) => {
                let text = String::from_utf8_lossy(text.get(..MAX_NOTICE).unwrap_or(&text)).trim_end().to_owned();
                let silent = "the host takes no logins at the moment".to_owned();
                Err(AccountError::Closed(if text.is_empty() { silent } else { text }))
            }
        }
    }

    /// Whether this process already runs with the account's ids, so that it needs no privilege to start others.
    pub fn is_current(&self) -> bool {
        Uid::effective() == self.uid && Gid::effective() == self.gid
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn root_is_found_with_its_shell_and_groups() {
        let root = Account::find("root").unwrap();
        assert!(root.uid.is_root() && root.groups.contains(&root.gid));
        assert!(root.shell.is_absolute() && root.home.is_absolute());
    }

    #[test]
    fn a_closed_host_lets_root_in_only_and_says_why() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "back at noon\n").unwrap();
        let files = ["/no/such/file", file.path().to_str().unwrap()];
        let root = Account::find("root").unwrap();
        assert!(root.check_host_is_open(&files).is_ok());
        let other = Account { uid: Uid::from_raw(4711), ..root };
        assert_eq!(other.check_host_is_open(&files).unwrap_err().to_string(), "back at noon");
        assert!(other.check_host_is_open(&["/no/such/file"]).is_ok());
    }

    #[test]
    fn an_account_that_does_not_exist_is_named_in_the_error() {
        assert_eq!(Account::find("no-such-account").unwrap_err().to_string(), "unknown user \"no-such-account\"");
        assert!(Account::find("bad\0name").is_err());
    }
}
