//! A token of SoftHSM, which keeps tokens in a folder. Its library reads from the environment where, so tests with a token run
//! in a process of their own. Without SoftHSM they are passed over, unless `TESTS_COMPLETE` is set.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use config::{KeyModule, Pin, Secret, TokenChoice};

/// The PIN of the token.
pub(super) const PIN: &str = "24681357";
const CONF: &str = "SOFTHSM2_CONF";

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let found = folders.flat_map(|folder| [folder.join("libsofthsm2.so"), folder.join("softhsm/libsofthsm2.so")]);
    found.into_iter().find(|path| path.is_file())
}

/// Runs a test once more, in a process that has a token `keys`; nothing where there is no SoftHSM. The library, in that process.
pub(super) fn with_token(test: &str) -> Option<PathBuf> {
    let library = library();
    assert!(library.is_some() || env::var_os("TESTS_COMPLETE").is_none(), "SoftHSM is missing: run tests/setup --all");
    let library = library?;
    if env::var_os(CONF).is_some() {
        return Some(library);
    }
    let folder = tempfile::tempdir().unwrap();
    make_token(folder.path());
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture"]).env(CONF, folder.path().join("conf"));
    let ran = again.output().unwrap();
    let (said, failed) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}{failed}");
    None
}

fn make_token(folder: &Path) {
    let (tokens, conf) = (folder.join("tokens"), folder.join("conf"));
    fs::create_dir(&tokens).unwrap();
    fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
    let mut init = Command::new("softhsm2-util");
    init.args(["--init-token", "--free", "--label", "keys", "--so-pin", "9999", "--pin", PIN]).env(CONF, &conf);
    let made = init.output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Settings for a token with this label.
pub(super) fn settings(library: &Path, label: &str, pin: &str) -> KeyModule {
    let (module_path, token) = (library.to_owned(), TokenChoice::Label(label.to_owned()));
    KeyModule { module_path, token, pin: Pin::Value(Secret::new(pin)) }
}
