//! The client's side: which servers to trust, and connections with a client certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{TrustedAuthorities, crypto_provider};
use crate::Error;
use crate::cluster_name::{API_DOMAIN, MAX_NAME_IN_SERVER_NAME, to_server_name};
use crate::identity::Identity;
use crate::keys::PrivateKey;
use crate::x509::Certificate;

/// The roles that the certificate of an Auth Service may have.
const AUTH_ROLES: [&str; 2] = ["Auth", "Admin"];

/// Trusts servers whose certificate one of the given authorities signed for one fixed name, whatever address or
/// server name the connection goes to.
#[derive(Debug)]
pub struct ClusterServerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
    /// The server has one of these roles; empty: any.
    roles: &'static [&'static str],
}

impl ClusterServerVerifier {
    /// Expects the server to be the Auth API (or a proxy) of a cluster.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Tls`] when there is no usable authority.
    pub fn for_cluster(authorities: &TrustedAuthorities, cluster: &str) -> Result<Arc<Self>, Error> {
        Self::for_name(authorities, server_name_of(cluster)?)
    }

    /// Expects the server to be the Auth API of a cluster, and no proxy: those have certificates for the same name, so
    /// that one in between could otherwise answer in the name of Auth.
    ///
    /// # Errors
    /// As [`for_cluster`](Self::for_cluster).
    pub fn for_auth(authorities: &TrustedAuthorities, cluster: &str) -> Result<Arc<Self>, Error> {
        Self::with_roles(authorities, server_name_of(cluster)?, &AUTH_ROLES)
    }

    /// Expects the server to have another fixed name.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there is no usable authority.
    pub fn for_name(authorities: &TrustedAuthorities, name: ServerName<'static>) -> Result<Arc<Self>, Error> {
        Self::with_roles(authorities, name, &[])
    }

    fn with_roles(
        authorities: &TrustedAuthorities,
        name: ServerName<'static>,
        roles: &'static [&'static str],
    ) -> Result<Arc<Self>, Error> {
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(authorities.roots()), crypto_provider())
            .build()
            .map_err(|error| Error::malformed("trusted authorities", error))?;
        Ok(Arc::new(Self { inner, name, roles }))
    }

    fn has_role(&self, certificate: &CertificateDer<'_>) -> bool {
        let identity = Certificate::from_der(certificate).and_then(|it| Identity::from_certificate(&it));
        identity.is_ok_and(|identity| identity.groups.iter().any(|role| self.roles.contains(&role.as_str())))
    }
}

impl ServerCertVerifier for ClusterServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Authorities of a cluster sign directly, so nothing that a server sends along is of use.
        let verified = self.inner.verify_server_cert(end_entity, &[], &self.name, &[], now)?;
        if !self.roles.is_empty() && !self.has_role(end_entity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Trusts any server: for `--insecure`, and for fetching an authority whose pin is checked afterwards.
///
/// The server still has to prove that it holds the key of the certificate it shows.
#[derive(Debug)]
pub struct InsecureServerVerifier {
    provider: Arc<CryptoProvider>,
}

impl InsecureServerVerifier {
    /// Makes such a verifier.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { provider: crypto_provider() })
    }
}

impl ServerCertVerifier for InsecureServerVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The ordinary check of the web: the authorities of the given store, and the name that was dialled.
///
/// # Errors
/// [`Error::Malformed`] for an empty store.
pub fn public_server_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, crypto_provider())
        .build()
        .map_err(|error| Error::malformed("trusted authorities", error))?;
    Ok(verifier)
}

/// The server name by which a cluster's Auth API or proxy is dialled, and which its certificate must have.
///
/// Names longer than [`MAX_NAME_IN_SERVER_NAME`] do not fit into a DNS label; the general name stands in for them,
/// and the server then takes clients of any cluster it trusts.
///
/// # Errors
/// [`Error::Malformed`] never happens.
pub fn server_name_of(cluster: &str) -> Result<ServerName<'static>, Error> {
    let name = if cluster.is_empty() || cluster.len() > MAX_NAME_IN_SERVER_NAME {
        API_DOMAIN.to_owned()
    } else {
        to_server_name(cluster)
    };
    ServerName::try_from(name).map_err(|error| Error::malformed("server name", error))
}

/// A client configuration: TLS 1.2 or newer, session resumption on, with a client certificate if one is given.
///
/// # Errors
/// [`Error::Tls`] when the key does not fit the certificate.
pub fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<(&Certificate, &PrivateKey)>,
    alpn: &[&str],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some((certificate, key)) => {
            builder.with_client_auth_cert(vec![certificate.to_rustls()], key.to_rustls_der())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}
