//! Building blocks for TLS between the parts of a cluster.
//!
//! Inside a cluster nobody uses public authorities: servers and clients hold certificates of the cluster's own
//! authorities, signed directly (no intermediates), and each side checks against exactly the authorities of the
//! clusters it means. Everything here needs TLS 1.2 or newer and uses aws-lc.

mod client;
mod server;

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

pub use client::{
    ClusterServerVerifier, InsecureServerVerifier, client_config, public_server_verifier, server_name_of,
};
pub use server::{ClientAuth, ClientAuthorities, ServerCertificate, ServerConfigs, server_config, server_config_with};

use crate::identity::Identity;
use crate::x509::Certificate;

/// The suites of a server or client that was not told otherwise, strongest first.
static CIPHER_SUITES: [rustls::SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The algorithms of this process.
static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();

/// Has this process use only the named TLS 1.2 suites, as in `teleport.ciphersuites`; see [`crypto_provider_with`].
///
/// # Errors
/// [`crate::Error::Malformed`] for a name that is not offered, and when TLS was used before: the choice would come too
/// late for what is there.
pub fn choose_cipher_suites<S: AsRef<str>>(names: &[S]) -> Result<(), crate::Error> {
    let provider = crypto_provider_with(names)?;
    PROVIDER.set(provider).map_err(|_| crate::Error::malformed("cipher suites", "TLS is in use already"))
}

/// The TLS 1.2 and 1.3 algorithms in use.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    let make = || Arc::new(CryptoProvider { cipher_suites: CIPHER_SUITES.to_vec(), ..default_provider() });
    Arc::clone(PROVIDER.get_or_init(make))
}

/// A provider with only the named TLS 1.2 suites, as in `teleport.ciphersuites`, such as
/// `tls-ecdhe-rsa-with-aes-128-gcm-sha256`. The suites of TLS 1.3 are not configurable.
///
/// # Errors
/// [`crate::Error::Malformed`] for a name that is not offered.
pub fn crypto_provider_with<S: AsRef<str>>(names: &[S]) -> Result<Arc<CryptoProvider>, crate::Error> {
    let is_tls13 = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
    let mut suites: Vec<_> = CIPHER_SUITES.iter().copied().filter(is_tls13).collect();
    for name in names {
        let wanted = name.as_ref().replace('-', "_").to_ascii_uppercase();
        let suite = CIPHER_SUITES
            .iter()
            .find(|suite| !is_tls13(suite) && suite.suite().as_str() == Some(wanted.as_str()))
            .ok_or_else(|| crate::Error::malformed("cipher suite", format!("{:?} is not supported", name.as_ref())))?;
        suites.push(*suite);
    }
    Ok(Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() }))
}

/// A set of authorities to check peers against.
#[derive(Clone, Debug)]
pub struct TrustedAuthorities {
    certificates: Vec<Certificate>,
    roots: Arc<RootCertStore>,
}

impl TrustedAuthorities {
    /// Takes authorities' certificates.
    ///
    /// # Errors
    /// [`crate::Error::Tls`] for a certificate that TLS cannot use.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> Result<Self, crate::Error> {
        let certificates: Vec<Certificate> = certificates.into_iter().cloned().collect();
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.to_rustls())?;
        }
        Ok(Self { certificates, roots: Arc::new(roots) })
    }

    /// The authorities' certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The form that rustls takes.
    #[must_use]
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// Whether the names of all authorities fit into a request for client certificates (RFC 8446 §4.2.4: 2^16-1
    /// bytes, each name with two bytes of length).
    fn fits_certificate_request(&self) -> bool {
        let names = self.certificates.iter().map(|certificate| certificate.subject_der().len() + 2);
        names.sum::<usize>() < usize::from(u16::MAX)
    }
}

/// Why a peer's certificate was refused after the handshake.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The peer sent more than its own certificate.
    #[error("intermediaries are not supported")]
    Intermediaries,
    /// The certificate expired after the session that is being resumed was set up.
    #[error("certificate expired at {0}")]
    Expired(DateTime<Utc>),
    /// The certificate cannot be read.
    #[error(transparent)]
    Unreadable(#[from] crate::Error),
}

/// The identity of a peer after a handshake that verified its certificate; `None` when it sent none.
///
/// A resumed session shows the certificate of the first handshake without verifying it again, so the end of its
/// validity is checked here: servers call this for every connection.
///
/// # Errors
/// The reason to close the connection.
pub fn peer_identity(
    certificates: Option<&[CertificateDer<'_>]>,
    now: DateTime<Utc>,
) -> Result<Option<(Certificate, Identity)>, PeerError> {
    let certificate = match certificates {
        None | Some([]) => return Ok(None),
        Some([only]) => Certificate::from_der(only)?,
        Some(_) => return Err(PeerError::Intermediaries),
    };
    if now > certificate.not_after() {
        return Err(PeerError::Expired(certificate.not_after()));
    }
    let identity = Identity::from_certificate(&certificate)?;
    Ok(Some((certificate, identity)))
}

#[cfg(test)]
mod tests;
