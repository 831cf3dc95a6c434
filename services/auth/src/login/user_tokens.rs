//! Invitations and password resets, and what happens when they are accepted.

use std::{sync::Arc, time::Duration};

use audit::codes;
use backend::{Condition, ConditionalAction, MAX_ATOMIC_ACTIONS};
use chrono::TimeDelta;
use resources::{Resource, places};
use wire::{
    duration,
    error::{Error, Result},
    events::{self, OneOf},
    proto::{self, mfa_register_response},
    time,
    types::{self, MfaDevice, UserTokenSecretsV3, UserTokenV3, UserV2},
};

use super::{ChallengeScope, SecondFactor, authenticate, devices, totp};
use crate::{
    Auth, Caller, random,
    store::{self, kind},
};

/// What a token is for, as its sub-kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Invite,
    Password,
}

/// How long somebody has to enter the first code of a new device.
const DEVICE_TTL: TimeDelta = TimeDelta::minutes(5);

/// The sub-kind of tokens that hold the secret of a device somebody adds with `tsh`.
const PRIVILEGE_OTP: &str = "privilege_otp";

impl Purpose {
    fn of(text: &str) -> Option<Self> {
        match text {
            "invite" => Some(Self::Invite),
            "password" => Some(Self::Password),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Password => "password",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Password => "reset",
        }
    }

    fn default_ttl(self) -> Duration {
        match self {
            Self::Invite => Duration::from_secs(3600),
            Self::Password => Duration::from_secs(8 * 3600),
        }
    }

    fn max_ttl(self) -> Duration {
        match self {
            Self::Invite => Duration::from_secs(48 * 3600),
            Self::Password => Duration::from_secs(24 * 3600),
        }
    }

    fn ttl(self, asked: Duration) -> Result<Duration> {
        if asked.is_zero() {
            return Ok(self.default_ttl());
        }
        if asked > self.max_ttl() {
            let text = |d: Duration| duration::format(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
            return Err(Error::bad_parameter(format!(
                "a {} token cannot live for {}, at most for {}",
                self.text(),
                text(asked),
                text(self.max_ttl())
            )));
        }
        Ok(asked)
    }
}

impl Auth {
    /// Refuses a kind and a lifetime of token that [`create_reset_password_token`](Self::create_reset_password_token)
    /// would refuse: to be asked before a user is made for it.
    ///
    /// # Errors
    /// `BadParameter`.
    pub fn check_user_token(&self, token_type: &str, ttl: Duration) -> Result<()> {
        Purpose::of(token_type).ok_or_else(|| unknown_type(token_type))?.ttl(ttl).map(drop)
    }

    /// Makes the link with which a user sets a password and a second factor. Those there were, and earlier links, are
    /// gone; a lockout is lifted. `ttl` zero is the default of the type.
    ///
    /// # Errors
    /// `NotFound` for unknown users; `BadParameter` for other types than `invite` and `password`, for lifetimes that
    /// are too long, and for users of identity providers.
    pub async fn create_reset_password_token(
        &self,
        caller: &Caller,
        name: &str,
        token_type: &str,
        ttl: Duration,
    ) -> Result<UserTokenV3> {
        let purpose = Purpose::of(token_type).ok_or_else(|| unknown_type(token_type))?;
        let ttl = purpose.ttl(ttl)?;
        self.lift_lockout(name).await?;
        let user = self.store().get::<kind::User>(name).await?;
        if !authenticate::is_local(&user) {
            return Err(Error::bad_parameter(
                "only local users may be reset: this one comes from an identity provider",
            ));
        }
        let now = self.now();
        let id = random::token::<16>()?;
        let mut token = UserTokenV3 {
            sub_kind: purpose.text().to_owned(),
            metadata: Some(types::Metadata { name: id.clone(), ..types::Metadata::default() }),
            spec: Some(types::UserTokenSpecV3 {
                user: name.to_owned(),
                url: format!("https://{}/web/{}/{id}", self.proxy_web_addr().await?, purpose.path()),
                created: Some(time::timestamp(now)),
                ..types::UserTokenSpecV3::default()
            }),
            ..UserTokenV3::default()
        };
        token.set_defaults();
        token.set_expires(Some(now + ttl));
        let mut writes = self.forget_credentials(&user).await?;
        writes.push(store::put::<kind::UserToken>(&token, Condition::NotExists)?);
        self.store().atomic(writes).await?;
        self.emit(token_event(caller, name, ttl, &token)).await?;
        Ok(token)
    }

    /// An invitation or reset that can still be accepted.
    ///
    /// # Errors
    /// `AccessDenied` for everything else.
    pub async fn get_reset_password_token(&self, id: &str) -> Result<UserTokenV3> {
        let token = self.store().get::<kind::UserToken>(id).await.map_err(|_| bad_token())?;
        if Purpose::of(&token.sub_kind).is_none() || token.expires().is_none_or(|at| at <= self.now()) {
            return Err(bad_token());
        }
        Ok(Arc::unwrap_or_clone(token))
    }

    /// Starts the registration of a device: with an invitation or reset, or by a user who proves an existing device.
    ///
    /// # Errors
    /// `AccessDenied` for bad tokens and missing proofs; `NotImplemented` for security keys.
    pub async fn create_register_challenge(
        &self,
        caller: &Caller,
        request: proto::CreateRegisterChallengeRequest,
    ) -> Result<proto::MfaRegisterChallenge> {
        if request.device_type() == proto::DeviceType::Webauthn {
            return Err(super::webauthn_missing());
        }
        if request.device_type() != proto::DeviceType::Totp {
            return Err(Error::bad_parameter("unknown device type: expected TOTP"));
        }
        let preference = self.auth_preference()?;
        if !preference.spec.as_ref().is_some_and(|spec| SecondFactor::of(spec).allows_totp()) {
            return Err(Error::bad_parameter("second factor TOTP is not allowed by the cluster"));
        }
        let token = if request.token_id.is_empty() {
            self.start_adding_device(caller, request.existing_mfa_response).await?
        } else {
            self.get_reset_password_token(&request.token_id).await?
        };
        let challenge = self.new_totp_challenge(&token).await?;
        Ok(proto::MfaRegisterChallenge { request: Some(proto::mfa_register_challenge::Request::Totp(challenge)) })
    }

    /// Accepts an invitation or reset: sets the password and the device together, or neither.
    ///
    /// # Errors
    /// `AccessDenied` for bad tokens and wrong codes, `BadParameter` for bad passwords and missing devices.
    pub async fn change_user_authentication(
        &self,
        caller: &Caller,
        request: proto::ChangeUserAuthenticationRequest,
    ) -> Result<proto::ChangeUserAuthenticationResponse> {
        let token = self.get_reset_password_token(&request.token_id).await?;
        let name = token.spec.as_ref().map(|spec| spec.user.clone()).unwrap_or_default();
        let user = self.store().get::<kind::User>(&name).await.map_err(|_| bad_token())?;
        let device = self.new_device(&name, &request).await?;
        let mut writes = self.password_writes(&user, &request.new_password).await?;
        writes.extend(self.spend_user_token(&request.token_id)?);
        let device = device.map(|(device, more)| {
            writes.extend(more);
            device
        });
        self.store().atomic(writes).await.map_err(|e| match e.kind {
            wire::error::ErrorKind::CompareFailed => bad_token(),
            _ => e,
        })?;
        self.emit_changed(caller, &name, device.as_ref()).await?;
        let session = self.new_web_session(&name, &request.login_ip).await?;
        Ok(proto::ChangeUserAuthenticationResponse { web_session: Some(session), ..Default::default() })
    }

    async fn new_device(
        &self,
        user: &str,
        request: &proto::ChangeUserAuthenticationRequest,
    ) -> Result<Option<(MfaDevice, Vec<ConditionalAction>)>> {
        let preference = self.auth_preference()?;
        let factor = preference.spec.as_ref().map_or(SecondFactor::Otp, SecondFactor::of);
        let response = request.new_mfa_register_response.as_ref().and_then(|r| r.response.as_ref());
        match response {
            Some(mfa_register_response::Response::Webauthn(_)) => Err(super::webauthn_missing()),
            Some(mfa_register_response::Response::Totp(totp)) if factor.allows_totp() => {
                self.register_totp(&request.token_id, user, &request.new_device_name, &totp.code).await.map(Some)
            }
            Some(mfa_register_response::Response::Totp(_)) => {
                Err(Error::bad_parameter("second factor TOTP is not allowed by the cluster"))
            }
            None if factor.is_enforced() => {
                Err(Error::bad_parameter("no second factor sent during user authentication"))
            }
            None => Ok(None),
        }
    }

    async fn emit_changed(&self, caller: &Caller, user: &str, device: Option<&MfaDevice>) -> Result<()> {
        let who = events::UserMetadata {
            user: user.to_owned(),
            user_kind: events::UserKind::Human.into(),
            ..events::UserMetadata::default()
        };
        self.emit(codes::USER_PASSWORD_CHANGE.event(events::UserPasswordChange {
            user: Some(who),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await?;
        match device {
            Some(device) => self.emit(devices::added_event(caller, user, device)).await,
            None => Ok(()),
        }
    }

    async fn new_totp_challenge(&self, token: &UserTokenV3) -> Result<proto::TotpRegisterChallenge> {
        let secret = totp::NewSecret::generate()?;
        let mut secrets = UserTokenSecretsV3 {
            metadata: Some(types::Metadata { name: token.name().to_owned(), ..types::Metadata::default() }),
            spec: Some(types::UserTokenSecretsSpecV3 {
                otp_key: secret.base32.clone(),
                created: Some(time::timestamp(self.now())),
                ..types::UserTokenSecretsSpecV3::default()
            }),
            ..UserTokenSecretsV3::default()
        };
        secrets.set_defaults();
        secrets.set_expires(token.expires());
        self.store().upsert::<kind::UserTokenSecrets>(secrets).await?;
        let user = token.spec.as_ref().map_or("", |spec| &spec.user);
        let account = format!("{user}@{}", self.proxy_host().await?);
        secret.challenge(self.cluster_name(), &account, token.name().to_owned())
    }

    /// A token for a device that a user of this cluster adds; an existing device has to be proven first.
    async fn start_adding_device(
        &self,
        caller: &Caller,
        existing: Option<proto::MfaAuthenticateResponse>,
    ) -> Result<UserTokenV3> {
        let user = caller.local_user().ok_or_else(|| Error::bad_parameter("only users have devices"))?.to_owned();
        match existing {
            Some(answer) => {
                self.verify_mfa_response(caller, &user, answer, ChallengeScope::ManageDevices).await?;
            }
            None if self.mfa_devices(&user).await?.is_empty() => {}
            None => return Err(Error::bad_parameter("second factor authentication required")),
        }
        let mut token = UserTokenV3 {
            sub_kind: PRIVILEGE_OTP.to_owned(),
            metadata: Some(types::Metadata { name: random::token::<16>()?, ..types::Metadata::default() }),
            spec: Some(types::UserTokenSpecV3 {
                user,
                created: Some(time::timestamp(self.now())),
                ..types::UserTokenSpecV3::default()
            }),
            ..UserTokenV3::default()
        };
        token.set_defaults();
        token.set_expires(Some(self.now() + DEVICE_TTL));
        let token = self.store().create::<kind::UserToken>(token).await.map(Arc::unwrap_or_clone)?;
        let user = token.spec.as_ref().map(|spec| spec.user.clone()).unwrap_or_default();
        // The token itself is a secret: the event names its owner.
        let event = events::UserTokenCreate {
            resource: Some(events::ResourceMetadata {
                name: user,
                expires: token.metadata.as_ref().and_then(|metadata| metadata.expires),
                ttl: duration::text(DEVICE_TTL.to_std().unwrap_or_default()),
                ..events::ResourceMetadata::default()
            }),
            user: Some(caller.user_metadata()),
            ..events::UserTokenCreate::default()
        };
        self.emit(codes::PRIVILEGE_TOKEN_CREATE.event(event)).await?;
        Ok(token)
    }

    /// The token under which the calling user adds a device.
    pub(crate) async fn privilege_token(&self, caller: &Caller, id: &str) -> Result<Arc<UserTokenV3>> {
        let token = self.store().get::<kind::UserToken>(id).await.map_err(|_| bad_token())?;
        let owner = token.spec.as_ref().map_or("", |spec| spec.user.as_str());
        let expired = token.expires().is_none_or(|at| at <= self.now());
        if token.sub_kind != PRIVILEGE_OTP || caller.local_user() != Some(owner) || expired {
            return Err(bad_token());
        }
        Ok(token)
    }

    /// The writes that use up a token: it must still be there.
    pub(crate) fn spend_user_token(&self, id: &str) -> Result<Vec<ConditionalAction>> {
        Ok(vec![
            ConditionalAction::delete(store::key_at(&places::user_token(id))?, Condition::Exists),
            ConditionalAction::delete(store::key_at(&places::user_token_secrets(id))?, Condition::Whatever),
        ])
    }

    /// The writes that take everything from a user that opens the account.
    async fn forget_credentials(&self, user: &UserV2) -> Result<Vec<ConditionalAction>> {
        let name = user.name();
        let mut without = user.clone();
        without.status.get_or_insert_default().password_state = types::PasswordState::Unset.into();
        if let Some(spec) = &mut without.spec {
            spec.status = None;
        }
        let delete =
            |place| -> Result<_> { Ok(ConditionalAction::delete(store::key_at(&place)?, Condition::Whatever)) };
        let mut writes = vec![
            store::put::<kind::User>(&without, Condition::Revision(user.revision().to_owned()))?,
            delete(places::password_hash(name))?,
            delete(places::used_totp(name))?,
        ];
        for device in self.mfa_devices(name).await? {
            writes.push(delete(places::mfa_device(name, &device.id))?);
        }
        for token in self.store().list::<kind::UserToken>().await? {
            if token.spec.as_ref().is_some_and(|spec| spec.user == name) && writes.len() + 3 < MAX_ATOMIC_ACTIONS {
                writes.push(delete(places::user_token(token.name()))?);
                writes.push(delete(places::user_token_secrets(token.name()))?);
            }
        }
        Ok(writes)
    }
}

fn bad_token() -> Error {
    Error::access_denied("bad or expired token")
}

fn unknown_type(token_type: &str) -> Error {
    Error::bad_parameter(format!(
        "invalid reset password token request type {token_type:?}: expected invite or password"
    ))
}

fn token_event(caller: &Caller, user: &str, ttl: Duration, token: &UserTokenV3) -> OneOf {
    codes::RESET_PASSWORD_TOKEN_CREATE.event(events::UserTokenCreate {
        resource: Some(events::ResourceMetadata {
            name: user.to_owned(),
            expires: token.metadata.as_ref().and_then(|m| m.expires),
            ttl: duration::format(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)),
            ..events::ResourceMetadata::default()
        }),
        user: Some(caller.user_metadata()),
        ..Default::default()
    })
}
