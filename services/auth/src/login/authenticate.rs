//! Password and second factor together: what every local login goes through.

use std::{net::SocketAddr, sync::Arc};

use audit::codes;
use resources::Resource;
use wire::{
    error::{Error, ErrorKind, Result},
    events::{self, OneOf},
    types::{AuthPreferenceSpecV2, MfaDevice, UserV2},
};
use zeroize::Zeroizing;

use super::{SecondFactor, devices, for_strangers, invalid_credentials};
use crate::{Auth, store::kind};

/// How much of what strangers say stands in audit events, in characters.
const LONGEST_TOLD: usize = 256;

/// What a stranger claims and shows.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
    /// The one-time code; empty when none was given.
    pub otp: String,
    /// Whether a security key's answer was given.
    pub webauthn: bool,
}

/// With what program and from where somebody logs in.
#[derive(Clone, Debug, Default)]
pub struct LoginClient {
    /// What the program says it is.
    pub user_agent: String,
    /// The address it connects from.
    pub remote_addr: String,
}

impl LoginClient {
    /// The address without port; empty when unknown.
    pub fn ip(&self) -> String {
        match self.remote_addr.parse::<SocketAddr>() {
            Ok(addr) => addr.ip().to_canonical().to_string(),
            Err(_) => self.remote_addr.parse::<std::net::IpAddr>().map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }
}

/// A user whose credentials are right.
pub(crate) struct Authenticated {
    pub(crate) user: Arc<UserV2>,
    pub(crate) device: Option<MfaDevice>,
}

impl Auth {
    /// Checks credentials and records the login, successful or not.
    ///
    /// # Errors
    /// `AccessDenied` in words that do not tell what was wrong; the audit event has the reason.
    pub(crate) async fn authenticate_user(
        &self,
        credentials: &Credentials,
        client: &LoginClient,
    ) -> Result<Authenticated> {
        let result = self.authenticate_unlocked_user(credentials).await;
        self.0.metrics.login(result.is_ok());
        self.emit(login_event(credentials, client, &result)).await?;
        result.map_err(for_strangers)
    }

    async fn authenticate_unlocked_user(&self, credentials: &Credentials) -> Result<Authenticated> {
        let device = self.check_credentials(credentials).await?;
        let user = self.store().get::<kind::User>(&credentials.username).await?;
        self.check_user_locks(&user, device.as_ref().map(|d| d.id.as_str()))?;
        Ok(Authenticated { user, device })
    }

    /// Checks password and second factor; the answer is the device that was used.
    ///
    /// # Errors
    /// `BadParameter` for wrong guesses; `AccessDenied` while the name is locked, when the second factor is missing,
    /// or when there are no local logins.
    pub(crate) async fn check_credentials(&self, credentials: &Credentials) -> Result<Option<MfaDevice>> {
        let preference = self.auth_preference()?;
        let Some(spec) = &preference.spec else { return Err(Error::other("authentication settings are empty")) };
        check_form(spec, credentials)?;
        let user = &credentials.username;
        self.with_lockout(user, self.check_guess(SecondFactor::of(spec), credentials)).await
    }

    async fn check_guess(&self, factor: SecondFactor, credentials: &Credentials) -> Result<Option<MfaDevice>> {
        let user = &credentials.username;
        let wrong = || Error::bad_parameter("invalid username or password");
        if !self.password_fits(user, &credentials.password).await? {
            return Err(wrong());
        }
        let known = self.store().get::<kind::User>(user).await.map_err(|_| wrong())?;
        if !is_local(&known) {
            return Err(wrong());
        }
        match factor {
            SecondFactor::Off => Ok(None),
            SecondFactor::Optional if credentials.otp.is_empty() => match self.mfa_devices(user).await?.as_slice() {
                [] => Ok(None),
                _ => Err(Error::bad_parameter("missing second factor")),
            },
            _ => self.check_totp(user, &credentials.otp).await.map(Some).map_err(|e| match e.kind {
                ErrorKind::AccessDenied => Error::bad_parameter(e.message),
                _ => e,
            }),
        }
    }

    /// Checks only a password, as the first step of a login that asks for the second factor later.
    ///
    /// # Errors
    /// As [`check_credentials`](Self::check_credentials).
    pub(crate) async fn check_password(&self, user: &str, password: &[u8]) -> Result<()> {
        self.with_lockout_halfway(user, async {
            let fits = self.password_fits(user, password).await?;
            let local = self.store().get::<kind::User>(user).await.is_ok_and(|user| is_local(&user));
            if fits && local { Ok(()) } else { Err(Error::bad_parameter("invalid username or password")) }
        })
        .await
    }
}

/// Refuses what can be refused whoever is asking.
fn check_form(spec: &AuthPreferenceSpecV2, credentials: &Credentials) -> Result<()> {
    if spec.allow_local_auth.as_ref().is_some_and(|allowed| !allowed.value) {
        return Err(Error::access_denied("local auth disabled"));
    }
    if credentials.webauthn {
        return Err(super::webauthn_missing());
    }
    if credentials.username.is_empty() {
        return Err(invalid_credentials());
    }
    let factor = SecondFactor::of(spec);
    let has_factor = !credentials.otp.is_empty() && factor.allows_totp();
    if factor.is_enforced() && !has_factor {
        return Err(Error::access_denied("missing second factor authentication"));
    }
    Ok(())
}

/// Whether a user is kept here, and not by an identity provider.
pub(crate) fn is_local(user: &UserV2) -> bool {
    let created_by = user.spec.as_ref().and_then(|spec| spec.created_by.as_ref());
    created_by.is_none_or(|by| by.connector.as_ref().is_none_or(|c| c.r#type.is_empty() || c.r#type == "local"))
}

/// What a stranger says, cut to what an audit event can hold.
fn told(text: &str) -> String {
    text.chars().take(LONGEST_TOLD).collect()
}

fn login_event(credentials: &Credentials, client: &LoginClient, result: &Result<Authenticated>) -> OneOf {
    let (code, device, status) = match result {
        Ok(done) => {
            (codes::USER_LOGIN, done.device.as_ref(), events::Status { success: true, ..events::Status::default() })
        }
        Err(e) => {
            let status = events::Status { success: false, error: e.message.clone(), user_message: e.message.clone() };
            (codes::USER_LOGIN_FAILURE, None, status)
        }
    };
    let user = result.as_ref().map_or(credentials.username.as_str(), |done| done.user.name());
    let (user, user_agent, remote_addr) = (told(user), told(&client.user_agent), told(&client.remote_addr));
    code.event(events::UserLogin {
        user: Some(events::UserMetadata {
            user,
            user_kind: events::UserKind::Human.into(),
            ..events::UserMetadata::default()
        }),
        status: Some(status),
        method: "local".to_owned(),
        mfa_device: device.map(devices::metadata_of),
        client: Some(events::ClientMetadata { user_agent }),
        connection: Some(events::ConnectionMetadata { remote_addr, ..events::ConnectionMetadata::default() }),
        ..events::UserLogin::default()
    })
}
