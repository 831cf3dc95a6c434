//! Signing with a key that is elsewhere.

use std::fmt;
use std::sync::Arc;

use pki::keys::{KeyAlgorithm, PublicKey, SignatureScheme, Signer};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::Error;

/// Something that keeps private keys of one host and signs with them. Its calls may wait, but not for ever.
pub trait Module: fmt::Debug + Send + Sync {
    /// Makes a key; its id and its public half.
    ///
    /// # Errors
    /// When the module does not make it, also for kinds of key that it does not have.
    fn generate(&self, algorithm: KeyAlgorithm) -> Result<(String, PublicKey), Error>;

    /// Signs a message; ECDSA signatures are in DER form.
    ///
    /// # Errors
    /// When the module has no such key or does not sign.
    fn sign(&self, key_id: &str, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Error>;

    /// The ids of the keys of this host.
    ///
    /// # Errors
    /// When the module does not say.
    fn key_ids(&self) -> Result<Vec<String>, Error>;

    /// Removes a key of this host, for good.
    ///
    /// # Errors
    /// When the module does not remove it.
    fn delete(&self, key_id: &str) -> Result<(), Error>;

    /// A key's id as [`key_ids`](Self::key_ids) tells it. What is stored may spell it otherwise.
    fn canonical_id(&self, key_id: &str) -> String {
        key_id.to_owned()
    }

    /// What it is called in messages.
    fn place(&self) -> &str;
}

/// A key in a module.
pub(crate) struct ModuleKey {
    pub(crate) module: Arc<dyn Module>,
    pub(crate) key_id: String,
    pub(crate) public: PublicKey,
}

impl Signer for ModuleKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, pki::Error> {
        let signed = waiting(|| self.module.sign(&self.key_id, scheme, message));
        let signature = signed.map_err(|error| pki::Error::Module(error.to_string()))?;
        // A reference to another key would make certificates that nobody accepts, and a signature with a fault in it can
        // give an RSA key away.
        if self.public.verifies(scheme, message, &signature) {
            return Ok(signature);
        }
        let (place, id) = (self.module.place(), &self.key_id);
        Err(pki::Error::Module(format!("{place}: key {id} signs otherwise than the authority's certificate says")))
    }
}

impl fmt::Debug for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModuleKey({}, {:?})", self.key_id, self.public)
    }
}

/// Waits without keeping an asynchronous runtime from its other tasks. Where a runtime has one thread only, as in tests,
/// there is no other to go on with.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
