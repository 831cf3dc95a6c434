//! Public keys.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    VerificationAlgorithm,
};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode as _, Encode as _};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::{HashAlg, Mpint};

use super::{KeyAlgorithm, SignatureScheme};
use crate::{Error, pem};

/// `id-Ed25519` (RFC 8410).
pub(super) const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// `secp256r1` (RFC 5480).
const P256_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// How long the modulus of an RSA key may be.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const WHAT: &str = "public key";

/// A public key; clones are cheap. Keys off the curve and RSA keys under 2048 bits cannot be made.
#[derive(Clone)]
pub struct PublicKey {
    inner: Arc<Material>,
}

struct Material {
    algorithm: KeyAlgorithm,
    /// SubjectPublicKeyInfo.
    spki: Vec<u8>,
    /// The bits inside it: PKCS#1, an uncompressed point, or 32 bytes.
    raw: Vec<u8>,
    ssh: KeyData,
}

impl PublicKey {
    /// Reads the first public key of a text: `PUBLIC KEY` or `RSA PUBLIC KEY`.
    ///
    /// Some writers put the general form into an `RSA PUBLIC KEY` block; that is understood too.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::UnsupportedKey`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        for block in pem::blocks(text)? {
            match block.label.as_str() {
                "PUBLIC KEY" => return Self::from_spki_der(&block.der),
                "RSA PUBLIC KEY" => {
                    return Self::from_pkcs1_der(&block.der).or_else(|_| Self::from_spki_der(&block.der));
                }
                _ => {}
            }
        }
        Err(Error::malformed(WHAT, "no PEM block with a public key found"))
    }

    /// Reads a line of OpenSSH's authorized_keys form without options; a comment is ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::UnsupportedKey`].
    pub fn from_ssh_line(line: &str) -> Result<Self, Error> {
        let key =
            ssh_key::PublicKey::from_openssh(line.trim()).map_err(|error| Error::malformed("SSH public key", error))?;
        Self::from_ssh(key.key_data())
    }

    /// Takes over a key of the SSH library.
    ///
    /// # Errors
    /// [`Error::UnsupportedKey`] for kinds of key that are not in use here.
    pub fn from_ssh(key: &KeyData) -> Result<Self, Error> {
        match key {
            KeyData::Ed25519(key) => Self::from_ed25519_bytes(&key.0),
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => Self::from_p256_point(point.as_bytes()),
            KeyData::Rsa(key) => {
                let (Some(n), Some(e)) = (key.n().as_positive_bytes(), key.e().as_positive_bytes()) else {
                    return Err(Error::malformed("SSH public key", "negative number in RSA key"));
                };
                Self::from_rsa_numbers(n, e)
            }
            other => Err(Error::UnsupportedKey(format!("SSH key type {}", other.algorithm()))),
        }
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::UnsupportedKey`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Error> {
        let malformed = |error: der::Error| Error::malformed(WHAT, error);
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
        let bits = info.subject_public_key.as_bytes().ok_or_else(|| Error::malformed(WHAT, "unused bits in key"))?;
        match info.algorithm.oid {
            pkcs1::ALGORITHM_OID => Self::from_pkcs1_der(bits),
            ED25519_OID => Self::from_ed25519_bytes(bits),
            sec1::ALGORITHM_OID => match info.algorithm.parameters_oid() {
                Ok(P256_OID) => Self::from_p256_point(bits),
                _ => Err(Error::UnsupportedKey("ECDSA key that is not on P-256".to_owned())),
            },
            other => Err(Error::UnsupportedKey(format!("key algorithm {other}"))),
        }
    }

    /// Makes an RSA key of modulus and public exponent, big-endian.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::UnsupportedKey`].
    pub fn from_rsa_numbers(modulus: &[u8], exponent: &[u8]) -> Result<Self, Error> {
        let malformed = |error: der::Error| Error::malformed("RSA public key", error);
        let key = pkcs1::RsaPublicKey {
            modulus: pkcs1::UintRef::new(modulus).map_err(malformed)?,
            public_exponent: pkcs1::UintRef::new(exponent).map_err(malformed)?,
        };
        Self::from_pkcs1_der(&key.to_der().map_err(malformed)?)
    }

    pub(super) fn from_pkcs1_der(der: &[u8]) -> Result<Self, Error> {
        let key = pkcs1::RsaPublicKey::from_der(der).map_err(|error| Error::malformed("RSA public key", error))?;
        // The library looks at the size only when it verifies a signature.
        let modulus = key.modulus.as_bytes();
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(Error::UnsupportedKey(format!("RSA key of {bits} bits, expected 2048 to 8192")));
        }
        validate(&RSA_PKCS1_2048_8192_SHA256, der, "no RSA key")?;
        let ssh = RsaPublicKey::new(
            Mpint::from_positive_bytes(key.public_exponent.as_bytes()),
            Mpint::from_positive_bytes(key.modulus.as_bytes()),
        )
        .map_err(|error| Error::malformed("RSA public key", error))?;
        Self::assemble(KeyAlgorithm::Rsa2048, pkcs1::ALGORITHM_OID, Some(AnyRef::NULL), der, KeyData::Rsa(ssh))
    }

    /// Makes a P-256 key of an uncompressed point (SEC 1 §2.3.3).
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::UnsupportedKey`].
    pub fn from_p256_point(point: &[u8]) -> Result<Self, Error> {
        validate(&ECDSA_P256_SHA256_ASN1, point, "not a point on P-256")?;
        let ssh = EcdsaPublicKey::from_sec1_bytes(point).map_err(|error| Error::malformed(WHAT, error))?;
        let parameters = AnyRef::from(&P256_OID);
        Self::assemble(KeyAlgorithm::EcdsaP256, sec1::ALGORITHM_OID, Some(parameters), point, KeyData::Ecdsa(ssh))
    }

    pub(super) fn from_ed25519_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let array: [u8; 32] = bytes.try_into().map_err(|_| Error::malformed(WHAT, "an Ed25519 key has 32 bytes"))?;
        Self::assemble(KeyAlgorithm::Ed25519, ED25519_OID, None, bytes, KeyData::Ed25519(Ed25519PublicKey(array)))
    }

    fn assemble(
        algorithm: KeyAlgorithm,
        oid: ObjectIdentifier,
        parameters: Option<AnyRef<'_>>,
        raw: &[u8],
        ssh: KeyData,
    ) -> Result<Self, Error> {
        let spki = SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid, parameters },
            subject_public_key: BitStringRef::from_bytes(raw).map_err(|error| Error::malformed(WHAT, error))?,
        }
        .to_der()
        .map_err(|error| Error::malformed(WHAT, error))?;
        let material = Material { algorithm, spki, raw: raw.to_vec(), ssh };
        Ok(Self { inner: Arc::new(material) })
    }

    /// The kind of key.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.inner.algorithm
    }

    /// PEM text: PKCS#1 (`RSA PUBLIC KEY`) for RSA, `PUBLIC KEY` for the others.
    #[must_use]
    pub fn to_pem(&self) -> String {
        match self.inner.algorithm {
            KeyAlgorithm::Rsa2048 => pem::encode("RSA PUBLIC KEY", &self.inner.raw),
            _ => pem::encode("PUBLIC KEY", &self.inner.spki),
        }
    }

    /// PEM text in the general form (`PUBLIC KEY`) for every kind of key.
    #[must_use]
    pub fn to_spki_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.inner.spki)
    }

    /// The SubjectPublicKeyInfo.
    #[must_use]
    pub fn to_spki_der(&self) -> &[u8] {
        &self.inner.spki
    }

    /// The bits inside the SubjectPublicKeyInfo: PKCS#1 for RSA, the uncompressed point for P-256, 32 bytes for Ed25519.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.inner.raw
    }

    /// A line of OpenSSH's authorized_keys form, without comment, with a newline at the end.
    #[must_use]
    pub fn to_ssh_line(&self) -> String {
        // Encoding into memory fails only for keys larger than 4 GiB.
        let mut line = self.to_ssh().to_openssh().unwrap_or_default();
        line.push('\n');
        line
    }

    /// The form that SSH libraries take, with an empty comment.
    #[must_use]
    pub fn to_ssh(&self) -> ssh_key::PublicKey {
        ssh_key::PublicKey::new(self.inner.ssh.clone(), "")
    }

    pub(crate) fn ssh_key_data(&self) -> &KeyData {
        &self.inner.ssh
    }

    /// OpenSSH's fingerprint, `SHA256:` and base64 without padding.
    #[must_use]
    pub fn ssh_fingerprint(&self) -> String {
        self.inner.ssh.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Whether a signature over a message was made by this key; ECDSA signatures are in DER form.
    #[must_use]
    pub fn verifies(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (self.inner.algorithm, scheme) {
            (KeyAlgorithm::Rsa2048, SignatureScheme::RsaPkcs1Sha256) => &RSA_PKCS1_2048_8192_SHA256,
            (KeyAlgorithm::Rsa2048, SignatureScheme::RsaPkcs1Sha512) => &RSA_PKCS1_2048_8192_SHA512,
            (KeyAlgorithm::EcdsaP256, SignatureScheme::EcdsaP256Sha256) => &ECDSA_P256_SHA256_ASN1,
            (KeyAlgorithm::Ed25519, SignatureScheme::Ed25519) => &ED25519,
            _ => return false,
        };
        ParsedPublicKey::new(algorithm, &self.inner.raw).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

fn validate(algorithm: &'static dyn VerificationAlgorithm, raw: &[u8], reason: &str) -> Result<(), Error> {
    ParsedPublicKey::new(algorithm, raw).map(drop).map_err(|_| Error::UnsupportedKey(reason.to_owned()))
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.inner.spki == other.inner.spki
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.spki.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.inner.algorithm, self.ssh_fingerprint())
    }
}
