use std::sync::{Arc, PoisonError, RwLock};

use pki::tls::TrustedAuthorities;
use pki::x509::Certificate;

use crate::DialError;
use crate::tls::{ClientIdentity, Verify};

/// What this process shows to the servers of its cluster, and whom it believes there.
///
/// Clones share their content. Every dial looks at it anew, so [`replace`](Credentials::replace) is all that a renewed
/// certificate or a rotated authority needs; connections that exist are not touched.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<RwLock<Arc<ClusterCredentials>>>);

/// The content of [`Credentials`] at one time.
#[derive(Debug, Clone, Default)]
pub struct ClusterCredentials {
    /// The cluster that issued the identity: the root cluster of a user, the own cluster of a host.
    pub cluster: String,
    /// The client certificate, where there is one.
    pub identity: Option<ClientIdentity>,
    /// Host authorities of all known clusters; which cluster one stands for is in its subject.
    pub authorities: Vec<Certificate>,
}

impl Credentials {
    /// Shares these credentials.
    pub fn new(credentials: ClusterCredentials) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(credentials))))
    }

    /// Makes every dial from now on use these.
    pub fn replace(&self, credentials: ClusterCredentials) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }

    /// What is used now.
    pub fn current(&self) -> Arc<ClusterCredentials> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClusterCredentials {
    /// Believes the Auth and Proxy of `cluster` only.
    pub fn verify(&self, cluster: &str) -> Result<Verify, DialError> {
        Ok(Verify::Cluster { authorities: self.of(cluster)?, cluster: cluster.to_owned() })
    }

    /// Believes the Auth of `cluster` only.
    pub fn verify_auth(&self, cluster: &str) -> Result<Verify, DialError> {
        Ok(Verify::Auth { authorities: self.of(cluster)?, cluster: cluster.to_owned() })
    }

    fn of(&self, cluster: &str) -> Result<Arc<TrustedAuthorities>, DialError> {
        let own = self.authorities.iter().filter(|authority| authority.common_name() == Some(cluster));
        let own: Vec<_> = own.collect();
        if own.is_empty() {
            return Err(DialError::NoAuthority(cluster.to_owned()));
        }
        Ok(Arc::new(TrustedAuthorities::new(own)?))
    }

    /// Believes Auth and Proxy of any known cluster; `None` when none is known.
    pub fn verify_any(&self) -> Result<Option<Verify>, DialError> {
        if self.authorities.is_empty() {
            return Ok(None);
        }
        let authorities = Arc::new(TrustedAuthorities::new(&self.authorities)?);
        Ok(Some(Verify::Cluster { authorities, cluster: String::new() }))
    }
}
