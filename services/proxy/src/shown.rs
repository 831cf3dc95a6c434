//! The proxy's own identity, wherever it is shown: renewed at one place, it is another one everywhere.

use std::sync::Arc;

use dialer::ClientIdentity;
use mux::proxy_protocol::signed::HeaderSigner;
use parking_lot::RwLock;
use pki::tls::ServerCertificate;
use wire::error::Error;

use crate::ProxyIdentity;

/// The identity as it is now. Clones share it.
#[derive(Clone)]
pub(crate) struct Shown {
    current: Arc<RwLock<ProxyIdentity>>,
    certificate: ServerCertificate,
    signer: HeaderSigner,
}

impl Shown {
    /// Begins with this identity in a cluster.
    pub(crate) fn new(identity: ProxyIdentity, cluster: &str) -> Result<Self, Error> {
        let chain = std::slice::from_ref(&identity.tls_certificate);
        let certificate = ServerCertificate::new(chain, &identity.tls_key).map_err(|e| Error::other(e.to_string()))?;
        let signer = HeaderSigner::new(identity.tls_certificate.clone(), identity.tls_key.clone(), cluster);
        Ok(Self { current: Arc::new(RwLock::new(identity)), certificate, signer })
    }

    /// Shows another identity from now on; connections that exist are not touched.
    pub(crate) fn replace(&self, identity: &ProxyIdentity) -> Result<(), Error> {
        let chain = std::slice::from_ref(&identity.tls_certificate);
        self.certificate.replace(chain, &identity.tls_key).map_err(|e| Error::other(e.to_string()))?;
        self.signer.replace(identity.tls_certificate.clone(), identity.tls_key.clone());
        *self.current.write() = identity.clone();
        Ok(())
    }

    /// What TLS clients are shown.
    pub(crate) fn certificate(&self) -> ServerCertificate {
        self.certificate.clone()
    }

    /// What vouches for the addresses of clients.
    pub(crate) fn signer(&self) -> HeaderSigner {
        self.signer.clone()
    }

    /// What SSH peers are shown.
    pub(crate) fn ssh(&self) -> tunnel::HostIdentity {
        self.current.read().ssh.clone()
    }

    /// What TLS servers are shown.
    pub(crate) fn client(&self) -> ClientIdentity {
        let current = self.current.read();
        ClientIdentity { certificate: current.tls_certificate.clone(), key: current.tls_key.clone() }
    }
}
