//! Outbound TLS: whom to believe, and what to show.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use mux::ReadAhead;
use mux::tls::WRITE_BUFFER;
use pki::keys::PrivateKey;
use pki::tls::{
    ClusterServerVerifier, InsecureServerVerifier, TrustedAuthorities, client_config, crypto_provider,
    public_server_verifier,
};
use pki::x509::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use crate::DialError;
use crate::deadline::Deadline;
use crate::stream::{BoxStream, TlsStream};

/// Which servers are believed.
#[derive(Debug, Clone)]
pub enum Verify {
    /// Those that an authority of the system vouches for, for the name dialled.
    System,
    /// The same with further authorities (`--ca-cert`, the profile's authorities).
    SystemAnd(Vec<Certificate>),
    /// Auth and Proxy of a cluster: the cluster's authorities vouch for them under the cluster's name, whatever name
    /// or address was dialled.
    Cluster {
        /// The host authorities of the cluster.
        authorities: Arc<TrustedAuthorities>,
        /// Its name; empty when any cluster of these authorities will do.
        cluster: String,
    },
    /// Auth of a cluster and nobody else, by the role in its certificate. For what a proxy on the way must not answer.
    Auth {
        /// The host authorities of the cluster.
        authorities: Arc<TrustedAuthorities>,
        /// Its name.
        cluster: String,
    },
    /// Any server with a certificate that is valid now and has this DNS name: for joining behind a balancer, where
    /// the cluster's authorities are not known yet and what is exchanged proves itself.
    AnyAuthority {
        /// The name the certificate must have.
        name: String,
    },
    /// Any server at all: `--insecure`, and fetching an authority whose pin is checked afterwards.
    Insecure,
}

/// A client certificate with its key; cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The certificate; authorities of a cluster sign directly, so there is no chain.
    pub certificate: Certificate,
    /// The key of the certificate.
    pub key: PrivateKey,
}

/// Everything a handshake needs; make it once and use it for many connections, which then resume sessions.
#[derive(Debug, Clone)]
pub struct TlsSetup {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl Verify {
    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, DialError> {
        Ok(match self {
            Self::System => public_server_verifier(system_roots())?,
            Self::SystemAnd(more) => {
                let mut roots = RootCertStore::clone(&system_roots());
                roots.add_parsable_certificates(more.iter().map(Certificate::to_rustls));
                public_server_verifier(Arc::new(roots))?
            }
            Self::Cluster { authorities, cluster } => ClusterServerVerifier::for_cluster(authorities, cluster)?,
            Self::Auth { authorities, cluster } => ClusterServerVerifier::for_auth(authorities, cluster)?,
            Self::AnyAuthority { name } => Arc::new(NameOnly { name: name.clone(), provider: crypto_provider() }),
            Self::Insecure => InsecureServerVerifier::new(),
        })
    }
}

impl TlsSetup {
    /// Asks for `server_name` (sent unless it is an IP address), offers `alpn` in this order.
    pub fn new(
        server_name: &str,
        alpn: &[&str],
        verify: &Verify,
        identity: Option<&ClientIdentity>,
    ) -> Result<Self, DialError> {
        let identity = identity.map(|identity| (&identity.certificate, &identity.key));
        let config = client_config(verify.verifier()?, identity, alpn)?;
        let problem = "not a name that TLS can ask for";
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| crate::AddressError { text: server_name.to_owned(), problem })?;
        Ok(Self { config: Arc::new(config), server_name })
    }

    /// Completes a handshake on a connection made otherwise, within the usual time. `target` is for errors.
    pub async fn connect(&self, target: &impl Display, stream: BoxStream) -> Result<TlsStream, DialError> {
        self.handshake(&Deadline::new(target, crate::tcp::DIAL_TIMEOUT), target, stream).await
    }

    pub(crate) async fn handshake(
        &self,
        deadline: &Deadline,
        target: &impl Display,
        stream: BoxStream,
    ) -> Result<TlsStream, DialError> {
        let stream: BoxStream = Box::new(ReadAhead::new(stream));
        let handshake = TlsConnector::from(self.config.clone()).connect(self.server_name.clone(), stream);
        let outcome = deadline.wait(format!("the TLS handshake with {target}"), handshake).await?;
        let mut stream = outcome.map_err(|source| DialError::Tls { target: target.to_string(), source })?;
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER));
        Ok(stream)
    }
}

/// The authorities of the system, read once. None at all is no error here: then no public server is believed.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "load certificate authorities of the system");
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        tracing::trace!(added, "certificate authorities of the system");
        Arc::new(roots)
    };
    ROOTS.get_or_init(load).clone()
}

/// See [`Verify::AnyAuthority`].
#[derive(Debug)]
struct NameOnly {
    name: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NameOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let now = now.as_secs();
        if i64::try_from(now).map_or(true, |now| now > certificate.not_after().timestamp()) {
            return Err(CertificateError::Expired.into());
        }
        if !certificate.dns_names().any(|name| name.eq_ignore_ascii_case(&self.name)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
