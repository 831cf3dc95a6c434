//! A security module in software.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::lacks;

/// The variable that says where the module's library finds its settings.
const CONF: &str = "SOFTHSM2_CONF";

/// A module with one token.
pub struct SoftHsm {
    library: PathBuf,
    folder: TempDir,
}

impl SoftHsm {
    /// The PIN of the token.
    pub const PIN: &'static str = "pin-97531-of-e2e";

    /// Makes a token; `None` where the module is not installed.
    #[track_caller]
    pub fn make() -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let candidates = folders.flat_map(|f| [f.join("libsofthsm2.so"), f.join("softhsm/libsofthsm2.so")]);
        let Some(library) = candidates.into_iter().find(|path| path.is_file()) else { return lacks("SoftHSM") };
        let folder = tempfile::tempdir().expect("make a temporary folder");
        let hsm = Self { library, folder };
        fs::create_dir(hsm.path("tokens")).expect("make a folder");
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", hsm.path("tokens").display());
        fs::write(hsm.path("conf"), conf).expect("write the module's settings");
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", "e2e", "--so-pin", "e2e-officer", "--pin", Self::PIN]);
        let made = init.env(CONF, hsm.path("conf")).output().expect("run softhsm2-util");
        assert!(made.status.success(), "{made:?}");
        hsm.set_pin(Self::PIN);
        Some(hsm)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes this PIN into the file that clusters read it from.
    pub fn set_pin(&self, pin: &str) {
        let path = self.path("pin");
        fs::write(&path, format!("{pin}\n")).expect("write a PIN");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("protect a PIN");
    }

    /// Lets everybody read the file with the PIN.
    pub fn expose_pin(&self) {
        fs::set_permissions(self.path("pin"), fs::Permissions::from_mode(0o644)).expect("expose a PIN");
    }

    /// Settings of `auth_service` that keep keys in the token.
    pub fn settings(&self) -> Value {
        json!({ "ca_key_params": { "pkcs11": {
            "module_path": self.library, "token_label": "e2e", "pin_path": self.path("pin"),
        } } })
    }

    /// What the environment of a process with these settings needs.
    pub fn variables(&self) -> Vec<(String, String)> {
        vec![(CONF.to_owned(), self.path("conf").display().to_string())]
    }

    /// How many key pairs the token has.
    pub fn pairs(&self) -> usize {
        let tokens = fs::read_dir(self.path("tokens")).into_iter().flatten().flatten();
        let files = tokens.flat_map(|token| fs::read_dir(token.path()).into_iter().flatten().flatten());
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        // A file for each half, and one that describes the token.
        names.filter(|name| name.ends_with(".object") && name != "token.object").count() / 2
    }
}
