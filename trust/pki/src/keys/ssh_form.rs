//! Conversions between keys and signatures here and those of the SSH world (RFC 4253, RFC 5656, PROTOCOL.key).

use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use der::Sequence;
use der::asn1::UintRef;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use ssh_encoding::{Decode as _, Encode as _, Reader as _};
use ssh_key::Mpint;
use ssh_key::private::{
    EcdsaKeypair, EcdsaPrivateKey, Ed25519Keypair, Ed25519PrivateKey, KeypairData, RsaKeypair, RsaPrivateKey,
};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use zeroize::Zeroizing;

use super::PrivateKey;
use super::private::Pair;
use crate::Error;

const WHAT: &str = "OpenSSH private key";

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::malformed(WHAT, error)
}

/// Reads the contents of an `OPENSSH PRIVATE KEY` block.
pub(super) fn private_from_openssh(bytes: &[u8]) -> Result<PrivateKey, Error> {
    let key = match ssh_key::PrivateKey::from_bytes(bytes) {
        Ok(key) => key,
        // The library refuses private numbers with leading zero bytes, which one P-256 key in 256 has.
        Err(error) => return short_p256_from_openssh(bytes).map_err(|_| malformed(error)),
    };
    if key.is_encrypted() {
        return Err(Error::UnsupportedKey("the key is protected by a passphrase".to_owned()));
    }
    match key.key_data() {
        KeypairData::Ed25519(pair) => {
            let seed = Zeroizing::new(pair.private.to_bytes());
            let pair = Ed25519KeyPair::from_seed_and_public_key(seed.as_slice(), &pair.public.0).map_err(malformed)?;
            PrivateKey::from_ed25519(pair)
        }
        KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
            p256_from_parts(private.as_slice(), public.as_bytes())
        }
        KeypairData::Rsa(pair) => {
            let key = rsa::RsaPrivateKey::try_from(pair).map_err(malformed)?;
            let der = key.to_pkcs1_der().map_err(malformed)?;
            PrivateKey::from_pkcs1_der(der.as_bytes())
        }
        other => Err(Error::UnsupportedKey(format!(
            "SSH key type {}",
            other.algorithm().map(|name| name.to_string()).unwrap_or_default()
        ))),
    }
}

fn p256_from_parts(private: &[u8], public: &[u8]) -> Result<PrivateKey, Error> {
    let mut padded = Zeroizing::new([0; 32]);
    let start = 32_usize.checked_sub(private.len()).ok_or_else(|| malformed("private number is too long"))?;
    padded[start..].copy_from_slice(private);
    let pair =
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, padded.as_slice(), public)
            .map_err(malformed)?;
    PrivateKey::from_ecdsa(pair)
}

/// Reads an unencrypted OpenSSH key file with one P-256 key (PROTOCOL.key).
fn short_p256_from_openssh(bytes: &[u8]) -> Result<PrivateKey, ssh_encoding::Error> {
    const MAGIC: &[u8] = b"openssh-key-v1\0";
    const REFUSED: ssh_encoding::Error = ssh_encoding::Error::CharacterEncoding;
    let mut reader = bytes.strip_prefix(MAGIC).ok_or(REFUSED)?;
    let (cipher, kdf) = (String::decode(&mut reader)?, String::decode(&mut reader)?);
    let _kdf_options = Vec::<u8>::decode(&mut reader)?;
    if (cipher.as_str(), kdf.as_str(), u32::decode(&mut reader)?) != ("none", "none", 1) {
        return Err(REFUSED);
    }
    let _public = Vec::<u8>::decode(&mut reader)?;
    let secret = Zeroizing::new(Vec::<u8>::decode(&mut reader)?);
    let mut reader = secret.as_slice();
    let checks = (u32::decode(&mut reader)?, u32::decode(&mut reader)?);
    let (kind, curve) = (String::decode(&mut reader)?, String::decode(&mut reader)?);
    if checks.0 != checks.1 || kind != "ecdsa-sha2-nistp256" || curve != "nistp256" {
        return Err(REFUSED);
    }
    let public = Vec::<u8>::decode(&mut reader)?;
    let private = Mpint::decode(&mut reader)?;
    let private = private.as_positive_bytes().ok_or(REFUSED)?;
    p256_from_parts(private, &public).map_err(|_| REFUSED)
}

/// The same key for an SSH library.
pub(super) fn private_to_ssh(key: &PrivateKey) -> Result<ssh_key::PrivateKey, Error> {
    let data = match key.pair() {
        Pair::Ed25519(pair) => {
            let seed = pair.seed().map_err(malformed)?;
            let seed = seed.as_be_bytes().map_err(malformed)?;
            let private = Ed25519PrivateKey::try_from(seed.as_ref()).map_err(malformed)?;
            KeypairData::Ed25519(Ed25519Keypair::from(private))
        }
        Pair::EcdsaP256(pair) => {
            let KeyData::Ecdsa(EcdsaPublicKey::NistP256(public)) = key.public().ssh_key_data() else {
                return Err(malformed("public half is of another kind"));
            };
            let scalar = pair.private_key().as_be_bytes().map_err(malformed)?;
            let scalar: [u8; 32] = scalar.as_ref().try_into().map_err(malformed)?;
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public: *public, private: EcdsaPrivateKey::from(scalar) })
        }
        Pair::Rsa(_) => {
            let KeyData::Rsa(public) = key.public().ssh_key_data() else {
                return Err(malformed("public half is of another kind"));
            };
            let der =
                <pkcs1::RsaPrivateKey<'_> as der::Decode>::from_der(key.private_key_octets()?).map_err(malformed)?;
            let number = |value: UintRef<'_>| Mpint::from_positive_bytes(value.as_bytes());
            let private = RsaPrivateKey::new(
                number(der.private_exponent),
                number(der.coefficient),
                number(der.prime1),
                number(der.prime2),
            )
            .map_err(malformed)?;
            KeypairData::Rsa(RsaKeypair::new(public.clone(), private).map_err(malformed)?)
        }
    };
    ssh_key::PrivateKey::new(data, "").map_err(malformed)
}

/// `ECDSA-Sig-Value` (RFC 3279 §2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn decode_ecdsa(der: &[u8]) -> Result<EcdsaSignature<'_>, Error> {
    <EcdsaSignature<'_> as der::Decode>::from_der(der).map_err(|error| Error::malformed("ECDSA signature", error))
}

/// A DER signature as two numbers of 32 bytes each (RFC 7518 §3.4).
pub(crate) fn ecdsa_fixed_from_der(der: &[u8]) -> Result<Vec<u8>, Error> {
    let signature = decode_ecdsa(der)?;
    let mut fixed = Vec::with_capacity(64);
    for number in [signature.r, signature.s] {
        push_padded(&mut fixed, number.as_bytes(), 32)?;
    }
    Ok(fixed)
}

/// Two numbers of the same width, as hardware modules sign (PKCS #11 §6.3.1), as a DER signature.
///
/// # Errors
/// [`Error::Malformed`] for an odd number of bytes.
pub fn ecdsa_der_from_fixed(fixed: &[u8]) -> Result<Vec<u8>, Error> {
    if fixed.is_empty() || !fixed.len().is_multiple_of(2) {
        return Err(Error::malformed("ECDSA signature", "expected two numbers of the same width"));
    }
    let (r, s) = fixed.split_at(fixed.len() / 2);
    ecdsa_der(r, s)
}

/// A DER signature as two SSH numbers (RFC 5656 §3.1.2).
pub(crate) fn ecdsa_ssh_from_der(der: &[u8]) -> Result<Vec<u8>, Error> {
    let signature = decode_ecdsa(der)?;
    let mut blob = Vec::with_capacity(74);
    for number in [signature.r, signature.s] {
        Mpint::from_positive_bytes(number.as_bytes())
            .encode(&mut blob)
            .map_err(|error| Error::malformed("ECDSA signature", error))?;
    }
    Ok(blob)
}

/// Two SSH numbers as a DER signature.
pub(crate) fn ecdsa_der_from_ssh(blob: &[u8]) -> Result<Vec<u8>, Error> {
    let refused = |error: ssh_encoding::Error| Error::malformed("ECDSA signature", error);
    let mut reader = blob;
    let (r, s) = (Mpint::decode(&mut reader), Mpint::decode(&mut reader));
    let (r, s) = (r.map_err(refused)?, s.map_err(refused)?);
    reader.finish(()).map_err(refused)?;
    let (Some(r), Some(s)) = (r.as_positive_bytes(), s.as_positive_bytes()) else {
        return Err(Error::malformed("ECDSA signature", "negative number"));
    };
    ecdsa_der(r, s)
}

/// Leading zero bytes are left out.
fn ecdsa_der(r: &[u8], s: &[u8]) -> Result<Vec<u8>, Error> {
    let encode = || {
        let signature = EcdsaSignature { r: UintRef::new(r)?, s: UintRef::new(s)? };
        der::Encode::to_der(&signature)
    };
    encode().map_err(|error| Error::malformed("ECDSA signature", error))
}

fn push_padded(fixed: &mut Vec<u8>, number: &[u8], width: usize) -> Result<(), Error> {
    let padding =
        width.checked_sub(number.len()).ok_or_else(|| Error::malformed("ECDSA signature", "number is too long"))?;
    fixed.resize(fixed.len() + padding, 0);
    fixed.extend_from_slice(number);
    Ok(())
}
