//! Where a connection really comes from, when a proxy of the cluster says so in a signed PROXY header.

use std::net::IpAddr;

use async_trait::async_trait;
use mux::proxy_protocol::{Addresses, Signature, VerifyError, VerifySignedHeader, signed};

use crate::Auth;

/// Believes headers that carry a proxy's host certificate and a token made with its key for this very connection.
pub struct SignedByProxy {
    auth: Auth,
}

impl SignedByProxy {
    pub fn new(auth: Auth) -> Self {
        Self { auth }
    }
}

#[async_trait]
impl VerifySignedHeader for SignedByProxy {
    async fn verify(&self, addresses: &Addresses, header: Signature<'_>) -> Result<Option<IpAddr>, VerifyError> {
        let cluster = self.auth.cluster_name();
        let authorities = self
            .auth
            .get_cert_authority("host", cluster, false)
            .await
            .map_err(|error| VerifyError::Unavailable(error.message))?;
        signed::verify(addresses, header, cluster, &super::tls::trusted(&authorities), self.auth.now())
    }
}
