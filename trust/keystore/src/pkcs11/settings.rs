//! The files that the settings of a module name.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use config::{Pin, Secret};
use zeroize::Zeroizing;

use crate::Error;

const MODULE_PATH: &str = "auth_service.ca_key_params.pkcs11.module_path";
const PIN_PATH: &str = "auth_service.ca_key_params.pkcs11.pin_path";

/// More than any PIN has.
const LONGEST_PIN: u64 = 4096;

/// Refuses a library that everybody could replace: it runs within this process and sees the PIN.
pub(super) fn check_library(path: &Path) -> Result<(), Error> {
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

/// The PIN, from its file when it is in one.
pub(super) fn read_pin(pin: &Pin) -> Result<Secret, Error> {
    match pin {
        Pin::Value(pin) => Ok(pin.clone()),
        Pin::File(path) => read_file(path).map_err(|reason| Error::Setting { setting: PIN_PATH, reason }),
    }
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = fs::File::open(path).map_err(named)?;
    if file.metadata().map_err(named)?.mode() & 0o004 != 0 {
        return Err(format!("everybody may read {}: run chmod o-r on it", path.display()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST_PIN).read_to_string(&mut text).map_err(named)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        pin => Ok(Secret::new(pin)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn file(folder: &Path, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(format!("{mode:o}-{}", text.len()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_library_that_everybody_could_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_library(&file(folder.path(), "x", 0o755)).is_ok());
        let cases = [
            (file(folder.path(), "x", 0o757), "everybody may write to"),
            (folder.path().to_owned(), "is not a file"),
            (folder.path().join("none"), "No such file"),
            ("module.so".into(), "expected an absolute path"),
        ];
        for (path, reason) in cases {
            let error = check_library(&path).unwrap_err().to_string();
            assert!(error.starts_with(MODULE_PATH) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_pin_is_read_from_a_file_that_not_everybody_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let read = |path: PathBuf| read_pin(&Pin::File(path));
        assert_eq!(read(file(folder.path(), "12 34\n", 0o640)).unwrap().expose(), "12 34");
        let cases = [
            (file(folder.path(), "9876", 0o644), "everybody may read"),
            (file(folder.path(), "\n", 0o600), "is empty"),
            (folder.path().join("none"), "No such file"),
        ];
        for (path, reason) in cases {
            let error = read(path).unwrap_err().to_string();
            assert!(error.starts_with(PIN_PATH) && error.contains(reason) && !error.contains("9876"), "{error}");
        }
        assert_eq!(read_pin(&Pin::Value(Secret::new("9876"))).unwrap().expose(), "9876");
    }
}
