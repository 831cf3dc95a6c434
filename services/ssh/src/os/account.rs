//! Accounts of the host.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist};

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
    fn an_account_that_does_not_exist_is_named_in_the_error() {
        assert_eq!(Account::find("no-such-account").unwrap_err().to_string(), "unknown user \"no-such-account\"");
        assert!(Account::find("bad\0name").is_err());
    }
}
