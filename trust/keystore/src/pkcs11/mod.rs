//! Keys in a PKCS#11 module (PKCS #11 v2.40 and later), such as a hardware security module, through the library that its
//! vendor gives out. The library is loaded when [`Pkcs11Module::open`] is called and not linked.
//!
//! Calls into such a library may take long and cannot be interrupted, so a few threads make them, each with a session of
//! its own, and whoever asked stops waiting after a while: see `workers`. A session that the token forgot, because it was
//! away, is opened and logged in anew; see `link`. Keys carry the UUID of the host as their label and are made so that
//! they cannot be read out; see `keys`.

mod keys;
mod link;
mod settings;
#[cfg(test)]
#[path = "../../tests/token/mod.rs"]
mod token;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use config::KeyModule;
use cryptoki::session::Session;
use pki::keys::{KeyAlgorithm, PublicKey, SignatureScheme};

use crate::{Error, Module};
use keys::IdForm;
use link::{Link, Reason};
use workers::{Handles, Workers};

/// How long a signature may take.
const SIGNING: Duration = Duration::from_secs(10);
/// How long everything else may take; small modules need many seconds for an RSA key.
const OTHERWISE: Duration = Duration::from_secs(60);

/// The keys of one host in a module.
pub struct Pkcs11Module {
    host_id: String,
    place: String,
    ids: IdForm,
    workers: Workers,
}

impl Pkcs11Module {
    /// Loads the library and logs in. Waits for the module: not for asynchronous code.
    ///
    /// # Errors
    /// For settings that cannot be used, a token that is not there and a PIN that is refused.
    pub fn open(settings: &KeyModule, host_id: &str) -> Result<Self, Error> {
        settings::check_library(&settings.module_path)?;
        let pin = settings::read_pin(&settings.pin)?;
        let link = Arc::new(Link::load(settings, pin.expose())?);
        let place = link.place().to_owned();
        let workers = Workers::start(Arc::clone(&link))?;
        // The first session says whether token and PIN are right.
        let ids = workers.call("logging in", OTHERWISE, {
            let link = Arc::clone(&link);
            move |_, _| link.id_form()
        })?;
        tracing::info!(%place, "the keys of authorities are in a PKCS#11 module");
        Ok(Self { host_id: host_id.to_owned(), place, ids, workers })
    }

    fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl Fn(&Session, &mut Handles) -> Result<T, Reason> + Send + 'static,
    ) -> Result<T, Error> {
        self.workers.call(what, limit, work)
    }
}

impl Module for Pkcs11Module {
    fn generate(&self, algorithm: KeyAlgorithm) -> Result<(String, PublicKey), Error> {
        let (label, form) = (self.host_id.clone(), self.ids);
        self.call("making a key", OTHERWISE, move |session, _| keys::generate(session, &label, form, algorithm))
    }

    fn sign(&self, key_id: &str, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        let request = keys::SignRequest::new(self.ids, &self.host_id, key_id, scheme, message);
        self.call("signing", SIGNING, move |session, handles| request.sign(session, handles))
    }

    fn key_ids(&self) -> Result<Vec<String>, Error> {
        let (label, form) = (self.host_id.clone(), self.ids);
        self.call("listing keys", OTHERWISE, move |session, _| keys::list(session, &label, form))
    }

    fn delete(&self, key_id: &str) -> Result<(), Error> {
        let (label, form, id) = (self.host_id.clone(), self.ids, key_id.to_owned());
        self.call("removing a key", OTHERWISE, move |session, _| keys::delete(session, &label, form, &id))
    }

    fn canonical_id(&self, key_id: &str) -> String {
        self.ids.canonical(key_id)
    }

    fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Debug for Pkcs11Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Module({})", self.place)
    }
}
