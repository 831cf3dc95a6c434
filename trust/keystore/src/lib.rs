//! Where the private keys of a cluster's authorities are: in the cluster's own storage, or in a PKCS#11 module, such as a
//! hardware security module, that signs with them and never gives them out.
//!
//! A [`KeyStore`] makes keys and signs with them; what it hands out is a [`pki::keys::Signer`], so that whoever issues
//! certificates does not know where a key is. What the storage of the cluster keeps of a key in a module is a reference,
//! see [`Place`]. [`pkcs11`] is such a module; [`memory`] plays one in tests.
//!
//! Modules are slow, and calls into their libraries cannot be interrupted. Each call therefore runs on a thread of its
//! own with a limit of time, see [`pkcs11`]; whoever signs within an asynchronous runtime takes its thread out of it for
//! that long.

mod error;
pub mod memory;
pub mod pkcs11;
mod place;
mod signer;
mod store;

pub use error::Error;
pub use place::{KeyReference, Place};
pub use signer::Module;
pub use store::{KeyStore, NewKey, Usability};
