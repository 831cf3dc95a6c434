//! Whether an SSH certificate may be trusted for a purpose.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ssh_encoding::Encode as _;
use ssh_key::certificate::CertType;
use ssh_key::{Algorithm, Certificate, HashAlg, Signature};
use thiserror::Error;

use super::option;
use crate::keys::{PublicKey, SignatureScheme, ecdsa_der_from_ssh};

/// The two kinds of SSH certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For logging in.
    User,
    /// For servers.
    Host,
}

/// What a certificate must be good for.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'a> {
    /// The kind of certificate.
    pub kind: Kind,
    /// The login or host name that must be listed; `None` skips this test, for callers that decide about logins later.
    pub principal: Option<&'a str>,
    /// The current time.
    pub now: DateTime<Utc>,
    /// Where the peer connects from; a certificate that is pinned to an address is refused without it.
    pub source: Option<IpAddr>,
}

/// Why a certificate is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckError {
    /// A user's certificate in place of a host's, or the reverse.
    #[error("certificate is of the wrong type")]
    WrongType,
    /// None of the trusted authorities signed it.
    #[error("certificate is signed by an unknown authority")]
    UnknownAuthority,
    /// It names a trusted authority, which did not sign it.
    #[error("certificate signature is invalid")]
    BadSignature,
    /// Its validity has not begun.
    #[error("certificate is not valid before {0}")]
    NotYetValid(String),
    /// Its validity is over.
    #[error("certificate expired at {0}")]
    Expired(String),
    /// The wanted name is not among its principals.
    #[error("principal {0:?} is not listed in the certificate")]
    PrincipalNotListed(String),
    /// It carries a condition that is not understood here.
    #[error("certificate has the unknown critical option {0:?}")]
    UnknownCriticalOption(String),
    /// It may not be used from this address.
    #[error("certificate may not be used from {0}")]
    SourceAddressNotAllowed(String),
}

/// Checks a certificate; returns the authority that signed it.
///
/// A certificate without principals, which OpenSSH takes as good for every name, is good for none here.
///
/// # Errors
/// The first reason to refuse, in the order of [`CheckError`].
pub fn check<'a>(
    certificate: &Certificate,
    authorities: impl IntoIterator<Item = &'a PublicKey>,
    required: &Requirements<'_>,
) -> Result<&'a PublicKey, CheckError> {
    let found = match certificate.cert_type() {
        CertType::User => Kind::User,
        CertType::Host => Kind::Host,
    };
    if found != required.kind {
        return Err(CheckError::WrongType);
    }
    let authority = authorities
        .into_iter()
        .find(|authority| authority.ssh_key_data() == certificate.signature_key())
        .ok_or(CheckError::UnknownAuthority)?;
    if !is_signed_by(certificate, authority) {
        return Err(CheckError::BadSignature);
    }
    check_validity(certificate, required.now)?;
    if let Some(principal) = required.principal
        && !certificate.valid_principals().iter().any(|listed| listed == principal)
    {
        return Err(CheckError::PrincipalNotListed(principal.to_owned()));
    }
    check_critical_options(certificate, required)?;
    Ok(authority)
}

fn check_validity(certificate: &Certificate, now: DateTime<Utc>) -> Result<(), CheckError> {
    let show = |seconds: u64| {
        let moment = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        moment.map_or_else(|| "the end of time".to_owned(), |moment| moment.to_rfc3339())
    };
    let now = u64::try_from(now.timestamp()).unwrap_or(0);
    if now < certificate.valid_after() {
        return Err(CheckError::NotYetValid(show(certificate.valid_after())));
    }
    if now >= certificate.valid_before() {
        return Err(CheckError::Expired(show(certificate.valid_before())));
    }
    Ok(())
}

fn check_critical_options(certificate: &Certificate, required: &Requirements<'_>) -> Result<(), CheckError> {
    for (name, value) in certificate.critical_options().iter() {
        if name != option::SOURCE_ADDRESS || required.kind == Kind::Host {
            return Err(CheckError::UnknownCriticalOption(name.clone()));
        }
        let allowed =
            required.source.is_some_and(|source| value.split(',').any(|range| contains(range.trim(), source)));
        if !allowed {
            let source = required.source.map_or_else(|| "an unknown address".to_owned(), |source| source.to_string());
            return Err(CheckError::SourceAddressNotAllowed(source));
        }
    }
    Ok(())
}

/// Whether an address, or a network in CIDR form, contains a peer's address.
fn contains(range: &str, source: IpAddr) -> bool {
    let (address, width) = match range.split_once('/') {
        Some((address, width)) => (address, width.parse::<u32>().ok()),
        None => (range, Some(128)),
    };
    let (Ok(address), Some(width)) = (address.parse::<IpAddr>(), width) else {
        return false;
    };
    // A listener on both families shows IPv4 peers as mapped addresses.
    match (address.to_canonical(), source.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(peer)) => {
            let kept = width.min(32);
            let mask = u32::MAX.checked_shl(32 - kept).unwrap_or(0);
            network.to_bits() & mask == peer.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(peer)) => {
            let kept = width.min(128);
            let mask = u128::MAX.checked_shl(128 - kept).unwrap_or(0);
            network.to_bits() & mask == peer.to_bits() & mask
        }
        _ => false,
    }
}

/// Verifies the signature over everything that comes before it (PROTOCOL.certkeys).
fn is_signed_by(certificate: &Certificate, authority: &PublicKey) -> bool {
    let signature = certificate.signature();
    let (Ok(bytes), Ok(tail)) = (certificate.to_bytes(), signature.encoded_len_prefixed()) else {
        return false;
    };
    let Some(body) = bytes.len().checked_sub(tail).and_then(|end| bytes.get(..end)) else {
        return false;
    };
    scheme_and_bytes(signature).is_some_and(|(scheme, raw)| authority.verifies(scheme, body, &raw))
}

/// SHA-1 signatures (`ssh-rsa`) are refused.
fn scheme_and_bytes(signature: &Signature) -> Option<(SignatureScheme, Vec<u8>)> {
    let raw = signature.as_bytes();
    match signature.algorithm() {
        Algorithm::Ed25519 => Some((SignatureScheme::Ed25519, raw.to_vec())),
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) } => Some((SignatureScheme::RsaPkcs1Sha256, raw.to_vec())),
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) } => Some((SignatureScheme::RsaPkcs1Sha512, raw.to_vec())),
        Algorithm::Ecdsa { .. } => Some((SignatureScheme::EcdsaP256Sha256, ecdsa_der_from_ssh(raw).ok()?)),
        _ => None,
    }
}
