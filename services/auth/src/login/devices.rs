//! The second factors of users.

use audit::codes;
use backend::{Condition, ConditionalAction};
use resources::{Place, places};
use wire::{
    error::{Error, Result},
    events::{self, OneOf},
    proto::{self, mfa_authenticate_response, mfa_register_response},
    time,
    types::{Metadata, MfaDevice, TotpDevice, mfa_device::Device},
};

use super::{ChallengeScope, SecondFactor, totp};
use crate::{
    Auth, Caller,
    store::{self, kind},
};

/// Longest name of a device, in characters.
const MAX_NAME: usize = 30;

/// How many devices one user can have.
const MAX_DEVICES: usize = 10;

impl Auth {
    /// The second factors of a user, secrets included; none for users who do not exist.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub async fn mfa_devices(&self, user: &str) -> Result<Vec<MfaDevice>> {
        let Ok(prefix) = store::key_at(&Place::new(places::USERS, [user, "mfa"])) else { return Ok(Vec::new()) };
        let items = self.store().backend().get_range(&prefix.children(), 0).await.map_err(|e| store::storage(&e))?;
        items.iter().map(|item| store::from_json("device", item)).collect()
    }

    pub(crate) async fn store_mfa_device(&self, user: &str, device: &MfaDevice) -> Result<()> {
        let write = device_write(user, device, Condition::Exists)?;
        self.store().atomic(vec![write]).await.map(drop)
    }

    /// Registers another device for the calling user, who proved an existing one when the challenge was made.
    ///
    /// # Errors
    /// `AccessDenied` for wrong codes and unknown challenges, `AlreadyExists` for names that are taken.
    pub async fn add_mfa_device(
        &self,
        caller: &Caller,
        request: proto::AddMfaDeviceSyncRequest,
    ) -> Result<proto::AddMfaDeviceSyncResponse> {
        let response = match request.new_mfa_response.and_then(|r| r.response) {
            Some(mfa_register_response::Response::Totp(totp)) => totp,
            Some(mfa_register_response::Response::Webauthn(_)) => return Err(super::webauthn_missing()),
            None => return Err(Error::bad_parameter("missing answer of the new device")),
        };
        let token_id = if request.token_id.is_empty() { &response.id } else { &request.token_id };
        let token = self.privilege_token(caller, token_id).await?;
        let user = token.spec.as_ref().map(|spec| spec.user.clone()).unwrap_or_default();
        let (device, mut writes) =
            self.register_totp(token_id, &user, &request.new_device_name, &response.code).await?;
        writes.extend(self.spend_user_token(token_id)?);
        self.store().atomic(writes).await?;
        self.emit(added_event(caller, &user, &device)).await?;
        Ok(proto::AddMfaDeviceSyncResponse { device: Some(device) })
    }

    /// Removes a device, by name or id, of the calling user, who proves one of the devices for it.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` when it is the last one and the cluster insists on a second factor.
    pub async fn delete_mfa_device(&self, caller: &Caller, request: proto::DeleteMfaDeviceSyncRequest) -> Result<()> {
        let user = if request.token_id.is_empty() {
            let user = caller.local_user().ok_or_else(|| Error::bad_parameter("only users have devices"))?.to_owned();
            let answer = request
                .existing_mfa_response
                .ok_or_else(|| Error::bad_parameter("second factor authentication required"))?;
            self.verify_mfa_response(caller, &user, answer, ChallengeScope::ManageDevices).await?;
            user
        } else {
            let token = self.privilege_token(caller, &request.token_id).await?;
            token.spec.as_ref().map(|spec| spec.user.clone()).unwrap_or_default()
        };
        let devices = self.mfa_devices(&user).await?;
        let wanted = &request.device_name;
        let Some(device) = devices.iter().find(|d| d.id == *wanted || name_of(d) == wanted) else {
            return Err(Error::not_found(format!("MFA device {wanted:?} does not exist")));
        };
        let preference = self.auth_preference()?;
        let enforced = preference.spec.as_ref().is_some_and(|spec| SecondFactor::of(spec).is_enforced());
        if enforced && devices.len() == 1 {
            return Err(Error::bad_parameter(
                "cannot delete the last MFA device for this user; add a replacement device first to avoid getting \
                 locked out",
            ));
        }
        let key = store::key_at(&places::mfa_device(&user, &device.id))?;
        self.store().atomic(vec![ConditionalAction::delete(key, Condition::Exists)]).await?;
        self.emit(codes::MFA_DELETE.event(events::MfaDeviceDelete {
            user: Some(caller.user_metadata()),
            device: Some(metadata_of(device)),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    /// A device made from the secret that waits under a token, with the writes that store it and use up the code.
    pub(crate) async fn register_totp(
        &self,
        token_id: &str,
        user: &str,
        name: &str,
        code: &str,
    ) -> Result<(MfaDevice, Vec<ConditionalAction>)> {
        let name = if name.is_empty() { "otp" } else { name };
        let devices = self.mfa_devices(user).await?;
        check_name(name, &devices)?;
        let secrets = self.store().get::<kind::UserTokenSecrets>(token_id).await.map_err(|_| {
            Error::access_denied("no registration was started with this token, or it took too long: start again")
        })?;
        let key = secrets.spec.as_ref().map(|spec| spec.otp_key.clone()).unwrap_or_default();
        let now = self.now();
        let step = totp::step_of(&key, code, u64::try_from(now.timestamp()).unwrap_or(0))?
            .ok_or_else(|| Error::access_denied("invalid totp token"))?;
        let device = MfaDevice {
            kind: "mfa_device".to_owned(),
            version: "v1".to_owned(),
            metadata: Some(Metadata {
                name: name.to_owned(),
                namespace: resources::NAMESPACE.into(),
                ..Metadata::default()
            }),
            id: uuid::Uuid::new_v4().to_string(),
            added_at: Some(time::timestamp(now)),
            last_used: Some(time::timestamp(now)),
            device: Some(Device::Totp(TotpDevice { key })),
            ..MfaDevice::default()
        };
        let used = self.totp_step_write(user, &device.id, step).await?;
        Ok((device.clone(), vec![device_write(user, &device, Condition::NotExists)?, used]))
    }

    /// The device that an answer to a challenge proves.
    ///
    /// # Errors
    /// `AccessDenied` for wrong, used and missing answers, and while the user is locked.
    pub async fn verify_mfa_response(
        &self,
        caller: &Caller,
        user: &str,
        response: proto::MfaAuthenticateResponse,
        scope: ChallengeScope,
    ) -> Result<MfaDevice> {
        let result = match response.response {
            Some(mfa_authenticate_response::Response::Totp(totp)) => {
                self.with_lockout(user, self.check_totp(user, &totp.code)).await
            }
            Some(mfa_authenticate_response::Response::Webauthn(_)) => Err(super::webauthn_missing()),
            None => Err(Error::access_denied("missing answer of a second factor")),
        };
        self.emit(validated_event(caller, user, scope, &result)).await?;
        result
    }
}

/// The name users gave a device.
pub(crate) fn name_of(device: &MfaDevice) -> &str {
    device.metadata.as_ref().map_or("", |m| &m.name)
}

/// The part of an audit event that names a device.
pub(crate) fn metadata_of(device: &MfaDevice) -> events::MfaDeviceMetadata {
    let device_type = match device.device {
        Some(Device::Totp(_)) => "TOTP",
        Some(Device::U2f(_)) => "U2F",
        Some(Device::Webauthn(_)) => "WebAuthn",
        None => "",
    };
    events::MfaDeviceMetadata {
        device_name: name_of(device).to_owned(),
        device_id: device.id.clone(),
        device_type: device_type.to_owned(),
    }
}

pub(crate) fn added_event(caller: &Caller, user: &str, device: &MfaDevice) -> OneOf {
    let who = events::UserMetadata { user: user.to_owned(), ..caller.user_metadata() };
    codes::MFA_ADD.event(events::MfaDeviceAdd {
        user: Some(who),
        device: Some(metadata_of(device)),
        connection: Some(caller.connection_metadata()),
        ..Default::default()
    })
}

fn validated_event(caller: &Caller, user: &str, scope: ChallengeScope, result: &Result<MfaDevice>) -> OneOf {
    let code = if result.is_ok() { codes::MFA_CHALLENGE_VALIDATE } else { codes::MFA_CHALLENGE_VALIDATE_FAILURE };
    let error = result.as_ref().err().map(|e| e.message.clone()).unwrap_or_default();
    code.event(events::ValidateMfaAuthResponse {
        user: Some(events::UserMetadata { user: user.to_owned(), ..caller.user_metadata() }),
        status: Some(events::Status { success: result.is_ok(), error: error.clone(), user_message: error }),
        mfa_device: result.as_ref().ok().map(metadata_of),
        challenge_scope: scope.as_str_name().to_owned(),
        ..Default::default()
    })
}

fn check_name(name: &str, devices: &[MfaDevice]) -> Result<()> {
    if name.chars().count() > MAX_NAME {
        return Err(Error::bad_parameter(format!("device name cannot be longer than {MAX_NAME} characters")));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::bad_parameter("device name contains control characters"));
    }
    if devices.len() >= MAX_DEVICES {
        return Err(Error::limit_exceeded(format!("a user cannot have more than {MAX_DEVICES} devices")));
    }
    if devices.iter().any(|d| name_of(d) == name) {
        return Err(Error::already_exists(format!("MFA device with name {name:?} already exists")));
    }
    Ok(())
}

fn device_write(user: &str, device: &MfaDevice, condition: Condition) -> Result<ConditionalAction> {
    let key = store::key_at(&places::mfa_device(user, &device.id))?;
    let value = serde_json::to_vec(device).map_err(|e| Error::other(format!("device cannot be stored: {e}")))?;
    Ok(ConditionalAction::put(key, condition, value, None))
}
