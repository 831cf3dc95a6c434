//! The server's side: client certificates, and configurations chosen by server name.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{PeerError, TrustedAuthorities, crypto_provider};
use crate::Error;
use crate::cluster_name::from_server_name;
use crate::keys::PrivateKey;
use crate::x509::Certificate;

/// Whether a server asks for client certificates, and which it accepts.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// It does not ask.
    None,
    /// It asks and verifies what it gets; clients without certificate are let in.
    Optional(Arc<TrustedAuthorities>),
    /// It closes the connection of a client without valid certificate.
    Required(Arc<TrustedAuthorities>),
}

/// Decides which authorities may vouch for a client.
pub trait ClientAuthorities: Send + Sync {
    /// The authorities for a connection. `cluster` is the one that the client named in the server name, if it did;
    /// an unreadable name counts as none. `None` refuses the connection.
    ///
    /// Must return the same `Arc` as long as nothing has changed: configurations are kept per `Arc`.
    fn authorities_for(&self, cluster: Option<&str>) -> Option<Arc<TrustedAuthorities>>;
}

/// The certificate that a server shows. Clones share it, so that a renewed one is shown by every configuration made
/// with it, from the next handshake on.
#[derive(Clone, Debug)]
pub struct ServerCertificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl ServerCertificate {
    /// A certificate, with those between it and its authority, and its key.
    ///
    /// # Errors
    /// [`Error::Tls`] when the key does not fit the certificate.
    pub fn new(chain: &[Certificate], key: &PrivateKey) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(certified(chain, key)?))))
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// [`Error::Tls`] when the key does not fit the certificate; the old one is then kept.
    pub fn replace(&self, chain: &[Certificate], key: &PrivateKey) -> Result<(), Error> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(chain, key)?;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified(chain: &[Certificate], key: &PrivateKey) -> Result<Arc<CertifiedKey>, Error> {
    let chain = chain.iter().map(Certificate::to_rustls).collect();
    Ok(Arc::new(CertifiedKey::from_der(chain, key.to_rustls_der(), &crypto_provider())?))
}

/// How many configurations are kept; more clusters than this only cost speed.
const MAX_KEPT: usize = 256;

/// Server configurations that differ only in whose clients they accept.
///
/// TLS libraries fix the accepted authorities before they read the client's greeting, so the greeting has to be read
/// first (`tokio_rustls::LazyConfigAcceptor`) and the configuration chosen with [`select`](Self::select).
pub struct ServerConfigs {
    certificate: ServerCertificate,
    alpn: Vec<Vec<u8>>,
    required: bool,
    authorities: Arc<dyn ClientAuthorities>,
    kept: Mutex<Vec<(Arc<TrustedAuthorities>, Arc<ServerConfig>)>>,
}

impl ServerConfigs {
    /// Makes configurations for a server's certificate and protocols; `required` as in [`ClientAuth::Required`].
    #[must_use]
    pub fn new(
        certificate: ServerCertificate,
        alpn: &[&str],
        required: bool,
        authorities: Arc<dyn ClientAuthorities>,
    ) -> Self {
        Self {
            certificate,
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            required,
            authorities,
            kept: Mutex::default(),
        }
    }

    /// The configuration for a client that asked for a server name.
    ///
    /// # Errors
    /// [`Error::NoClusterInServerName`] when clients of the named cluster are refused, [`Error::Tls`] when the
    /// certificate and key do not fit.
    pub fn select(&self, server_name: Option<&str>) -> Result<Arc<ServerConfig>, Error> {
        let cluster = server_name.and_then(|name| from_server_name(name).ok());
        let authorities = self
            .authorities
            .authorities_for(cluster.as_deref())
            .ok_or_else(|| Error::NoClusterInServerName(server_name.unwrap_or_default().to_owned()))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = kept.iter().find(|(known, _)| Arc::ptr_eq(known, &authorities)) {
            return Ok(Arc::clone(config));
        }
        // What only this list still holds has been replaced by newer authorities.
        kept.retain(|(known, _)| Arc::strong_count(known) > 1);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let auth = match self.required {
            true => ClientAuth::Required(Arc::clone(&authorities)),
            false => ClientAuth::Optional(Arc::clone(&authorities)),
        };
        let config = Arc::new(build(self.certificate.clone(), self.alpn.clone(), auth)?);
        kept.push((authorities, Arc::clone(&config)));
        Ok(config)
    }
}

impl fmt::Debug for ServerConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfigs").field("required", &self.required).finish_non_exhaustive()
    }
}

/// A server configuration: TLS 1.2 or newer, session tickets on, protocols in the server's order of preference.
///
/// Tickets made by one configuration are worthless to another, so a client cannot carry a session over to a server
/// name with other authorities, or past a rotation.
///
/// # Errors
/// [`Error::Tls`] when the key does not fit the certificate, [`Error::Malformed`] without usable authorities.
pub fn server_config(
    chain: &[Certificate],
    key: &PrivateKey,
    alpn: &[&str],
    auth: ClientAuth,
) -> Result<ServerConfig, Error> {
    server_config_with(ServerCertificate::new(chain, key)?, alpn, auth)
}

/// The same with a certificate that can be replaced.
///
/// # Errors
/// [`Error::Malformed`] without usable authorities.
pub fn server_config_with(
    certificate: ServerCertificate,
    alpn: &[&str],
    auth: ClientAuth,
) -> Result<ServerConfig, Error> {
    build(certificate, alpn.iter().map(|name| name.as_bytes().to_vec()).collect(), auth)
}

fn build(certificate: ServerCertificate, alpn: Vec<Vec<u8>>, auth: ClientAuth) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(crypto_provider()).with_safe_default_protocol_versions()?;
    let builder = match auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional(authorities) => {
            builder.with_client_cert_verifier(Arc::new(ClientVerifier::new(&authorities, false)?))
        }
        ClientAuth::Required(authorities) => {
            builder.with_client_cert_verifier(Arc::new(ClientVerifier::new(&authorities, true)?))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = alpn;
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// Accepts clients whose certificate one of the authorities signed directly.
///
/// Only the signature, the validity and the purpose are checked; what the subject says is for the caller. Users'
/// certificates have no alternative names and subjects of several kilobytes.
#[derive(Debug)]
struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    fn new(authorities: &TrustedAuthorities, required: bool) -> Result<Self, Error> {
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities.roots()), crypto_provider());
        if !required {
            builder = builder.allow_unauthenticated();
        }
        // The list of names only helps clients to choose among several certificates; without it any will do.
        if !authorities.fits_certificate_request() {
            builder = builder.clear_root_hint_subjects();
        }
        let inner = builder.build().map_err(|error| Error::malformed("trusted authorities", error))?;
        Ok(Self { inner })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if !intermediates.is_empty() {
            let reason = OtherError(Arc::new(PeerError::Intermediaries));
            return Err(CertificateError::Other(reason).into());
        }
        self.inner.verify_client_cert(end_entity, &[], now)
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
