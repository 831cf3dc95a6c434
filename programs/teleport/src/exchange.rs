//! How the Auth Service of this process reaches the proxies of other clusters.

use async_trait::async_trait;
use auth_service::{TrustExchange, ValidateRequest, ValidateResponse};
use dialer::{Dialer, HostPort, ProxyEndpoint, Verify};
use wire::error::{Error, ErrorKind};

/// The port of a proxy whose address names none.
const WEB_PORT: u16 = 443;

/// Posts to the web API of other clusters' proxies.
pub struct WebExchange {
    dialer: Dialer,
    verify: Verify,
}

impl WebExchange {
    /// Dials with this dialer and verifies certificates so.
    pub fn new(dialer: Dialer, verify: Verify) -> Self {
        Self { dialer, verify }
    }
}

#[async_trait]
impl TrustExchange for WebExchange {
    async fn validate(&self, proxy: &str, request: &ValidateRequest) -> Result<ValidateResponse, Error> {
        let address = HostPort::parse(proxy, WEB_PORT)
            .map_err(|error| Error::bad_parameter(format!("spec.web_proxy_addr: {error}")))?;
        let endpoint = ProxyEndpoint::new(self.dialer.clone(), address, self.verify.clone());
        let answer = endpoint.web_client().post("/v1/webapi/trustedclusters/validate", request).await;
        answer.map_err(|error| match error.api() {
            Some(api) => {
                let status = http::StatusCode::from_u16(api.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
                Error::new(ErrorKind::from_http_status(status), format!("cluster at {proxy}: {}", api.message))
            }
            None => Error::connection_problem(format!("the proxy at {proxy} cannot be reached: {error}")),
        })
    }
}
