//! The cluster's keys for recordings that are kept sealed (`session_recording_config`, `spec.encryption.enabled`).
//!
//! They are in the storage of the cluster, like the keys of its authorities, and never leave the Auth Services: whoever
//! has the recordings alone, on a disk or in an object store, reads nothing.

use std::time::Duration;

use backend::{Item, Key};
use base64::{Engine, engine::general_purpose::STANDARD};
use recording::{Keyring, SealingKey};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use wire::error::{Error, ErrorKind, Result};
use zeroize::{Zeroize, Zeroizing};

use crate::{Auth, Caller, random, store::storage};

/// Where the keys are kept.
const RECORDINGS: Key = Key::root("/recordings");
/// The most keys that are kept. None is ever removed, as recordings may be sealed to it.
const MAX_KEYS: usize = 256;
/// How often it is looked whether another Auth Service has changed something.
const PERIOD: Duration = Duration::from_secs(5);

/// What is stored: the newest key last.
#[derive(Serialize, Deserialize)]
struct StoredKeys {
    /// Both halves of each, base64.
    keys: Vec<String>,
}

/// The keys as recordings are sealed and opened with them.
#[derive(Default)]
pub(crate) struct Sealing {
    pub(crate) ring: Keyring,
    /// Held from reading the keys until they are in the ring, so that nobody puts an older list over a newer one.
    following: Mutex<()>,
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
        let _one_at_a_time = self.0.sealing.following.lock().await;
        let wanted = self.seals()?;
        let mut keys = self.stored_keys().await?.map(|stored| stored.keys).unwrap_or_default();
        if wanted && keys.is_empty() {
            let key = SealingKey::generate().map_err(Error::from)?;
            match self.store().backend().create(item(std::slice::from_ref(&key), None)?).await {
                Ok(_) => tracing::info!(key = key.name(), "recordings are kept sealed from now on: a key was made"),
                // Another Auth Service was faster.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(storage(&e)),
            }
            keys = self.stored_keys().await?.map(|stored| stored.keys).unwrap_or_default();
        }
        self.0.sealing.ring.set(keys, wanted);
        Ok(())
    }

    fn seals(&self) -> Result<bool> {
        let config = self.recording_config()?;
        let encryption = config.spec.as_ref().and_then(|spec| spec.encryption.as_ref());
        Ok(encryption.is_some_and(|encryption| encryption.enabled))
    }

    /// The keys of recordings, and whether new recordings are sealed.
    ///
    /// # Errors
    /// Those of the storage.
    pub async fn sealing_status(&self) -> Result<SealingStatus> {
        let keys = self.stored_keys().await?.map(|stored| stored.keys).unwrap_or_default();
        Ok(SealingStatus { enabled: self.seals()?, keys: keys.iter().map(SealingKey::name).collect() })
    }

    /// Makes a new key, to which recordings are sealed from now on. What was sealed to others stays readable.
    ///
    /// # Errors
    /// `BadParameter` while recordings are not sealed, `CompareFailed` when somebody else does the same,
    /// `LimitExceeded` for more keys than anybody needs.
    pub async fn rotate_sealing_key(&self, caller: &Caller) -> Result<SealingStatus> {
        if !self.seals()? {
            return Err(Error::bad_parameter(
                "recordings are not sealed: set spec.encryption.enabled of session_recording_config first",
            ));
        }
        self.follow_sealing().await?;
        let Some(mut stored) = self.stored_keys().await? else {
            return Err(Error::other("the keys of recordings were removed meanwhile"));
        };
        if stored.keys.len() >= MAX_KEYS {
            return Err(Error::limit_exceeded(format!("there are {MAX_KEYS} keys of recordings already")));
        }
        let key = SealingKey::generate().map_err(Error::from)?;
        let name = key.name();
        stored.keys.push(key);
        let changed = item(&stored.keys, Some(stored.revision))?;
        self.store().backend().conditional_update(changed).await.map_err(|e| storage(&e))?;
        tracing::info!(key = name, "recordings are sealed to a new key from now on");
        // What is stored is told, whether it can be followed here or not.
        self.emit_recording(caller).await?;
        self.follow_sealing().await?;
        self.sealing_status().await
    }

    async fn stored_keys(&self) -> Result<Option<Known>> {
        let item = match self.store().backend().get(&place()?).await {
            Ok(item) => item,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(storage(&e)),
        };
        let stored: StoredKeys = crate::store::from_json("keys of recordings", &item)?;
        let read = |text: &String| {
            let bytes = STANDARD.decode(text).map(Zeroizing::new).ok();
            bytes.and_then(|bytes| SealingKey::from_bytes(&bytes))
        };
        let keys: Option<Vec<_>> = stored.keys.iter().map(read).collect();
        let keys = keys.ok_or_else(|| Error::other("keys of recordings: what is stored is no key"))?;
        Ok(Some(Known { keys, revision: item.revision.clone() }))
    }
}

/// The keys as they are stored, of one revision.
struct Known {
    keys: Vec<SealingKey>,
    revision: String,
}

/// How recordings are kept.
#[derive(Debug, Serialize)]
pub struct SealingStatus {
    /// Whether new ones are sealed.
    pub enabled: bool,
    /// The names of the keys, the newest last.
    pub keys: Vec<String>,
}

fn item(keys: &[SealingKey], revision: Option<String>) -> Result<Item> {
    let stored = StoredKeys { keys: keys.iter().map(|key| STANDARD.encode(&*key.to_bytes())).collect() };
    let value = serde_json::to_vec(&stored).map_err(|e| Error::other(e.to_string()))?;
    let mut item = Item::new(place()?, value);
    if let Some(revision) = revision {
        item.revision = revision;
    }
    Ok(item)
}

fn place() -> Result<Key> {
    RECORDINGS.child("sealing_keys").map_err(|e| storage(&e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{Write, testing::Service};

    #[tokio::test]
    async fn whoever_reads_the_keys_is_done_with_them_before_the_next_reads_them() {
        let service = Service::start().await;
        let mut config = resources::cluster::session_recording_config();
        config.spec.get_or_insert_default().encryption =
            Some(wire::types::SessionRecordingEncryptionConfig { enabled: true });
        service.auth.set_recording_config(&service.admin(), config, Write::Upsert).await.unwrap();
        let reading = service.auth.0.sealing.following.lock().await;
        let (auth, admin) = (service.auth.clone(), service.admin());
        let rotating = tokio::spawn(async move { auth.rotate_sealing_key(&admin).await });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!rotating.is_finished());
        drop(reading);
        assert_eq!(rotating.await.unwrap().unwrap().keys.len(), 2);
        assert_eq!(service.names_of_events().last().map(String::as_str), Some("session_recording_config.update"));
    }
}
