//! The certificate structure of RFC 5280 §4.1, borrowed from the encoded bytes.
//!
//! `x509-cert` has the same types, but owned and with private fields; issuing thousands of certificates per
//! second wants names and keys that are encoded once and pasted in.

use chrono::{DateTime, Utc};
use der::Sequence;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use spki::AlgorithmIdentifierRef;
use x509_cert::Version;
use x509_cert::ext::Extension;
use x509_cert::time::{Time, Validity};

use crate::Error;
use crate::keys::SignatureScheme;

#[derive(Clone, Debug, Sequence)]
pub(super) struct SignedCertificate<'a> {
    pub(super) tbs: AnyRef<'a>,
    pub(super) signature_algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) signature: BitStringRef<'a>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    pub(super) version: Version,
    pub(super) serial_number: UintRef<'a>,
    pub(super) signature: AlgorithmIdentifierRef<'a>,
    pub(super) issuer: AnyRef<'a>,
    pub(super) validity: Validity,
    pub(super) subject: AnyRef<'a>,
    pub(super) public_key: AnyRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

/// `TBSCertList` of RFC 5280 §5.1 without revoked certificates.
#[derive(Clone, Debug, Sequence)]
pub(super) struct TbsEmptyCrl<'a> {
    pub(super) version: Version,
    pub(super) signature: AlgorithmIdentifierRef<'a>,
    pub(super) issuer: AnyRef<'a>,
    pub(super) this_update: Time,
    pub(super) next_update: Time,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The algorithm identifier of a scheme (RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3).
pub(super) fn algorithm_identifier(scheme: SignatureScheme) -> Result<AlgorithmIdentifierRef<'static>, Error> {
    let (oid, parameters) = match scheme {
        SignatureScheme::RsaPkcs1Sha256 => (SHA256_WITH_RSA, Some(AnyRef::NULL)),
        SignatureScheme::EcdsaP256Sha256 => (ECDSA_WITH_SHA256, None),
        SignatureScheme::Ed25519 => (ED25519, None),
        SignatureScheme::RsaPkcs1Sha512 => {
            return Err(Error::UnsupportedKey("X.509 certificates are not signed with SHA-512".to_owned()));
        }
    };
    Ok(AlgorithmIdentifierRef { oid, parameters })
}

/// The scheme of an algorithm identifier, if it is one that is used here.
pub(super) fn scheme_of(algorithm: &AlgorithmIdentifierRef<'_>) -> Option<SignatureScheme> {
    match algorithm.oid {
        SHA256_WITH_RSA => Some(SignatureScheme::RsaPkcs1Sha256),
        ECDSA_WITH_SHA256 => Some(SignatureScheme::EcdsaP256Sha256),
        ED25519 => Some(SignatureScheme::Ed25519),
        _ => None,
    }
}

/// A point in time with the precision of certificates, which is seconds.
pub(super) fn to_time(moment: DateTime<Utc>) -> Result<Time, Error> {
    let seconds = u64::try_from(moment.timestamp()).map_err(|_| malformed_time("before 1970"))?;
    let date = der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).map_err(malformed_time)?;
    Ok(Time::from(date))
}

pub(super) fn from_time(time: Time) -> Result<DateTime<Utc>, Error> {
    i64::try_from(time.to_unix_duration().as_secs())
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .ok_or_else(|| malformed_time("out of range"))
}

fn malformed_time(reason: impl std::fmt::Display) -> Error {
    Error::malformed("certificate validity", reason)
}
