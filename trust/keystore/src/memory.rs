//! A module in memory, for tests: its keys go with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey, SignatureScheme, Signer};

use crate::{Error, Module};

const PLACE: &str = "module in memory";

/// Keys of a module that is none. It does not care for upper and lower case in their ids.
#[derive(Debug, Default)]
pub struct MemoryModule {
    keys: Mutex<HashMap<String, PrivateKey>>,
    room: Mutex<Option<usize>>,
    made: AtomicUsize,
    away: AtomicBool,
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    closed: bool,
    waiting: usize,
}

/// Keeps a module from signing for as long as it lives.
#[derive(Debug)]
pub struct Gate(Arc<MemoryModule>);

impl MemoryModule {
    /// Keeps it from signing until the gate is dropped.
    pub fn hold(self: &Arc<Self>) -> Gate {
        self.held.lock().closed = true;
        Gate(Arc::clone(self))
    }

    /// Waits until somebody waits for a signature.
    pub fn waited_for(&self) {
        let mut held = self.held.lock();
        self.changed.wait_while(&mut held, |held| held.waiting == 0);
    }

    /// Gives it room for so many keys, those included that it has; without this there is always room.
    pub fn set_room(&self, keys: usize) {
        *self.room.lock() = Some(keys);
    }

    /// Whether it fails to say which keys it has.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// The ids of its keys.
    pub fn ids(&self) -> Vec<String> {
        self.keys.lock().keys().cloned().collect()
    }

    fn failed(what: &'static str, reason: &str) -> Error {
        Error::Module { place: PLACE.to_owned(), what, reason: reason.to_owned() }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.held.lock().closed = false;
        self.0.changed.notify_all();
    }
}

impl Module for MemoryModule {
    fn generate(&self, algorithm: KeyAlgorithm) -> Result<(String, PublicKey), Error> {
        if algorithm == KeyAlgorithm::Ed25519 {
            return Err(Self::failed("making a key", "no such kind of key"));
        }
        if self.room.lock().is_some_and(|room| self.keys.lock().len() >= room) {
            return Err(Self::failed("making a key", "there is no room"));
        }
        let key = PrivateKey::generate(algorithm)?;
        let (id, public) = (format!("key-{}", self.made.fetch_add(1, Ordering::Relaxed)), key.public().clone());
        self.keys.lock().insert(id.clone(), key);
        Ok((id, public))
    }

    fn sign(&self, key_id: &str, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut held = self.held.lock();
        held.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut held, |held| held.closed);
        held.waiting -= 1;
        drop(held);
        let key = self.keys.lock().get(&self.canonical_id(key_id)).cloned();
        let key = key.ok_or_else(|| Self::failed("signing", "no such key"))?;
        Ok(Signer::sign(&key, scheme, message)?)
    }

    fn key_ids(&self) -> Result<Vec<String>, Error> {
        if self.away.load(Ordering::Relaxed) { Err(Self::failed("listing keys", "it is away")) } else { Ok(self.ids()) }
    }

    fn delete(&self, key_id: &str) -> Result<(), Error> {
        self.keys.lock().remove(key_id).map(drop).ok_or_else(|| Self::failed("removing a key", "no such key"))
    }

    fn canonical_id(&self, key_id: &str) -> String {
        key_id.to_lowercase()
    }

    fn place(&self) -> &str {
        PLACE
    }
}
