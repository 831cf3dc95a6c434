//! The cluster's keys for recordings that are kept sealed (`session_recording_config`, `spec.encryption.enabled`).
//!
//! They are in the storage of the cluster, like the keys of its authorities, and never leave the Auth Services: whoever
//! has the recordings alone, on a disk or in an object store, reads nothing.

use std::time::Duration;

use backend::{Item, Key};
use base64::{Engine, engine::general_purpose::STANDARD};
use recording::SealingKey;
use serde::{Deserialize, Serialize};
use wire::error::{Error, ErrorKind, Result};
use zeroize::{Zeroize, Zeroizing};

use crate::{Auth, random, store::storage};

/// Where the keys are kept.
const RECORDINGS: Key = Key::root("/recordings");
/// How often it is looked whether another Auth Service has changed something.
const PERIOD: Duration = Duration::from_secs(5);

/// What is stored: the newest key last.
#[derive(Serialize, Deserialize)]
struct StoredKeys {
    /// Both halves of each, base64.
    keys: Vec<String>,
}

impl Drop for StoredKeys {
    fn drop(&mut self) {
        self.keys.iter_mut().for_each(Zeroize::zeroize);
    }
}

impl Auth {
    /// Follows the settings, which another Auth Service may have changed; ends only by being dropped.
    pub(crate) async fn keep_following_sealing(&self) {
        loop {
            tokio::time::sleep(random::jitter(PERIOD)).await;
            if let Err(error) = self.follow_sealing().await {
                tracing::warn!(%error, "the keys of recordings could not be read, trying again later");
            }
        }
    }

    /// Seals recordings from now on as the settings say, with a key that is made when there is none.
    pub(crate) async fn follow_sealing(&self) -> Result<()> {
        let config = self.recording_config()?;
        let encryption = config.spec.as_ref().and_then(|spec| spec.encryption.as_ref());
        let wanted = encryption.is_some_and(|encryption| encryption.enabled);
        let mut keys = self.sealing_keys().await?;
        if wanted && keys.is_empty() {
            self.make_sealing_key().await?;
            keys = self.sealing_keys().await?;
        }
        self.0.sealing.set(keys, wanted);
        Ok(())
    }

    async fn sealing_keys(&self) -> Result<Vec<SealingKey>> {
        let item = match self.store().backend().get(&place()?).await {
            Ok(item) => item,
            Err(e) if e.is_not_found() => return Ok(Vec::new()),
            Err(e) => return Err(storage(&e)),
        };
        let stored: StoredKeys = crate::store::from_json("keys of recordings", &item)?;
        let read = |text: &String| {
            let bytes = STANDARD.decode(text).map(Zeroizing::new).ok();
            bytes.and_then(|bytes| SealingKey::from_bytes(&bytes))
        };
        let keys: Option<Vec<_>> = stored.keys.iter().map(read).collect();
        keys.ok_or_else(|| Error::other("keys of recordings: what is stored is no key"))
    }

    async fn make_sealing_key(&self) -> Result<()> {
        let key = SealingKey::generate().map_err(Error::from)?;
        let stored = StoredKeys { keys: vec![STANDARD.encode(&*key.to_bytes())] };
        let value = serde_json::to_vec(&stored).map_err(|e| Error::other(e.to_string()))?;
        match self.store().backend().create(Item::new(place()?, value)).await {
            Ok(_) => tracing::info!("session recordings are kept sealed from now on: the cluster's key was made"),
            // Another Auth Service was faster.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(storage(&e)),
        }
        Ok(())
    }
}

fn place() -> Result<Key> {
    RECORDINGS.child("sealing_keys").map_err(|e| storage(&e))
}
