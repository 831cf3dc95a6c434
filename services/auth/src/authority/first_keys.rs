//! What a first start leaves in a module when it ends before the storage names its keys.
//!
//! A module with keys that the storage does not name is refused, because it may be the storage that is the wrong one; so
//! the next start would be refused as well. Whether a failed write was done after all is not known, so keys cannot be
//! removed at once either. They are noted in a file until the storage names them, and the next start that still finds no
//! cluster removes those in the file, and no others.

use std::{
    fs,
    io::{ErrorKind as IoErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use keystore::{KeyStore, Place};
use wire::{
    error::{Error, Result},
    types::CertAuthorityV2,
};

use super::{kept, tend::stored_keys};
use crate::AuthConfig;

const FILE: &str = "first_keys";

/// Keys of an attempt that nobody has heard of yet.
pub(crate) struct FirstKeys {
    file: PathBuf,
    keys: KeyStore,
}

impl FirstKeys {
    /// Those of the service of this configuration.
    pub(crate) fn of(config: &AuthConfig) -> Self {
        Self { file: config.data_dir.join(FILE), keys: config.key_store.clone() }
    }

    /// Notes those that were just made in the module, before they are stored.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn note(&self, made: &[CertAuthorityV2]) -> Result<()> {
        let in_module = stored_keys(made).filter(|key| matches!(Place::of(key), Place::Pkcs11(_)));
        let names: Vec<_> = in_module.map(String::from_utf8_lossy).collect();
        if names.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_vec(&names).map_err(|error| Error::other(error.to_string()))?;
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.file);
        file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all())).map_err(|e| self.failed(&e))
    }

    /// The storage names them, or the cluster is another's.
    pub(crate) fn forget(&self) {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != IoErrorKind::NotFound => tracing::warn!(error = %self.failed(&error)),
            _ => {}
        }
    }

    /// Removes those of an earlier attempt that made no cluster.
    ///
    /// # Errors
    /// When the file cannot be read, or the module does not answer.
    pub(crate) async fn remove(self) -> Result<()> {
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed(&error)),
        };
        let Ok(names) = serde_json::from_slice::<Vec<String>>(&text) else {
            // It was not written to its end, which is before anything was stored.
            tracing::warn!(file = %self.file.display(), "the keys that an earlier start made cannot be read");
            return Ok(());
        };
        let keys = self.keys.clone();
        let removing = tokio::task::spawn_blocking(move || keys.delete(names.iter().map(String::as_bytes)));
        let removed = removing.await.map_err(|_| Error::other("removing keys from the module failed"))?;
        tracing::info!(
            count = removed.map_err(kept)?,
            "keys of a first start that failed were removed from the module"
        );
        self.forget();
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::other(format!("{}: {error}", self.file.display()))
    }
}
