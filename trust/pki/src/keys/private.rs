//! Private keys in memory.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use pkcs8::PrivateKeyInfoRef;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{KeyAlgorithm, PublicKey, SignatureScheme, Signer, ssh_form};
use crate::{Error, pem};

/// A private key; clones share the same parsed key, which is wiped when the last one goes.
#[derive(Clone)]
pub struct PrivateKey {
    inner: Arc<Material>,
}

struct Material {
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

pub(super) enum Pair {
    Rsa(Box<rsa::KeyPair>),
    EcdsaP256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

const WHAT: &str = "private key";

impl PrivateKey {
    /// Generates a new key.
    ///
    /// # Errors
    /// [`Error::Crypto`] when the library fails, which a healthy system does not see.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        let failed = |_| Error::Crypto("key generation");
        let (pair, pkcs8) = match algorithm {
            KeyAlgorithm::Rsa2048 => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(failed)?;
                let der = pair.as_der().map_err(failed)?;
                (Pair::Rsa(Box::new(pair)), der.as_ref().to_vec())
            }
            KeyAlgorithm::EcdsaP256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
                let der = pair.to_pkcs8v1().map_err(failed)?;
                (Pair::EcdsaP256(pair), der.as_ref().to_vec())
            }
            KeyAlgorithm::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                let der = pair.to_pkcs8v1().map_err(failed)?;
                (Pair::Ed25519(pair), der.as_ref().to_vec())
            }
        };
        Self::from_pair(pair, Zeroizing::new(pkcs8))
    }

    /// Reads the first private key of a text: PKCS#1, PKCS#8, SEC1 or OpenSSH form, without passphrase.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there is no such block or it cannot be parsed, [`Error::UnsupportedKey`] for other
    /// kinds and sizes of key.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let block = pem::blocks(text)?
            .into_iter()
            .find(|block| block.label.ends_with("PRIVATE KEY"))
            .ok_or_else(|| Error::malformed(WHAT, "no PEM block with a private key found"))?;
        match block.label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8_der(&block.der),
            "RSA PRIVATE KEY" => Self::from_pkcs1_der(&block.der),
            "EC PRIVATE KEY" => Self::from_sec1_der(&block.der),
            "OPENSSH PRIVATE KEY" => ssh_form::private_from_openssh(&block.der),
            "PIV YUBIKEY PRIVATE KEY" => Err(Error::UnsupportedKey("the key is on a hardware token".to_owned())),
            other => Err(Error::UnsupportedKey(format!("PEM block {other:?}"))),
        }
    }

    /// Reads PKCS#8 (RFC 5958).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem).
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, Error> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|error| Error::malformed(WHAT, error))?;
        match info.algorithm.oid {
            pkcs1::ALGORITHM_OID => Self::from_pkcs1_der(info.private_key.as_bytes()),
            sec1::ALGORITHM_OID => {
                let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
                    .map_err(|_| Error::UnsupportedKey("ECDSA key that is not on P-256".to_owned()))?;
                Self::from_ecdsa(pair)
            }
            super::public::ED25519_OID => {
                let pair =
                    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|error| Error::malformed(WHAT, error))?;
                Self::from_ed25519(pair)
            }
            other => Err(Error::UnsupportedKey(format!("key algorithm {other}"))),
        }
    }

    /// Reads an RSA key in PKCS#1 form (RFC 8017 §A.1.2).
    pub(super) fn from_pkcs1_der(der: &[u8]) -> Result<Self, Error> {
        let pair = rsa::KeyPair::from_der(der).map_err(|error| Error::malformed("RSA private key", error))?;
        let pkcs8 = pair.as_der().map_err(|_| Error::Crypto("encoding of an RSA key"))?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Self::from_pair(Pair::Rsa(Box::new(pair)), pkcs8)
    }

    fn from_sec1_der(der: &[u8]) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|error| Error::UnsupportedKey(format!("EC key that is not on P-256: {error}")))?;
        Self::from_ecdsa(pair)
    }

    pub(super) fn from_ecdsa(pair: EcdsaKeyPair) -> Result<Self, Error> {
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| Error::Crypto("encoding of an ECDSA key"))?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Self::from_pair(Pair::EcdsaP256(pair), pkcs8)
    }

    pub(super) fn from_ed25519(pair: Ed25519KeyPair) -> Result<Self, Error> {
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| Error::Crypto("encoding of an Ed25519 key"))?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Self::from_pair(Pair::Ed25519(pair), pkcs8)
    }

    fn from_pair(pair: Pair, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        let public = match &pair {
            Pair::Rsa(pair) => PublicKey::from_pkcs1_der(pair.public_key().as_ref())?,
            Pair::EcdsaP256(pair) => PublicKey::from_p256_point(pair.public_key().as_ref())?,
            Pair::Ed25519(pair) => PublicKey::from_ed25519_bytes(pair.public_key().as_ref())?,
        };
        let material = Material { pair, pkcs8, public };
        Ok(Self { inner: Arc::new(material) })
    }

    /// The kind of key.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.inner.public.algorithm()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.inner.public
    }

    /// PEM text: PKCS#1 (`RSA PRIVATE KEY`) for RSA, PKCS#8 (`PRIVATE KEY`) for the others.
    ///
    /// # Errors
    /// [`Error::Malformed`] never happens for a key that was read or generated here.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, Error> {
        let text = match self.inner.pair {
            Pair::Rsa(_) => pem::encode("RSA PRIVATE KEY", self.private_key_octets()?),
            _ => pem::encode("PRIVATE KEY", &self.inner.pkcs8),
        };
        Ok(Zeroizing::new(text))
    }

    /// The PKCS#8 form.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> &[u8] {
        &self.inner.pkcs8
    }

    /// The form that rustls takes.
    #[must_use]
    pub fn to_rustls_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.inner.pkcs8.to_vec()))
    }

    /// The form that SSH libraries take, with an empty comment.
    ///
    /// # Errors
    /// [`Error::Malformed`] never happens for a key that was read or generated here.
    pub fn to_ssh(&self) -> Result<ssh_key::PrivateKey, Error> {
        ssh_form::private_to_ssh(self)
    }

    /// Signs with the scheme of X.509 certificates.
    ///
    /// # Errors
    /// [`Error::Crypto`] when signing fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Signer::sign(self, self.algorithm().x509_scheme(), message)
    }

    /// Signs the signing input of a JSON Web Token; the signature has the form of RFC 7518 §3.
    ///
    /// # Errors
    /// [`Error::Crypto`] when signing fails.
    pub fn sign_jws(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        (self as &dyn Signer).sign_jws(message)
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.inner.pair
    }

    /// What PKCS#8 wraps: PKCS#1 for RSA, SEC1 for ECDSA, the wrapped seed for Ed25519.
    pub(super) fn private_key_octets(&self) -> Result<&[u8], Error> {
        PrivateKeyInfoRef::try_from(self.inner.pkcs8.as_slice())
            .map(|info| info.private_key.as_bytes())
            .map_err(|error| Error::malformed(WHAT, error))
    }
}

impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        self.public()
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::Crypto("signing");
        match (&self.inner.pair, scheme) {
            (Pair::Rsa(pair), SignatureScheme::RsaPkcs1Sha256 | SignatureScheme::RsaPkcs1Sha512) => {
                let padding = match scheme {
                    SignatureScheme::RsaPkcs1Sha512 => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            (Pair::EcdsaP256(pair), SignatureScheme::EcdsaP256Sha256) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(failed)?;
                Ok(signature.as_ref().to_vec())
            }
            (Pair::Ed25519(pair), SignatureScheme::Ed25519) => {
                Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec())
            }
            _ => Err(Error::UnsupportedKey(format!("a key of type {} cannot sign with {scheme:?}", self.algorithm()))),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, redacted)", self.algorithm())
    }
}
