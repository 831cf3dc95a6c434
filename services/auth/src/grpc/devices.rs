//! Passwords, second factors and the tokens with which people set them up.
//!
//! The login code of the core knows who may act for whom: a person for himself, the holder of an unexpired token for
//! the token's user. Nothing here trusts a user name of a message.

use std::time::Duration;

use wire::error::{Error, Result};
use wire::proto::{
    AddMfaDeviceSyncRequest, AddMfaDeviceSyncResponse, ChangePasswordRequest, ChangeUserAuthenticationRequest,
    ChangeUserAuthenticationResponse, CreateRegisterChallengeRequest, CreateResetPasswordTokenRequest,
    DeleteMfaDeviceSyncRequest, GetMfaDevicesRequest, GetMfaDevicesResponse, GetResetPasswordTokenRequest,
    MfaRegisterChallenge,
};
use wire::types::UserTokenV3;

use super::{Api, named};
use crate::authz::AuthContext;

/// Lifetime of an invitation when the request does not say.
const INVITE_TTL: Duration = Duration::from_secs(3600);
/// Lifetime of a password reset when the request does not say.
const RESET_TTL: Duration = Duration::from_secs(8 * 3600);

pub async fn create_reset_password_token(
    api: &Api,
    context: &AuthContext,
    message: CreateResetPasswordTokenRequest,
) -> Result<UserTokenV3> {
    let name = named(&message.name, "Name")?;
    let default = if message.r#type == "invite" { INVITE_TTL } else { RESET_TTL };
    let ttl = match u64::try_from(message.ttl) {
        Ok(0) => default,
        Ok(nanos) => Duration::from_nanos(nanos),
        Err(_) => return Err(Error::bad_parameter("TTL is negative")),
    };
    api.auth().create_reset_password_token(context.caller(), name, &message.r#type, ttl).await
}

pub async fn get_reset_password_token(
    api: &Api,
    _: &AuthContext,
    message: GetResetPasswordTokenRequest,
) -> Result<UserTokenV3> {
    api.auth().get_reset_password_token(named(&message.token_id, "TokenID")?).await
}

pub async fn change_password(api: &Api, context: &AuthContext, message: ChangePasswordRequest) -> Result<()> {
    if !context.is_user(&message.user) {
        return Err(Error::access_denied("access denied: users change their own passwords only"));
    }
    api.auth().change_password(context.caller(), message).await
}

pub async fn change_user_authentication(
    api: &Api,
    context: &AuthContext,
    message: ChangeUserAuthenticationRequest,
) -> Result<ChangeUserAuthenticationResponse> {
    named(&message.token_id, "TokenID")?;
    api.auth().change_user_authentication(context.caller(), message).await
}

pub async fn create_register_challenge(
    api: &Api,
    context: &AuthContext,
    message: CreateRegisterChallengeRequest,
) -> Result<MfaRegisterChallenge> {
    require_person_or_token(context, &message.token_id)?;
    api.auth().create_register_challenge(context.caller(), message).await
}

pub async fn add_mfa_device_sync(
    api: &Api,
    context: &AuthContext,
    message: AddMfaDeviceSyncRequest,
) -> Result<AddMfaDeviceSyncResponse> {
    require_person_or_token(context, &message.token_id)?;
    api.auth().add_mfa_device(context.caller(), message).await
}

pub async fn delete_mfa_device_sync(
    api: &Api,
    context: &AuthContext,
    message: DeleteMfaDeviceSyncRequest,
) -> Result<()> {
    require_person_or_token(context, &message.token_id)?;
    api.auth().delete_mfa_device(context.caller(), message).await
}

/// The caller's devices, or those of the user of a token; without their secrets.
pub async fn get_mfa_devices(
    api: &Api,
    context: &AuthContext,
    message: GetMfaDevicesRequest,
) -> Result<GetMfaDevicesResponse> {
    require_person_or_token(context, &message.token_id)?;
    let user = if message.token_id.is_empty() {
        context.username().to_owned()
    } else {
        api.auth().get_reset_password_token(&message.token_id).await?.spec.unwrap_or_default().user
    };
    let mut devices = api.auth().mfa_devices(&user).await?;
    for device in &mut devices {
        if let Some(wire::types::mfa_device::Device::Totp(totp)) = &mut device.device {
            totp.key.clear();
        }
    }
    Ok(GetMfaDevicesResponse { devices })
}

fn require_person_or_token(context: &AuthContext, token: &str) -> Result<()> {
    if token.is_empty() && !context.is_local_person() {
        return Err(Error::bad_parameter("only users have devices: log in as a user, or give a token"));
    }
    Ok(())
}
