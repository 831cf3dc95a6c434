//! How users prove who they are: passwords, one-time codes, invitations, challenges, and what they get for it.
//!
//! A stranger learns from neither text nor time whether a user exists: every way in compares against some password
//! hash, counts failures for any name, and answers failures with one of the same few texts.

mod authenticate;
mod challenge;
mod devices;
mod lockout;
mod password;
mod qr;
mod ssh;
#[cfg(test)]
mod tests;
mod totp;
mod user_tokens;
mod web;

use wire::{
    error::{Error, ErrorKind},
    types::AuthPreferenceSpecV2,
};

pub(crate) use authenticate::is_local;
pub use authenticate::{Credentials, LoginClient};
pub use challenge::ChallengeScope;
pub(crate) use lockout::Lockout;
pub(crate) use password::Hasher;
pub use ssh::{SshLogin, SshLoginResponse, TrustedCertificates};
pub use web::WebSessionRequest;

/// What anybody is told whose password or second factor is wrong, whoever they claim to be.
pub(crate) const INVALID_CREDENTIALS: &str = "invalid credentials";

/// The second factors a cluster asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecondFactor {
    /// None.
    Off,
    /// A one-time code.
    Otp,
    /// A security key.
    Webauthn,
    /// Either of the two.
    On,
    /// Either of the two, for users who have one.
    Optional,
}

impl SecondFactor {
    pub(crate) fn of(preference: &AuthPreferenceSpecV2) -> Self {
        match preference.second_factor.as_str() {
            "off" => Self::Off,
            "webauthn" | "u2f" => Self::Webauthn,
            "on" => Self::On,
            "optional" => Self::Optional,
            _ => Self::Otp,
        }
    }

    /// Whether nobody logs in with a password alone.
    pub(crate) fn is_enforced(self) -> bool {
        !matches!(self, Self::Off | Self::Optional)
    }

    pub(crate) fn allows_totp(self) -> bool {
        matches!(self, Self::Otp | Self::On | Self::Optional)
    }
}

/// The answer to wrong credentials.
pub(crate) fn invalid_credentials() -> Error {
    Error::access_denied(INVALID_CREDENTIALS)
}

/// What a login endpoint tells of a failure: wrong credentials look alike, the rest keeps its reason.
pub(crate) fn for_strangers(error: Error) -> Error {
    match error.kind {
        ErrorKind::NotFound | ErrorKind::BadParameter => invalid_credentials(),
        _ => error,
    }
}

fn webauthn_missing() -> Error {
    Error::not_implemented("security keys are not supported by this version of the Auth Service; use a one-time code")
}

/// The traits of a user, as certificates carry them.
pub(crate) fn traits_of(user: &wire::types::UserV2) -> pki::identity::Traits {
    let traits = user.spec.as_ref().and_then(|spec| spec.traits.as_ref());
    let values = traits.map(|traits| traits.values.clone()).unwrap_or_default();
    values.into_iter().map(|(name, list)| (name, list.values)).collect()
}
