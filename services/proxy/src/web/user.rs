//! Calls of browsers that are logged in, made in their user's name.
//!
//! The Auth Service decides about them: it is asked over a connection that carries the certificate of the browser's
//! session, which only proxies can read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header;
use axum::http::request::Parts;
use chrono::Utc;
use dialer::{BoxStream, ClientIdentity, Connect, DialError, TlsSetup, Verify};
use pki::identity::Identity;
use pki::keys::PrivateKey;
use pki::tls::TrustedAuthorities;
use pki::x509::Certificate;
use tokio::time::timeout;
use wire::client::{ApiChannel, api_channel};
use wire::error::{Error, ErrorKind};
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::WebSessionSpecV2;

use super::session::{SESSION_COOKIE, decode_cookie};
use super::{ClientAddress, Web, WebError, WebResult, cookie};
use crate::listen::Place;
use crate::tls::tls_certificates;
use crate::transport::TransportPeer;

/// How long an Auth Service may take for an answer; a search reads many days.
const CALL: Duration = Duration::from_secs(30);

/// Somebody who is logged in.
pub(super) struct WebUser {
    /// Their name.
    pub name: String,
    web: Web,
    identity: ClientIdentity,
    peer: TransportPeer,
}

impl FromRequestParts<Web> for WebUser {
    type Rejection = WebError;

    /// Takes the cookie and the bearer token, which no page of somebody else can send together.
    async fn from_request_parts(parts: &mut Parts, web: &Web) -> WebResult<Self> {
        let client = parts.extensions.get::<ClientAddress>().map(|client| client.0);
        let client = client.ok_or_else(|| WebError::new(ErrorKind::Other, "the client's address is not known"))?;
        let counted = parts.extensions.get::<Place>().map_or(client.ip(), |place| place.counted);
        Self::of(web, &parts.headers, (client, counted)).await
    }
}

impl WebUser {
    async fn of(web: &Web, headers: &HeaderMap, (client, counted): (SocketAddr, IpAddr)) -> WebResult<Self> {
        let denied = |text: &str| WebError::new(ErrorKind::AccessDenied, text);
        let cookie = cookie(headers, SESSION_COOKIE).and_then(decode_cookie);
        let (user, id) = cookie.ok_or_else(|| denied("missing session cookie"))?;
        let found = web.upstream.web_session(&user, &id).await.map_err(|error| match error.kind {
            ErrorKind::ConnectionProblem => WebError(error),
            _ => denied("need auth"),
        })?;
        let session = found.spec.ok_or_else(|| denied("need auth"))?;
        check_bearer(headers, &session)?;
        let unusable = |what: &str| WebError::new(ErrorKind::Other, format!("the session's {what} cannot be read"));
        let certificate = Certificate::from_pem(&String::from_utf8_lossy(&session.tls_cert));
        let certificate = certificate.map_err(|_| unusable("certificate"))?;
        let key = PrivateKey::from_pem(&String::from_utf8_lossy(&session.tls_priv)).map_err(|_| unusable("key"))?;
        let identity = Identity::from_certificate(&certificate).map_err(|_| unusable("certificate"))?;
        let server = web.settings.web_socket().unwrap_or(client);
        let peer = TransportPeer { counted, ..TransportPeer::new(Arc::new(identity), client, server) };
        web.gate.admit(&peer)?;
        let identity = ClientIdentity { certificate, key };
        Ok(Self { name: session.user, web: web.clone(), identity, peer })
    }

    /// Asks the Auth Service of a cluster, which sees this user.
    pub(super) async fn ask<T, F>(
        &self,
        cluster: &str,
        call: impl FnOnce(AuthServiceClient<ApiChannel>) -> F,
    ) -> WebResult<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let late = || Error::connection_problem(format!("waited 30 s for the auth service of {cluster}"));
        let answer = timeout(CALL, call(self.auth(cluster))).await.map_err(|_| WebError(late()))?;
        Ok(answer?.into_inner())
    }

    fn auth(&self, cluster: &str) -> AuthServiceClient<ApiChannel> {
        let connect = AsUser {
            web: self.web.clone(),
            cluster: cluster.to_owned(),
            identity: self.identity.clone(),
            peer: self.peer.clone(),
        };
        let agent = format!("teleport-proxy/{}", wire::VERSION);
        AuthServiceClient::new(api_channel(dialer::channel(Arc::new(connect), Some(&agent))))
    }
}

/// Refuses unless the request carries the session's bearer token, and the token is still good.
fn check_bearer(headers: &HeaderMap, session: &WebSessionSpecV2) -> WebResult<()> {
    let denied = |text: &str| WebError::new(ErrorKind::AccessDenied, text);
    let sent = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let sent = sent.ok_or_else(|| denied("need auth"))?;
    let expected = session.bearer_token.as_bytes();
    if expected.is_empty() || !bool::from(subtle::ConstantTimeEq::ct_eq(sent.as_bytes(), expected)) {
        return Err(denied("bad bearer token"));
    }
    let over = |end: Option<&prost_types::Timestamp>| wire::time::moment(end).is_some_and(|end| end <= Utc::now());
    if over(session.bearer_token_expires.as_ref()) || over(session.expires.as_ref()) {
        return Err(denied("need auth"));
    }
    Ok(())
}

/// Connections to an Auth Service with a user's certificate.
struct AsUser {
    web: Web,
    cluster: String,
    identity: ClientIdentity,
    peer: TransportPeer,
}

#[async_trait]
impl Connect for AsUser {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let cluster = self.cluster.as_str();
        let authority = self.web.cache.authority("host", cluster);
        let authority = authority.ok_or_else(|| DialError::NoAuthority(cluster.to_owned()))?;
        let certificates = tls_certificates(&authority).map_err(|e| failed(cluster, e))?;
        let authorities = Arc::new(TrustedAuthorities::new(&certificates)?);
        let verify = Verify::Cluster { authorities, cluster: cluster.to_owned() };
        let name = pki::tls::server_name_of(cluster)?.to_str().into_owned();
        let setup = TlsSetup::new(&name, &[mux::alpn::H2], &verify, Some(&self.identity))?;
        let stream = self.web.dialer.dial_auth(&self.peer, cluster).await;
        let stream = stream.map_err(|status| failed(cluster, Error::from(status)))?;
        Ok(Box::new(setup.connect(&format!("the auth service of {cluster}"), Box::new(stream)).await?))
    }
}

fn failed(cluster: &str, error: Error) -> DialError {
    DialError::Connect {
        target: format!("the auth service of {cluster}"),
        source: std::io::Error::other(error.message),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn only_the_session_s_own_token_is_taken_and_only_while_it_is_good() {
        let session = |minutes| WebSessionSpecV2 {
            bearer_token: "right".into(),
            bearer_token_expires: Some(wire::time::timestamp(Utc::now() + TimeDelta::minutes(minutes))),
            ..Default::default()
        };
        let with = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert!(check_bearer(&with("Bearer right"), &session(5)).is_ok());
        for headers in [HeaderMap::new(), with("right"), with("Bearer "), with("Bearer wrong"), with("Basic right")] {
            assert!(check_bearer(&headers, &session(5)).is_err(), "{headers:?}");
        }
        assert!(check_bearer(&with("Bearer right"), &session(-1)).is_err());
        assert!(check_bearer(&with("Bearer "), &WebSessionSpecV2::default()).is_err());
    }
}
