//! Challenges that ask for a second factor.

use audit::codes;
use wire::{
    error::{Error, ErrorKind, Result},
    events::{self, OneOf},
    proto::{self, MfaRequired, create_authenticate_challenge_request::Request},
    types::mfa_device::Device,
};

pub use wire::mfa::ChallengeScope;

use super::{SecondFactor, for_strangers};
use crate::{Auth, Caller};

impl Auth {
    /// Asks for a second factor: of the calling user, or of a user who has just given a password.
    ///
    /// `mfa_required` is the answer to the check that came with the request; without one it is `None`.
    ///
    /// # Errors
    /// `BadParameter` for callers that are no users; `AccessDenied` for wrong passwords.
    pub async fn create_authenticate_challenge(
        &self,
        caller: &Caller,
        request: proto::CreateAuthenticateChallengeRequest,
        mfa_required: Option<bool>,
    ) -> Result<proto::MfaAuthenticateChallenge> {
        if mfa_required == Some(false) {
            return Ok(proto::MfaAuthenticateChallenge { mfa_required: MfaRequired::No.into(), ..Default::default() });
        }
        let asked = request.challenge_extensions.unwrap_or_default();
        let asked_scope = ChallengeScope::try_from(asked.scope)
            .map_err(|_| Error::bad_parameter(format!("unknown challenge scope {}", asked.scope)))?;
        let (user, scope) = match request.request {
            Some(Request::UserCredentials(given)) => {
                let scope = fixed_scope(ChallengeScope::Login, asked_scope)?;
                self.check_password(&given.username, &given.password).await.map_err(for_strangers)?;
                (given.username, scope)
            }
            None | Some(Request::ContextUser(_)) => {
                let user = caller
                    .local_user()
                    .ok_or_else(|| Error::bad_parameter("only users of this cluster have second factors"))?;
                (user.to_owned(), asked_scope)
            }
            Some(Request::Passwordless(_)) => {
                return Err(Error::access_denied("passwordless disallowed by cluster settings"));
            }
            Some(Request::RecoveryStartTokenId(_)) => {
                return Err(Error::not_implemented("account recovery is not supported by this version"));
            }
        };
        let mut challenge = self.challenge_for(&user).await?;
        if mfa_required.is_some() {
            challenge.mfa_required = MfaRequired::Yes.into();
        }
        self.emit(created_event(caller, &user, scope)).await?;
        Ok(challenge)
    }

    async fn challenge_for(&self, user: &str) -> Result<proto::MfaAuthenticateChallenge> {
        let preference = self.auth_preference()?;
        let factor = preference.spec.as_ref().map_or(SecondFactor::Otp, SecondFactor::of);
        let devices = self.mfa_devices(user).await.map_err(hide)?;
        let has_totp = devices.iter().any(|d| matches!(d.device, Some(Device::Totp(_))));
        let totp = (has_totp && factor.allows_totp()).then_some(proto::TotpChallenge {});
        Ok(proto::MfaAuthenticateChallenge { totp, ..Default::default() })
    }
}

fn fixed_scope(fixed: ChallengeScope, asked: ChallengeScope) -> Result<ChallengeScope> {
    if asked == ChallengeScope::Unspecified || asked == fixed {
        return Ok(fixed);
    }
    let (fixed, asked) = (fixed.as_str_name(), asked.as_str_name());
    Err(Error::bad_parameter(format!("invalid scope {asked}, only {fixed} fits this kind of request")))
}

fn hide(error: Error) -> Error {
    match error.kind {
        ErrorKind::ConnectionProblem => error,
        _ => Error::access_denied("unable to create MFA challenges"),
    }
}

fn created_event(caller: &Caller, user: &str, scope: ChallengeScope) -> OneOf {
    codes::MFA_CHALLENGE_CREATE.event(events::CreateMfaAuthChallenge {
        user: Some(events::UserMetadata { user: user.to_owned(), ..caller.user_metadata() }),
        challenge_scope: scope.as_str_name().to_owned(),
        ..Default::default()
    })
}
