//! What a module is opened with, and the files that are named there.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::Error;

const MODULE_PATH: &str = "auth_service.ca_key_params.pkcs11.module_path";
const PIN_PATH: &str = "auth_service.ca_key_params.pkcs11.pin_path";

/// More than any PIN has.
const LONGEST_PIN: u64 = 4096;

/// What a module is opened with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The library that the module's vendor gives out.
    pub module_path: PathBuf,
    /// Which of its tokens.
    pub token: TokenChoice,
    /// What the token is logged in with.
    pub pin: Pin,
}

/// Which token of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChoice {
    /// The one with this label.
    Label(String),
    /// The one in this slot.
    Slot(u64),
}

/// What a token is logged in with.
#[derive(Clone)]
pub enum Pin {
    /// The PIN itself.
    Text(Zeroizing<String>),
    /// The file that holds it.
    File(PathBuf),
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Settings {
    /// Refuses a library that everybody could replace: it runs within this process and sees the PIN.
    pub(super) fn check_library(&self) -> Result<(), Error> {
        let path = &self.module_path;
        let refused = |reason: String| Error::Setting { setting: MODULE_PATH, reason };
        if !path.is_absolute() {
            return Err(refused(format!("expected an absolute path, found {:?}", path.display().to_string())));
        }
        let about = fs::metadata(path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
        if !about.is_file() {
            return Err(refused(format!("{} is not a file", path.display())));
        }
        if about.mode() & 0o002 != 0 {
            return Err(refused(format!("everybody may write to {}: run chmod o-w on it", path.display())));
        }
        Ok(())
    }

    /// The PIN.
    pub(super) fn read_pin(&self) -> Result<Zeroizing<String>, Error> {
        match &self.pin {
            Pin::Text(pin) => Ok(pin.clone()),
            Pin::File(path) => {
                read_pin(path).map_err(|reason| Error::Setting { setting: PIN_PATH, reason: reason.to_string() })
            }
        }
    }
}

fn read_pin(path: &Path) -> Result<Zeroizing<String>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = fs::File::open(path).map_err(named)?;
    if file.metadata().map_err(named)?.mode() & 0o004 != 0 {
        return Err(format!("everybody may read {}: run chmod o-r on it", path.display()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST_PIN).read_to_string(&mut text).map_err(named)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        pin => Ok(Zeroizing::new(pin.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(folder: &Path, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(format!("{mode:o}-{}", text.len()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn settings(module_path: PathBuf, pin: Pin) -> Settings {
        Settings { module_path, token: TokenChoice::Slot(0), pin }
    }

    #[test]
    fn a_library_that_everybody_could_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let check = |path: PathBuf| settings(path, Pin::File("/p".into())).check_library();
        assert!(check(file(folder.path(), "x", 0o755)).is_ok());
        let cases = [
            (file(folder.path(), "x", 0o757), "everybody may write to"),
            (folder.path().to_owned(), "is not a file"),
            (folder.path().join("none"), "No such file"),
            ("module.so".into(), "expected an absolute path"),
        ];
        for (path, reason) in cases {
            let error = check(path).unwrap_err().to_string();
            assert!(error.starts_with(MODULE_PATH) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_pin_is_read_from_a_file_that_not_everybody_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let read = |path: PathBuf| settings("/m".into(), Pin::File(path)).read_pin();
        assert_eq!(*read(file(folder.path(), "12 34\n", 0o640)).unwrap(), "12 34");
        let cases = [
            (file(folder.path(), "9876", 0o644), "everybody may read"),
            (file(folder.path(), "\n", 0o600), "is empty"),
            (folder.path().join("none"), "No such file"),
        ];
        for (path, reason) in cases {
            let error = read(path).unwrap_err().to_string();
            assert!(error.starts_with(PIN_PATH) && error.contains(reason) && !error.contains("9876"), "{error}");
        }
        let shown = format!("{:?}", settings("/m".into(), Pin::Text(Zeroizing::new("9876".to_owned()))));
        assert!(!shown.contains("9876"), "{shown}");
    }
}
