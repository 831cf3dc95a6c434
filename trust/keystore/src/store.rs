//! Making keys, and finding those that are usable here.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use pki::authority::CaType;
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey, Signer};
use pki::suite::{SignatureSuite, algorithm_for};

use crate::signer::ModuleKey;
use crate::{Error, KeyReference, Module, Place};

/// Makes keys of authorities and signs with them; clones share everything. The default keeps keys in the storage of the
/// cluster.
#[derive(Clone, Default)]
pub struct KeyStore {
    own: Option<Own>,
}

/// The module of this host.
#[derive(Clone)]
struct Own {
    host_id: String,
    module: Arc<dyn Module>,
}

/// A key that was just made.
#[derive(Debug)]
pub struct NewKey {
    /// Signs with it.
    pub signer: Arc<dyn Signer>,
    /// What is to be stored for it: the key itself, or a reference.
    pub stored: Vec<u8>,
    /// See [`Place::number`].
    pub place: i32,
}

/// Whether a stored key can sign here; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usability {
    /// It is where this store makes keys.
    Preferred,
    /// It can sign, but a new key would be made elsewhere.
    Usable,
    /// It is somewhere that this store cannot reach.
    Foreign,
}

impl KeyStore {
    /// Keeps keys in the module of the host of this UUID.
    #[must_use]
    pub fn in_module(host_id: &str, module: Arc<dyn Module>) -> Self {
        Self { own: Some(Own { host_id: host_id.to_owned(), module }) }
    }

    /// Whether new keys are made in a module.
    #[must_use]
    pub fn has_module(&self) -> bool {
        self.own.is_some()
    }

    /// Refuses a suite with kinds of key that the module does not have.
    ///
    /// # Errors
    /// [`Error::Suite`].
    pub fn check_suite(&self, suite: SignatureSuite) -> Result<(), Error> {
        let needs = |ca: &CaType| ca.keys().iter().any(|(_, of)| algorithm_for(suite, *of) == KeyAlgorithm::Ed25519);
        if self.has_module() && CaType::ALL.iter().any(needs) { Err(Error::Suite(suite)) } else { Ok(()) }
    }

    /// Makes a key. Waits for the module: not for asynchronous code.
    ///
    /// # Errors
    /// When the module or the cryptographic library does not make it.
    pub fn generate(&self, algorithm: KeyAlgorithm) -> Result<NewKey, Error> {
        let Some(Own { host_id, module }) = &self.own else {
            let key = PrivateKey::generate(algorithm)?;
            let stored = key.to_pem()?.as_bytes().to_vec();
            return Ok(NewKey { signer: key.into(), stored, place: Place::Software.number() });
        };
        let (key_id, public) = module.generate(algorithm)?;
        let reference = KeyReference { host_id: host_id.clone(), key_id: key_id.clone() };
        let signer = ModuleKey { module: Arc::clone(module), key_id, public };
        // One that does not sign is found out before anything trusts it.
        signer.sign(algorithm.x509_scheme(), b"a new key signs")?;
        let stored = reference.to_stored();
        Ok(NewKey { signer: Arc::new(signer), stored, place: Place::Pkcs11(reference).number() })
    }

    /// Whether a stored key can sign here.
    #[must_use]
    pub fn usability(&self, stored: &[u8]) -> Usability {
        match (Place::of(stored), &self.own) {
            (Place::Software, None) => Usability::Preferred,
            (Place::Software, Some(_)) => Usability::Usable,
            (Place::Pkcs11(reference), Some(own)) if reference.host_id == own.host_id => Usability::Preferred,
            _ => Usability::Foreign,
        }
    }

    /// What signs with a stored key. Nothing is asked of the module before it signs.
    ///
    /// # Errors
    /// [`Error::Foreign`] for keys that are not usable here, [`Error::Key`] for malformed ones.
    pub fn signer(&self, stored: &[u8], public: &PublicKey) -> Result<Arc<dyn Signer>, Error> {
        match (Place::of(stored), &self.own) {
            (Place::Software, _) => Ok(PrivateKey::from_pem(&String::from_utf8_lossy(stored))?.into()),
            (Place::Pkcs11(reference), Some(own)) if reference.host_id == own.host_id => Ok(Arc::new(ModuleKey {
                module: Arc::clone(&own.module),
                key_id: reference.key_id,
                public: public.clone(),
            })),
            (place, _) => Err(Error::Foreign(place.to_string())),
        }
    }

    /// Refuses a module with keys of this host of which none is among all those stored: before something else is stored with
    /// it, and [`delete_unused`](Self::delete_unused) takes them for unused. Waits for the module: not for asynchronous code.
    ///
    /// # Errors
    /// [`Error::Unnamed`], and when the module does not answer.
    pub fn check_named<'a>(&self, stored: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        match own.keys(stored) {
            Ok((used, present)) if used.is_empty() && !present.is_empty() => {
                let (place, host_id) = (own.module.place().to_owned(), own.host_id.clone());
                Err(Error::Unnamed { place, count: present.len(), host_id })
            }
            // It may be the name of one; nothing is removed while that is so.
            Ok(_) | Err(Error::Unreadable) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes those of these stored keys that are in the module of this host; how many there were. Waits for the module:
    /// not for asynchronous code.
    ///
    /// # Errors
    /// [`Error::Unreadable`], and when the module does not answer.
    pub fn delete<'a>(&self, stored: impl IntoIterator<Item = &'a [u8]>) -> Result<usize, Error> {
        let Some(own) = &self.own else { return Ok(0) };
        let (named, present) = own.keys(stored)?;
        let there: Vec<&String> = present.iter().filter(|id| named.contains(*id)).collect();
        there.iter().try_for_each(|id| own.module.delete(id))?;
        Ok(there.len())
    }

    /// Removes the keys of this host from the module that are not among all those stored; how many there were. Waits for the
    /// module: not for asynchronous code.
    ///
    /// # Errors
    /// [`Error::Missing`] when stored keys are not in the module; then nothing is removed, because it is not the module
    /// that it should be. [`Error::Unreadable`], and when the module does not answer.
    pub fn delete_unused<'a>(&self, stored: impl IntoIterator<Item = &'a [u8]>) -> Result<usize, Error> {
        let Some(own) = &self.own else { return Ok(0) };
        let (used, present) = own.keys(stored)?;
        let missing: Vec<String> = used.iter().filter(|id| !present.contains(*id)).cloned().collect();
        if !missing.is_empty() {
            return Err(Error::Missing { place: own.module.place().to_owned(), missing });
        }
        let unused: Vec<&String> = present.iter().filter(|id| !used.contains(*id)).collect();
        unused.iter().try_for_each(|id| own.module.delete(id))?;
        Ok(unused.len())
    }
}

impl Own {
    /// The ids of the keys of this host: of those stored, and of those in the module.
    fn keys<'a>(&self, stored: impl IntoIterator<Item = &'a [u8]>) -> Result<(HashSet<String>, Vec<String>), Error> {
        let mut used = HashSet::new();
        for place in stored.into_iter().map(Place::of) {
            match place {
                Place::Pkcs11(reference) if reference.host_id == self.host_id => {
                    used.insert(self.module.canonical_id(&reference.key_id));
                }
                Place::Unreadable => return Err(Error::Unreadable),
                _ => {}
            }
        }
        Ok((used, self.module.key_ids()?))
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.own {
            Some(own) => write!(f, "KeyStore({})", own.module.place()),
            None => f.write_str("KeyStore(software)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::memory::MemoryModule;

    const BOTH: [KeyAlgorithm; 2] = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048];

    fn of_host(host: &str, module: &Arc<MemoryModule>) -> KeyStore {
        KeyStore::in_module(host, module.clone())
    }

    #[test]
    fn a_key_in_a_module_signs_as_its_reference_says_and_is_not_stored() {
        let module = Arc::new(MemoryModule::default());
        let store = of_host("here", &module);
        for algorithm in BOTH {
            let key = store.generate(algorithm).unwrap();
            assert_eq!(key.place, 1);
            assert!(key.stored.starts_with(br#"pkcs11:{"host_id":"here","key_id":""#));
            let again = store.signer(&key.stored, key.signer.public_key()).unwrap();
            for scheme in [algorithm.x509_scheme(), algorithm.ssh_scheme()] {
                let signature = again.sign(scheme, b"text").unwrap();
                assert!(key.signer.public_key().verifies(scheme, b"text", &signature));
            }
        }
    }

    #[test]
    fn a_reference_to_another_key_signs_nothing() {
        let store = of_host("here", &Arc::new(MemoryModule::default()));
        let (one, other) = (store.generate(BOTH[0]).unwrap(), store.generate(BOTH[0]).unwrap());
        let wrong = store.signer(&one.stored, other.signer.public_key()).unwrap();
        let error = wrong.sign(BOTH[0].x509_scheme(), b"text").unwrap_err();
        assert!(error.to_string().contains("signs otherwise"), "{error}");
    }

    #[test]
    fn keys_are_usable_where_they_are() {
        let module = Arc::new(MemoryModule::default());
        let (software, here, there) = (KeyStore::default(), of_host("here", &module), of_host("there", &module));
        let (raw, own) = (software.generate(BOTH[0]).unwrap(), here.generate(BOTH[0]).unwrap());
        assert!(raw.stored.starts_with(b"-----BEGIN") && raw.place == 0);
        let of = |stored: &[u8]| [&software, &here, &there].map(|store| store.usability(stored));
        assert_eq!(of(&raw.stored), [Usability::Preferred, Usability::Usable, Usability::Usable]);
        assert_eq!(of(&own.stored), [Usability::Foreign, Usability::Preferred, Usability::Foreign]);
        assert_eq!(of(b""), [Usability::Foreign; 3]);
        let error = there.signer(&own.stored, own.signer.public_key()).unwrap_err();
        assert_eq!(error.to_string(), "the key is not usable here: PKCS#11 HSM keys created by here");
        assert!(here.signer(&raw.stored, raw.signer.public_key()).is_ok());
    }

    #[test]
    fn keys_that_nobody_names_are_removed_unless_it_is_another_token() {
        let module = Arc::new(MemoryModule::default());
        let store = of_host("here", &module);
        let (used, unused) = (store.generate(BOTH[0]).unwrap(), store.generate(BOTH[0]).unwrap());
        assert_eq!(store.delete_unused([used.stored.as_slice(), b"-----BEGIN"]).unwrap(), 1);
        let [kept, made] = [(); 2].map(|()| store.generate(KeyAlgorithm::EcdsaP256).unwrap());
        assert_eq!(store.delete([made.stored.as_slice(), b"-----BEGIN"]).unwrap(), 1);
        assert_eq!(store.delete([made.stored.as_slice()]).unwrap(), 0, "it is gone");
        assert_eq!(store.delete([kept.stored.as_slice()]).unwrap(), 1);
        assert!(used.signer.sign(BOTH[0].x509_scheme(), b"text").is_ok());
        assert!(unused.signer.sign(BOTH[0].x509_scheme(), b"text").is_err());
        let fresh = store.generate(BOTH[0]).unwrap();
        let error = store.delete_unused([unused.stored.as_slice()]).unwrap_err();
        assert!(matches!(&error, Error::Missing { missing, .. } if missing.len() == 1), "{error}");
        assert!(fresh.signer.sign(BOTH[0].x509_scheme(), b"text").is_ok());
        let (nothing, unclear) = ([], [used.stored.as_slice(), b"pkcs11:{"]);
        assert!(matches!(store.delete_unused(unclear), Err(Error::Unreadable)));
        assert_eq!((KeyStore::default().delete_unused(nothing).unwrap(), module.ids().len()), (0, 2));
    }

    #[test]
    fn an_id_that_is_spelled_otherwise_is_the_same_key() {
        let module = Arc::new(MemoryModule::default());
        let store = of_host("here", &module);
        let (key, unused) = (store.generate(BOTH[0]).unwrap(), store.generate(BOTH[0]).unwrap());
        let stored = String::from_utf8(key.stored).unwrap().replace("key-", "KEY-").into_bytes();
        assert_eq!(store.delete_unused([stored.as_slice()]).unwrap(), 1);
        assert_eq!(module.ids().len(), 1);
        assert!(key.signer.sign(BOTH[0].x509_scheme(), b"text").is_ok());
        assert!(unused.signer.sign(BOTH[0].x509_scheme(), b"text").is_err());
    }

    #[test]
    fn keys_of_a_host_of_which_none_is_stored_are_noticed() {
        let module = Arc::new(MemoryModule::default());
        let store = of_host("here", &module);
        let other = of_host("there", &Arc::new(MemoryModule::default())).generate(BOTH[0]).unwrap();
        let foreign = [other.stored.as_slice(), b"-----BEGIN"];
        assert!(store.check_named(foreign).is_ok() && KeyStore::default().check_named([]).is_ok());
        let (one, _two) = (store.generate(BOTH[0]).unwrap(), store.generate(BOTH[0]).unwrap());
        for stored in [&foreign[..], &[]] {
            let error = store.check_named(stored.iter().copied()).unwrap_err().to_string();
            assert!(error.contains("2 keys of this host that the storage does not name"), "{error}");
        }
        assert!(store.check_named([one.stored.as_slice()]).is_ok());
        assert!(store.check_named([b"pkcs11:{".as_slice()]).is_ok(), "a name that cannot be read may be one of theirs");
    }

    #[test]
    fn suites_with_keys_that_modules_do_not_have_are_refused() {
        let store = of_host("here", &Arc::new(MemoryModule::default()));
        let error = store.check_suite(SignatureSuite::BalancedV1).unwrap_err().to_string();
        assert!(error.contains("balanced-v1") && error.contains("hsm-v1, fips-v1 or legacy"), "{error}");
        for suite in [SignatureSuite::HsmV1, SignatureSuite::FipsV1, SignatureSuite::Legacy] {
            assert!(store.check_suite(suite).is_ok());
        }
        assert!(KeyStore::default().check_suite(SignatureSuite::BalancedV1).is_ok());
        assert!(store.generate(KeyAlgorithm::Ed25519).is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn signing_leaves_the_runtime_to_others() {
        let module = Arc::new(MemoryModule::default());
        let key = of_host("here", &module).generate(BOTH[0]).unwrap();
        let gate = module.hold();
        let signing = tokio::spawn(async move { key.signer.sign(BOTH[0].x509_scheme(), b"text").is_ok() });
        // The one thread of the runtime waits for the module; others are served all the same.
        module.waited_for();
        tokio::spawn(async move { drop(gate) }).await.unwrap();
        assert!(signing.await.unwrap());
    }
}
