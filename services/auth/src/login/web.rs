//! Sessions of the web interface: the keys stay here, the browser holds a session id and a bearer token.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use pki::{
    keys::PrivateKey,
    suite::{Purpose, algorithm_for},
    x509::Certificate,
};
use resources::Resource;
use wire::{
    error::{Error, Result},
    time,
    types::{Metadata, WebSessionSpecV2, WebSessionV2},
};

use super::{Credentials, LoginClient};
use crate::{Auth, PublicKeys, UserCertRequest, authority::crypto, random, store::kind};

/// How long a bearer token is good for; the browser renews it in time.
const BEARER_TTL: TimeDelta = TimeDelta::minutes(10);

/// How the private key of a session is protected: it never leaves this service and the proxy.
const KEY_POLICY: &str = "web_session";

/// A change of the session of a browser.
#[derive(Clone, Debug, Default)]
pub struct WebSessionRequest {
    /// The user.
    pub user: String,
    /// The session that is continued.
    pub previous_session: String,
    /// Whether roles and traits are read anew.
    pub reload_user: bool,
}

impl Auth {
    /// Logs a user in and makes a session.
    ///
    /// # Errors
    /// `AccessDenied` for wrong credentials, in words that do not tell what was wrong.
    pub async fn authenticate_web_user(&self, credentials: Credentials, client: LoginClient) -> Result<WebSessionV2> {
        let done = self.authenticate_user(&credentials, &client).await?;
        self.new_web_session(done.user.name(), &client.ip()).await
    }

    /// Makes a session for a user whose credentials were checked.
    pub(crate) async fn new_web_session(&self, user: &str, login_ip: &str) -> Result<WebSessionV2> {
        let now = self.now();
        self.make_session(user, login_ip, now, Duration::ZERO).await
    }

    /// Continues a session under a new id, with fresh certificates that live no longer than before.
    ///
    /// # Errors
    /// `NotFound` for sessions that are over; `AccessDenied` for those of others.
    pub async fn extend_web_session(&self, request: &WebSessionRequest) -> Result<WebSessionV2> {
        let previous = self.get_web_session(&request.user, &request.previous_session).await?;
        let spec = previous.spec.clone().unwrap_or_default();
        let now = self.now();
        let login_time = time::moment(spec.login_time.as_ref()).unwrap_or(now);
        let left = time::moment(spec.expires.as_ref())
            .and_then(|expires| (expires - now).to_std().ok())
            .filter(|left| !left.is_zero())
            .ok_or_else(|| Error::not_found("web_session not found"))?;
        let login_ip = Certificate::from_pem(&String::from_utf8_lossy(&spec.tls_cert))
            .and_then(|certificate| pki::identity::Identity::from_certificate(&certificate))
            .map(|identity| identity.login_ip)
            .unwrap_or_default();
        // Somebody who logs in anew gets what the roles allow now; a renewal only what was left.
        let left = if request.reload_user { Duration::ZERO } else { left };
        let session = self.make_session(&request.user, &login_ip, login_time, left).await?;
        self.store().delete::<kind::WebSession>(&request.previous_session).await?;
        Ok(session)
    }

    /// A session of a user.
    ///
    /// # Errors
    /// `NotFound`, also for sessions of others.
    pub async fn get_web_session(&self, user: &str, id: &str) -> Result<WebSessionV2> {
        let session = self.store().get::<kind::WebSession>(id).await?;
        if session.spec.as_ref().is_none_or(|spec| spec.user != user) {
            return Err(Error::not_found("web_session not found"));
        }
        Ok(Arc::unwrap_or_clone(session))
    }

    /// All sessions.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub async fn web_sessions(&self) -> Result<Vec<WebSessionV2>> {
        Ok(self.store().list::<kind::WebSession>().await?.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    /// Ends a session of a user.
    ///
    /// # Errors
    /// `NotFound`, also for sessions of others.
    pub async fn delete_web_session(&self, user: &str, id: &str) -> Result<()> {
        self.get_web_session(user, id).await?;
        self.store().delete::<kind::WebSession>(id).await
    }

    async fn make_session(
        &self,
        user: &str,
        login_ip: &str,
        login_time: DateTime<Utc>,
        ttl: Duration,
    ) -> Result<WebSessionV2> {
        let known = self.store().cached::<kind::User>(user)?;
        let rights = self.rights_at_login(&known).await?;
        let suite = self.signature_suite();
        let (ssh_key, tls_key) = tokio::task::spawn_blocking(move || {
            let ssh = PrivateKey::generate(algorithm_for(suite, Purpose::UserSsh))?;
            let tls = PrivateKey::generate(algorithm_for(suite, Purpose::UserTls))?;
            Ok::<_, pki::Error>((ssh, tls))
        })
        .await
        .map_err(|_| Error::other("making a key failed"))?
        .map_err(crypto)?;
        let certs = self
            .generate_user_certs(UserCertRequest {
                user: user.to_owned(),
                roles: rights.roles,
                traits: rights.traits,
                ends: rights.ends,
                ttl,
                keys: PublicKeys {
                    ssh: Some(ssh_key.public().to_ssh_line()),
                    tls: Some(tls_key.public().to_spki_pem()),
                },
                login_ip: login_ip.to_owned(),
                attested_policy: KEY_POLICY.to_owned(),
                ..UserCertRequest::default()
            })
            .await?;
        let certificate = Certificate::from_pem(&String::from_utf8_lossy(&certs.tls)).map_err(crypto)?;
        let expires = certificate.not_after();
        let bearer_expires = (self.now() + BEARER_TTL).min(expires);
        let mut session = WebSessionV2 {
            sub_kind: "web_session".to_owned(),
            metadata: Some(Metadata { name: random::token::<32>()?, ..Metadata::default() }),
            spec: Some(WebSessionSpecV2 {
                user: user.to_owned(),
                r#pub: certs.ssh,
                r#priv: ssh_key.to_pem().map_err(crypto)?.as_bytes().to_vec(),
                tls_cert: certs.tls,
                tls_priv: tls_key.to_pem().map_err(crypto)?.as_bytes().to_vec(),
                bearer_token: random::token::<32>()?,
                bearer_token_expires: Some(time::timestamp(bearer_expires)),
                expires: Some(time::timestamp(expires)),
                login_time: Some(time::timestamp(login_time)),
                idle_timeout: self.networking()?.spec.as_ref().map_or(0, |spec| spec.web_idle_timeout),
                ..WebSessionSpecV2::default()
            }),
            ..WebSessionV2::default()
        };
        session.set_defaults();
        session.set_expires(Some(expires));
        self.store().create::<kind::WebSession>(session).await.map(Arc::unwrap_or_clone)
    }
}
