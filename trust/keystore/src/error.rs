//! What can go wrong with keys that are kept elsewhere. No message holds a PIN.

use std::time::Duration;

use thiserror::Error;

/// An error of a key store.
#[derive(Debug, Error)]
pub enum Error {
    /// Settings that cannot be used.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which, as the configuration file spells it.
        setting: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// The module refused the PIN. It is not shown to it again before the next start.
    #[error(
        "{place}: the PIN was refused ({reason}); it is not tried again before the next start, because tokens lock themselves after a few wrong ones"
    )]
    Pin {
        /// The module and its slot.
        place: String,
        /// The module's reason.
        reason: String,
    },
    /// The module did not do what it was asked for.
    #[error("{place}: {what}: {reason}")]
    Module {
        /// The module and its slot.
        place: String,
        /// What it was asked for.
        what: &'static str,
        /// Its reason.
        reason: String,
    },
    /// The module did not answer.
    #[error("{place}: {what}: no answer within {} s", limit.as_secs())]
    Timeout {
        /// The module and its slot.
        place: String,
        /// What it was asked for.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// More calls wait for the module than it is going to answer in time.
    #[error("{place}: {what}: too many calls wait for the module")]
    Busy {
        /// The module and its slot.
        place: String,
        /// What it was asked for.
        what: &'static str,
    },
    /// Keys that authorities name are not in the module; perhaps it is another token.
    #[error("{place}: keys that authorities name are not there: {}; is it another token?", missing.join(", "))]
    Missing {
        /// The module and its slot.
        place: String,
        /// Their ids.
        missing: Vec<String>,
    },
    /// The module holds keys of this host, and nothing that is stored names one of them; perhaps it is another storage.
    #[error(
        "{place}: the module holds {count} keys of this host that the storage does not name: is it the right storage? If it is, remove them from the module, where their label is {host_id}"
    )]
    Unnamed {
        /// The module and its slot.
        place: String,
        /// How many.
        count: usize,
        /// What they are labelled with.
        host_id: String,
    },
    /// What is stored for a key may name one in this module, but cannot be read.
    #[error("a reference to a key in a module cannot be read")]
    Unreadable,
    /// A stored key that cannot be used here.
    #[error("the key is not usable here: {0}")]
    Foreign(String),
    /// A kind of key that modules do not make.
    #[error(
        "signature algorithm suite {0}: authorities would need Ed25519 keys, which PKCS#11 modules do not have: use hsm-v1, fips-v1 or legacy"
    )]
    Suite(pki::suite::SignatureSuite),
    /// A key that cannot be read or used.
    #[error(transparent)]
    Key(#[from] pki::Error),
}
