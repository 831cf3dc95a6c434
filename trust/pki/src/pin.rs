//! Pins: a joining process knows the authority it wants by the hash of its public key.
//!
//! A pin is `sha256:` and the hexadecimal SHA-256 of the SubjectPublicKeyInfo of an authority's certificate, so it
//! outlives renewals of the certificate with the same key. During a rotation there are several.

use aws_lc_rs::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

use crate::Error as PkiError;
use crate::x509::Certificate;

const ALGORITHM: &str = "sha256";

/// Why a set of certificates does not satisfy the pins.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PinError {
    /// A pin without exactly one colon.
    #[error("malformed CA pin {0:?}, expected sha256:<hex>")]
    Malformed(String),
    /// A pin with another hash.
    #[error("unsupported CA pin algorithm {0:?}, expected sha256")]
    UnsupportedAlgorithm(String),
    /// There was nothing to check against.
    #[error("no CA certificate was presented")]
    NoCertificates,
    /// A certificate that none of the pins allows.
    #[error(
        "the cluster's CA certificate with pin {presented} matches none of the given CA pins, check that they belong to this cluster"
    )]
    Mismatch {
        /// The pin that would have allowed it.
        presented: String,
    },
}

/// The pin of one certificate.
#[must_use]
pub fn pin(certificate: &Certificate) -> String {
    let hash = digest(&SHA256, certificate.spki_der());
    format!("{ALGORITHM}:{}", hex::encode(hash))
}

/// The pins of every certificate of a PEM text.
///
/// # Errors
/// [`crate::Error::Malformed`].
pub fn ca_pins(bundle: &str) -> Result<Vec<String>, PkiError> {
    Ok(Certificate::bundle_from_pem(bundle)?.iter().map(pin).collect())
}

/// Checks that every certificate is allowed by at least one pin; a single stranger spoils the whole set.
///
/// Without pins nothing is allowed: whether pins are wanted is the caller's decision.
///
/// # Errors
/// The reason of the refusal.
pub fn check_pins<P: AsRef<str>>(certificates: &[Certificate], pins: &[P]) -> Result<(), PinError> {
    for pin in pins {
        check_form(pin.as_ref())?;
    }
    if certificates.is_empty() {
        return Err(PinError::NoCertificates);
    }
    for certificate in certificates {
        let presented = pin(certificate);
        let matched = pins.iter().fold(Choice::from(0), |matched, wanted| {
            let wanted = wanted.as_ref().to_ascii_lowercase();
            matched | presented.as_bytes().ct_eq(wanted.as_bytes())
        });
        if !bool::from(matched) {
            return Err(PinError::Mismatch { presented });
        }
    }
    Ok(())
}

fn check_form(pin: &str) -> Result<(), PinError> {
    let mut parts = pin.split(':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(ALGORITHM), Some(_), None) => Ok(()),
        (Some(algorithm), Some(_), None) => Err(PinError::UnsupportedAlgorithm(algorithm.to_owned())),
        _ => Err(PinError::Malformed(pin.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::slice;

    use chrono::Utc;

    use super::*;
    use crate::keys::{KeyAlgorithm, PrivateKey};
    use crate::x509::CaCertificate;

    fn authority() -> Certificate {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        CaCertificate::self_signed("root", &key, Utc::now()).unwrap().certificate().clone()
    }

    #[test]
    fn every_certificate_of_a_bundle_has_its_pin() {
        let (first, second) = (authority(), authority());
        let pins = ca_pins(&format!("{}\n{}", first.to_pem(), second.to_pem())).unwrap();
        assert_eq!(pins, [pin(&first), pin(&second)]);
        assert!(check_pins(&[first, second], &pins).is_ok());
    }

    #[test]
    fn one_certificate_without_pin_fails_the_check() {
        let (known, stranger) = (authority(), authority());
        let error = check_pins(&[known.clone(), stranger.clone()], &[pin(&known)]).unwrap_err();
        assert_eq!(error, PinError::Mismatch { presented: pin(&stranger) });
    }

    #[test]
    fn pins_of_another_form_are_refused() {
        let known = authority();
        for malformed in ["abc", "sha256:a:b", ""] {
            assert_eq!(
                check_pins(slice::from_ref(&known), &[malformed]),
                Err(PinError::Malformed(malformed.to_owned()))
            );
        }
        assert_eq!(
            check_pins(slice::from_ref(&known), &["sha1:abc"]),
            Err(PinError::UnsupportedAlgorithm("sha1".to_owned()))
        );
        assert!(check_pins::<&str>(&[known], &[]).is_err());
        assert_eq!(check_pins(&[], &["sha256:00"]), Err(PinError::NoCertificates));
    }
}
