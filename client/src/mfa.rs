//! The user's second factors: showing one, and managing the devices.

use chrono::{DateTime, Utc};
use serde::Serialize;
use wire::mfa::{ChallengeExtensions, ChallengeScope};
use wire::proto::create_authenticate_challenge_request::Request as ChallengeRequest;
use wire::proto::mfa_authenticate_response::Response as FactorResponse;
use wire::proto::mfa_register_challenge::Request as NewFactor;
use wire::proto::mfa_register_response::Response as NewFactorResponse;
use wire::proto::{
    AddMfaDeviceSyncRequest, ContextUser, CreateAuthenticateChallengeRequest, CreateRegisterChallengeRequest,
    DeleteMfaDeviceSyncRequest, DeviceType, DeviceUsage, GetMfaDevicesRequest, MfaAuthenticateChallenge,
    MfaAuthenticateResponse, MfaRegisterResponse, TotpRegisterResponse, TotpResponse,
};
use wire::types::{MfaDevice, mfa_device};
use zeroize::Zeroizing;

use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::login::Ask;
use crate::text;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// `TOTP`, `WebAuthn` or `U2F`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// When it was registered.
    pub added_at: Option<DateTime<Utc>>,
    /// When it was used last.
    pub last_used: Option<DateTime<Utc>>,
    /// Its id.
    pub id: String,
}

/// What an authenticator application has to be told.
pub struct NewTotp {
    /// The secret, in base 32.
    pub secret: Zeroizing<String>,
    /// The same with everything else, as an `otpauth` address for a QR code.
    pub address: Zeroizing<String>,
    /// Seconds for which a code is good.
    pub period: u32,
    /// Digits of a code.
    pub digits: u32,
    id: String,
}

/// Lists the user's devices.
pub async fn devices(client: &ClusterClient) -> Result<Vec<Device>> {
    let answer = client.root_auth().get_mfa_devices(GetMfaDevicesRequest::default()).await?.into_inner();
    Ok(answer.devices.into_iter().map(Device::from).collect())
}

/// Begins to register an authenticator application. Whoever has a device shows it first.
pub async fn begin_totp(client: &ClusterClient, ask: &mut impl Ask) -> Result<NewTotp> {
    let existing_mfa_response = show_device(client, ask).await?;
    let request = CreateRegisterChallengeRequest {
        existing_mfa_response,
        device_type: DeviceType::Totp.into(),
        device_usage: DeviceUsage::Mfa.into(),
        ..Default::default()
    };
    let challenge = client.root_auth().create_register_challenge(request).await?.into_inner();
    let Some(NewFactor::Totp(totp)) = challenge.request else {
        return Err(Error::other("the cluster did not offer to register an authenticator application"));
    };
    let encoded =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let address = Zeroizing::new(format!(
        "otpauth://totp/{}:{}?secret={}&issuer={}&algorithm={}&digits={}&period={}",
        encoded(&totp.issuer),
        encoded(&totp.account),
        totp.secret,
        encoded(&totp.issuer),
        encoded(&totp.algorithm),
        totp.digits,
        totp.period_seconds,
    ));
    let (period, digits) = (totp.period_seconds, totp.digits);
    Ok(NewTotp { secret: Zeroizing::new(totp.secret), address, period, digits, id: totp.id })
}

/// Completes the registration with a code of the application.
pub async fn add_totp(client: &ClusterClient, name: &str, totp: &NewTotp, code: &str) -> Result<Device> {
    let response = TotpRegisterResponse { code: code.to_owned(), id: totp.id.clone() };
    let request = AddMfaDeviceSyncRequest {
        context_user: Some(ContextUser {}),
        new_device_name: name.to_owned(),
        new_mfa_response: Some(MfaRegisterResponse { response: Some(NewFactorResponse::Totp(response)) }),
        device_usage: DeviceUsage::Mfa.into(),
        ..Default::default()
    };
    let answer = client.root_auth().add_mfa_device_sync(request).await?.into_inner();
    answer.device.map(Device::from).ok_or_else(|| Error::other("the cluster did not say what it has registered"))
}

/// Removes a device, by name or id.
pub async fn remove(client: &ClusterClient, name: &str, ask: &mut impl Ask) -> Result<()> {
    let known = devices(client).await?;
    if !known.iter().any(|device| device.name == name || device.id == name) {
        let names: Vec<_> = known.iter().map(|device| text::line(&device.name)).collect();
        return Err(Error::other(format!("device {name:?} not found; there are: {}", names.join(", "))));
    }
    let existing_mfa_response = show_device(client, ask).await?;
    let request =
        DeleteMfaDeviceSyncRequest { device_name: name.to_owned(), existing_mfa_response, ..Default::default() };
    client.root_auth().delete_mfa_device_sync(request).await?;
    Ok(())
}

/// Shows one of the user's devices, to be allowed to change them; `None` for whoever has none yet.
async fn show_device(client: &ClusterClient, ask: &mut impl Ask) -> Result<Option<MfaAuthenticateResponse>> {
    let request = CreateAuthenticateChallengeRequest {
        request: Some(ChallengeRequest::ContextUser(ContextUser {})),
        challenge_extensions: Some(ChallengeExtensions {
            scope: ChallengeScope::ManageDevices.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let challenge = client.root_auth().create_authenticate_challenge(request).await?.into_inner();
    if challenge.totp.is_none() && challenge.webauthn_challenge.is_none() {
        return Ok(None);
    }
    answer(&challenge, ask).map(Some)
}

/// Answers a challenge with what the user has.
///
/// # Errors
/// When the user has nothing, or only what this program cannot use.
pub fn answer(challenge: &MfaAuthenticateChallenge, ask: &mut impl Ask) -> Result<MfaAuthenticateResponse> {
    let response = match (&challenge.totp, &challenge.webauthn_challenge) {
        (Some(_), _) => FactorResponse::Totp(TotpResponse { code: ask.code()?.to_string() }),
        (None, Some(_)) => {
            return Err(Error::other(
                "a security key is wanted, which this build cannot use yet: add an authenticator application with \
                 'tsh mfa add', or in the browser",
            ));
        }
        (None, None) => {
            return Err(Error::other(
                "a second factor is wanted, and you have no device for it: add one with 'tsh mfa add'",
            ));
        }
    };
    Ok(MfaAuthenticateResponse { response: Some(response) })
}

impl From<MfaDevice> for Device {
    fn from(device: MfaDevice) -> Self {
        Self {
            name: device.metadata.map(|metadata| metadata.name).unwrap_or_default(),
            kind: match device.device {
                Some(mfa_device::Device::Totp(_)) => "TOTP",
                Some(mfa_device::Device::Webauthn(_)) => "WebAuthn",
                Some(mfa_device::Device::U2f(_)) => "U2F",
                None => "unknown",
            },
            added_at: wire::time::moment(device.added_at.as_ref()),
            last_used: wire::time::moment(device.last_used.as_ref()),
            id: device.id,
        }
    }
}
