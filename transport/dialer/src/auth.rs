//! The Auth Service as seen by those who can reach it directly.

use std::sync::Arc;

use async_trait::async_trait;
use mux::alpn;
use pki::tls::server_name_of;
use tonic::transport::Channel;

use crate::DialError;
use crate::address::HostPort;
use crate::channel::{Connect, channel};
use crate::credentials::Credentials;
use crate::environment::Traffic;
use crate::line::Line;
use crate::stream::{BoxStream, TlsStream};
use crate::tcp::Dialer;
use crate::tls::{TlsSetup, Verify};
use crate::webapi::JsonClient;

/// What Auth is called in HTTP requests, whatever its address.
pub(crate) const HTTP_HOST: &str = "teleport.cluster.local";

/// The Auth Service at its own port; cheap to clone.
#[derive(Debug, Clone)]
pub struct AuthEndpoint {
    dialer: Dialer,
    addresses: Arc<[HostPort]>,
    trust: AuthTrust,
    credentials: Credentials,
    user_agent: Option<String>,
}

/// Whether the Auth Service is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthTrust {
    /// It has to have a certificate of the credentials' cluster.
    Cluster,
    /// Anyone who answers is believed: for joining, with an authority that is checked by its pin afterwards or, when
    /// the user has chosen so, not at all.
    Anyone,
}

impl AuthEndpoint {
    /// An Auth Service at these addresses, which are tried in order.
    pub fn new(dialer: Dialer, addresses: Vec<HostPort>, trust: AuthTrust, credentials: Credentials) -> Self {
        Self { dialer, addresses: addresses.into(), trust, credentials, user_agent: None }
    }

    /// Names the program in requests, such as `tctl/17.0.0`.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = Some(user_agent.to_owned());
        self
    }

    /// What is shown and believed.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A TLS connection that offers these application protocols.
    pub async fn open(&self, alpn: &[&str]) -> Result<TlsStream, DialError> {
        let credentials = self.credentials.current();
        let verify = match self.trust {
            AuthTrust::Cluster => credentials.verify(&credentials.cluster)?,
            AuthTrust::Anyone => Verify::Insecure,
        };
        let server_name = server_name_of(&credentials.cluster)?;
        let setup = TlsSetup::new(&server_name.to_str(), alpn, &verify, credentials.identity.as_ref())?;
        let mut last = DialError::NoAddress;
        for address in self.addresses.iter() {
            match self.dialer.tls(address, Traffic::Raw, &setup).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    tracing::debug!(%address, %error, "Auth Service not reached");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// A gRPC channel. Dials lazily and reconnects; see [`channel()`].
    pub fn channel(&self) -> Channel {
        let connect = AuthConnect { auth: self.clone(), alpn: alpn::H2 };
        channel(Arc::new(connect), self.user_agent.as_deref())
    }

    /// The same on a line, so that its connection can be given up.
    pub fn channel_on(&self, line: &Line) -> Channel {
        let connect = AuthConnect { auth: self.clone(), alpn: alpn::H2 };
        channel(line.over(Arc::new(connect)), self.user_agent.as_deref())
    }

    /// The JSON client.
    pub fn http(&self) -> JsonClient {
        JsonClient::new(Arc::new(AuthConnect { auth: self.clone(), alpn: alpn::HTTP_1_1 }), HTTP_HOST)
    }
}

struct AuthConnect {
    auth: AuthEndpoint,
    alpn: &'static str,
}

#[async_trait]
impl Connect for AuthConnect {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        Ok(Box::new(self.auth.open(&[self.alpn]).await?))
    }
}
