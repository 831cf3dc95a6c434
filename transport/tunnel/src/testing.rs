//! Keys and certificates for the tests of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};

use crate::ssh::{AUTHORITY_EXTENSION, ROLE_EXTENSION};

/// The host authority of a cluster.
pub(crate) struct Authority {
    cluster: String,
    key: PrivateKey,
}

impl Authority {
    pub(crate) fn new(cluster: &str) -> Self {
        Self::with_key(cluster, Algorithm::Ed25519)
    }

    pub(crate) fn with_key(cluster: &str, algorithm: Algorithm) -> Self {
        Self { cluster: cluster.to_owned(), key: PrivateKey::random(&mut rand::rng(), algorithm).unwrap() }
    }

    pub(crate) fn public(&self) -> pki::keys::PublicKey {
        pki::keys::PublicKey::from_ssh(self.key.public_key().key_data()).unwrap()
    }

    pub(crate) fn host(&self, subject: &PrivateKey, role: &str, principals: &[&str]) -> Certificate {
        host_certificate(CertType::Host, subject.public_key(), self, role, principals)
    }
}

pub(crate) fn key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

pub(crate) fn host_certificate(
    kind: CertType,
    subject: &PublicKey,
    authority: &Authority,
    role: &str,
    principals: &[&str],
) -> Certificate {
    let mut builder = Builder::new_with_random_nonce(&mut rand::rng(), subject, 0, u64::from(u32::MAX)).unwrap();
    builder.cert_type(kind).unwrap();
    builder.key_id("test").unwrap();
    for principal in principals {
        builder.valid_principal(*principal).unwrap();
    }
    builder.extension(AUTHORITY_EXTENSION, authority.cluster.as_str()).unwrap();
    builder.extension(ROLE_EXTENSION, role).unwrap();
    builder.sign(&authority.key).unwrap()
}
