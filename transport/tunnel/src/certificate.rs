//! Who is at the other end: SSH host certificates and what they claim.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pki::keys::PublicKey;
use pki::ssh_cert::{self, CheckError, Kind, Requirements};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, PrivateKey};

use crate::ssh::{AUTHORITY_EXTENSION, ROLE_EXTENSION};

/// An SSH key with the host certificate over it.
#[derive(Clone)]
pub struct HostIdentity {
    /// The private key.
    pub key: Arc<PrivateKey>,
    /// The certificate over its public half.
    pub certificate: Certificate,
}

impl HostIdentity {
    /// The name to log in with: the first principal, `<host uuid>.<cluster name>`.
    pub fn user(&self) -> Option<&str> {
        self.certificate.valid_principals().first().map(String::as_str)
    }
}

impl fmt::Debug for HostIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostIdentity").field("principals", &self.certificate.valid_principals()).finish_non_exhaustive()
    }
}

/// What a host certificate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostClaims {
    /// The cluster whose authority signed it.
    pub cluster: String,
    /// The system role of the holder, such as `Node`.
    pub role: String,
}

/// Why a certificate does not prove what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is a user certificate.
    #[error("not a host certificate")]
    NotAHost,
    /// It does not say which cluster it belongs to.
    #[error("certificate names no cluster ({AUTHORITY_EXTENSION})")]
    NoCluster,
    /// It does not say which role the holder has.
    #[error("certificate names no role ({ROLE_EXTENSION})")]
    NoRole,
    /// None of the known authorities signed it, or it is expired or not valid yet.
    #[error("certificate is not signed by a known host authority, or is expired")]
    NotTrusted,
    /// It is for somebody else.
    #[error("certificate does not list the name that was used")]
    WrongPrincipal,
    /// It has a condition that nobody here knows how to check.
    #[error("certificate has a critical option, which host certificates do not have")]
    CriticalOption,
}

/// Reads what a host certificate claims. That alone proves nothing: see [`verify`].
pub fn claims(certificate: &Certificate) -> Result<HostClaims, CertificateError> {
    if certificate.cert_type() != CertType::Host {
        return Err(CertificateError::NotAHost);
    }
    let extension = |name: &str| certificate.extensions().get(name).filter(|value| !value.is_empty()).cloned();
    Ok(HostClaims {
        cluster: extension(AUTHORITY_EXTENSION).ok_or(CertificateError::NoCluster)?,
        role: extension(ROLE_EXTENSION).ok_or(CertificateError::NoRole)?,
    })
}

/// Checks that a certificate is a host certificate, signed by one of `authorities` and valid now, and lists
/// `principal` if one is given. A certificate without any principals is for nobody.
pub fn verify(
    certificate: &Certificate,
    authorities: &[PublicKey],
    principal: Option<&str>,
    now: SystemTime,
) -> Result<(), CertificateError> {
    let required = Requirements { kind: Kind::Host, principal, now: now.into(), source: None };
    ssh_cert::check(certificate, authorities, &required).map_err(|error| match error {
        CheckError::WrongType => CertificateError::NotAHost,
        CheckError::PrincipalNotListed(_) => CertificateError::WrongPrincipal,
        CheckError::UnknownCriticalOption(_) => CertificateError::CriticalOption,
        _ => CertificateError::NotTrusted,
    })?;
    if certificate.valid_principals().is_empty() { Err(CertificateError::WrongPrincipal) } else { Ok(()) }
}

/// The host UUID in a list of principals: the part before `.<cluster>` of the first one that ends so.
pub fn host_id<'a>(principals: &'a [String], cluster: &str) -> Option<&'a str> {
    principals
        .iter()
        .find_map(|principal| principal.strip_suffix(cluster)?.strip_suffix('.').filter(|id| !id.is_empty()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use russh::keys::Algorithm;

    use super::*;
    use crate::testing::{Authority, host_certificate, key};

    const NOW: u64 = 1_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_host_certificate_of_a_known_authority_is_trusted_while_it_is_valid() {
        let (ca, other) = (Authority::new("c"), Authority::new("c"));
        let certificate = ca.host(&key(), "Node", &["id.c", "id"]);
        let known = [other.public(), ca.public()];
        assert_eq!(verify(&certificate, &known, Some("id.c"), at(NOW)), Ok(()));
        assert_eq!(verify(&certificate, &known, None, at(NOW)), Ok(()));
        assert_eq!(verify(&certificate, &known[..1], Some("id.c"), at(NOW)), Err(CertificateError::NotTrusted));
        assert_eq!(verify(&certificate, &[], Some("id.c"), at(NOW)), Err(CertificateError::NotTrusted));
        assert_eq!(verify(&certificate, &known, Some("id.d"), at(NOW)), Err(CertificateError::WrongPrincipal));
        assert_eq!(verify(&certificate, &known, Some("id.c"), at(u64::MAX >> 30)), Err(CertificateError::NotTrusted));
    }

    #[test]
    fn a_certificate_that_its_authority_did_not_sign_is_not_trusted() {
        for algorithm in [Algorithm::Ed25519, Algorithm::Rsa { hash: None }] {
            let ca = Authority::with_key("c", algorithm);
            let certificate = ca.host(&key(), "Node", &["id.c"]);
            assert_eq!(verify(&certificate, &[ca.public()], None, at(NOW)), Ok(()));
            // The signature comes last.
            let mut bytes = certificate.to_bytes().unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            let changed = Certificate::from_bytes(&bytes).unwrap();
            assert_eq!(verify(&changed, &[ca.public()], None, at(NOW)), Err(CertificateError::NotTrusted));
        }
    }

    #[test]
    fn a_user_certificate_is_not_a_host() {
        let ca = Authority::new("c");
        let certificate = host_certificate(CertType::User, key().public_key(), &ca, "Node", &["id.c"]);
        assert_eq!(verify(&certificate, &[ca.public()], None, at(NOW)), Err(CertificateError::NotAHost));
        assert_eq!(claims(&certificate), Err(CertificateError::NotAHost));
    }

    #[test]
    fn claims_are_the_cluster_and_the_role() {
        let certificate = Authority::new("c").host(&key(), "App", &["id.c"]);
        assert_eq!(claims(&certificate), Ok(HostClaims { cluster: "c".to_owned(), role: "App".to_owned() }));
    }

    #[test]
    fn the_host_id_comes_from_the_principal_with_the_clusters_name() {
        let principals = ["localhost".to_owned(), ".c".to_owned(), "id.c".to_owned(), "name.c".to_owned()];
        assert_eq!(host_id(&principals, "c"), Some("id"));
        assert_eq!(host_id(&principals, "d"), None);
        assert_eq!(host_id(&[], "c"), None);
    }
}
