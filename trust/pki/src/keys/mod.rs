//! Private and public keys, in every textual form that people and programs use for them.
//!
//! A key is parsed once and then cheap to clone and share. All private operations run in aws-lc; the `ssh-key`
//! types appear only at the edges, where SSH certificates and the SSH transport need them.

mod private;
mod public;
mod ssh_form;

use std::fmt;
use std::sync::Arc;

pub use private::PrivateKey;
pub use public::PublicKey;
pub use ssh_form::ecdsa_der_from_fixed;
use ssh_form::ecdsa_fixed_from_der;
pub(crate) use ssh_form::{ecdsa_der_from_ssh, ecdsa_ssh_from_der};

use crate::Error;

/// The kinds of key in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA. Generated keys have 2048 bits; keys that are read may have up to 8192.
    Rsa2048,
    /// ECDSA on the NIST curve P-256.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

/// How a signature is made over a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 with SHA-256: X.509 and `RS256`.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-512: SSH certificates (`rsa-sha2-512`).
    RsaPkcs1Sha512,
    /// ECDSA on P-256 with SHA-256; the signature is the DER form of RFC 3279.
    EcdsaP256Sha256,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// Something that signs with a private key it may keep to itself, such as a key in a hardware module.
///
/// [`PrivateKey`] is the implementation for keys in memory.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message.
    ///
    /// # Errors
    /// [`Error::UnsupportedKey`] when the scheme does not fit the key, [`Error::Crypto`] when signing fails,
    /// [`Error::Module`] when whatever keeps the key does not sign with it.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Error>;
}

impl KeyAlgorithm {
    /// The scheme for X.509 certificates and JSON Web Tokens.
    #[must_use]
    pub fn x509_scheme(self) -> SignatureScheme {
        match self {
            Self::Rsa2048 => SignatureScheme::RsaPkcs1Sha256,
            Self::EcdsaP256 => SignatureScheme::EcdsaP256Sha256,
            Self::Ed25519 => SignatureScheme::Ed25519,
        }
    }

    /// The scheme for SSH certificates.
    #[must_use]
    pub fn ssh_scheme(self) -> SignatureScheme {
        match self {
            Self::Rsa2048 => SignatureScheme::RsaPkcs1Sha512,
            Self::EcdsaP256 => SignatureScheme::EcdsaP256Sha256,
            Self::Ed25519 => SignatureScheme::Ed25519,
        }
    }

    /// The `alg` of JSON Web Tokens (RFC 7518 §3.1, RFC 8037).
    #[must_use]
    pub fn jws_name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RS256",
            Self::EcdsaP256 => "ES256",
            Self::Ed25519 => "EdDSA",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA",
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Ed25519 => "Ed25519",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl dyn Signer {
    /// Signs the signing input of a JSON Web Token; the signature has the form of RFC 7518 §3.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub fn sign_jws(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let scheme = self.public_key().algorithm().x509_scheme();
        let signature = self.sign(scheme, message)?;
        match scheme {
            SignatureScheme::EcdsaP256Sha256 => ecdsa_fixed_from_der(&signature),
            _ => Ok(signature),
        }
    }
}

impl From<PrivateKey> for Arc<dyn Signer> {
    fn from(key: PrivateKey) -> Self {
        Arc::new(key)
    }
}

#[cfg(test)]
mod tests;
