//! Logging out: removing what a login has left.

use std::fs;

use crate::error::{Error, Result};
use crate::home::{Home, remove};
use crate::keys;
use crate::profile::Profile;

/// Folders with the user's own settings, which stay.
const KEPT: [&str; 2] = ["config", "azure"];

/// Removes the credentials and profiles of all proxies.
pub fn everywhere(home: &Home) -> Result<()> {
    let entries = match fs::read_dir(home.path()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("reading {}", home.path().display()))(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(format!("reading {}", home.path().display())))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !(is_folder && KEPT.iter().any(|kept| entry.file_name() == *kept)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the credentials and the profile of one proxy; says whether there were any.
pub fn from_proxy(home: &Home, proxy_host: &str) -> Result<bool> {
    let known = Profile::load(home, proxy_host)?.is_some();
    keys::forget(home, proxy_host)?;
    remove(&home.profile(proxy_host)?)?;
    if Profile::current_name(home)?.as_deref() == Some(proxy_host) {
        remove(&home.current_profile())?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn logging_out_leaves_nothing_but_settings() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        for proxy in ["a.test:3080", "b.test:3080"] {
            Profile { web_proxy_addr: proxy.into(), ..Default::default() }.save(&home, true).unwrap();
        }
        fs::create_dir(folder.path().join("config")).unwrap();
        assert!(from_proxy(&home, "b.test").unwrap());
        assert!(!from_proxy(&home, "b.test").unwrap());
        assert_eq!(Profile::current_name(&home).unwrap(), None);
        assert_eq!(Profile::all(&home).unwrap().len(), 1);
        everywhere(&home).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["config"]);
        everywhere(&Home::at(folder.path().join("missing"))).unwrap();
    }
}
