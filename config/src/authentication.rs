//! Section `auth_service.authentication`: how users log in.

use std::time::Duration;

use crate::{
    Environment,
    section::{Section, choices},
};

/// How users log in, as far as the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authentication {
    /// Where users come from.
    pub kind: Option<AuthenticationType>,
    /// What is asked beside the password.
    pub second_factor: Option<SecondFactor>,
    /// The connector that is meant when the user names none.
    pub connector_name: Option<String>,
    /// Whether users with passwords may log in beside those of the connector.
    pub local_auth: Option<bool>,
    /// Whether users may log in with a passkey alone.
    pub passwordless: Option<bool>,
    /// Whether users may log in on a machine without a browser.
    pub headless: Option<bool>,
    /// How long certificates last when nothing else decides.
    pub default_session_ttl: Option<Duration>,
    /// What each session needs beside the login.
    pub require_session_mfa: Option<SessionMfa>,
    /// What happens to sessions when locks cannot be read.
    pub locking_mode: Option<LockingMode>,
    /// Passkeys and security keys.
    pub webauthn: Option<Webauthn>,
    /// The predecessor of WebAuthn, for devices registered with it.
    pub u2f: Option<U2f>,
    /// Whether devices must be known.
    pub device_trust: Option<DeviceTrust>,
    /// Keys that never leave a piece of hardware.
    pub hardware_key: Option<HardwareKey>,
    /// Which kinds of keys the cluster makes.
    pub signature_algorithm_suite: Option<SignatureSuite>,
}

choices! {
    /// Where users come from.
    AuthenticationType {
        Local = "local",
        Oidc = "oidc",
        Saml = "saml",
        Github = "github",
    }
}

choices! {
    /// What is asked beside the password.
    SecondFactor {
        Off = "off",
        Otp = "otp",
        Webauthn = "webauthn" | "u2f",
        On = "on",
        Optional = "optional",
    }
}

choices! {
    /// What each session needs beside the login.
    SessionMfa {
        No = "no" | "off" | "false" | "n" | "0",
        Yes = "yes" | "on" | "true" | "y" | "1",
        HardwareKey = "hardware_key",
        HardwareKeyTouch = "hardware_key_touch",
        HardwareKeyPin = "hardware_key_pin",
        HardwareKeyTouchAndPin = "hardware_key_touch_and_pin",
    }
}

choices! {
    /// What happens to sessions when locks cannot be read.
    LockingMode {
        BestEffort = "best_effort",
        Strict = "strict",
    }
}

choices! {
    /// Whether devices must be known.
    DeviceTrustMode {
        Off = "off",
        Optional = "optional",
        Required = "required",
    }
}

choices! {
    /// Which kinds of keys the cluster makes.
    SignatureSuite {
        Legacy = "legacy",
        BalancedV1 = "balanced-v1",
        FipsV1 = "fips-v1",
        HsmV1 = "hsm-v1",
    }
}

choices! {
    /// A slot of a PIV card.
    PivSlot {
        Slot9a = "9a",
        Slot9c = "9c",
        Slot9d = "9d",
        Slot9e = "9e",
    }
}

/// Passkeys and security keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webauthn {
    /// Domain the devices are bound to.
    pub rp_id: Option<String>,
    /// Makers accepted, as PEM; empty: all.
    pub attestation_allowed_cas: Vec<String>,
    /// Makers refused, as PEM.
    pub attestation_denied_cas: Vec<String>,
}

/// The predecessor of WebAuthn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct U2f {
    /// The application the devices are bound to; its host is the domain of WebAuthn.
    pub app_id: Option<String>,
    /// Origins that may use it.
    pub facets: Vec<String>,
    /// Makers accepted, as PEM.
    pub device_attestation_cas: Vec<String>,
}

/// Whether devices must be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTrust {
    /// Whether at all.
    pub mode: Option<DeviceTrustMode>,
    /// Whether devices enrol themselves.
    pub auto_enroll: Option<bool>,
    /// Makers of TPMs accepted, as PEM; empty: all.
    pub ekcert_allowed_cas: Vec<String>,
}

/// Keys that never leave a piece of hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwareKey {
    /// The slot used.
    pub piv_slot: Option<PivSlot>,
    /// The user trait that lists the serial numbers of the user's keys, when they are checked.
    pub serial_number_trait: Option<String>,
}

pub(crate) fn read(section: &Section<'_>, environment: &Environment) -> Authentication {
    let deprecated_slot = section.choice("piv_slot");
    let has_hardware_key = section.has("hardware_key") || deprecated_slot.is_some();
    let hardware_key = section.section("hardware_key", |key| HardwareKey {
        piv_slot: key.choice("piv_slot").or(deprecated_slot),
        serial_number_trait: key.section("serial_number_validation", |validation| {
            let name = validation.text("serial_number_trait_name");
            let enabled = validation.flag("enabled").unwrap_or(false);
            enabled.then(|| name.unwrap_or_else(|| "hardware_key_serial_numbers".to_owned()))
        }),
    });
    let webauthn = section.section("webauthn", |webauthn| {
        webauthn.ignore("disabled");
        Webauthn {
            rp_id: webauthn.text("rp_id"),
            attestation_allowed_cas: read_certificates(webauthn, "attestation_allowed_cas"),
            attestation_denied_cas: read_certificates(webauthn, "attestation_denied_cas"),
        }
    });
    let u2f = section.section("u2f", |u2f| U2f {
        app_id: u2f.text("app_id"),
        facets: u2f.texts("facets"),
        device_attestation_cas: read_certificates(u2f, "device_attestation_cas"),
    });
    let device_trust = section.section("device_trust", |trust| DeviceTrust {
        mode: trust.choice("mode"),
        auto_enroll: trust.flag("auto_enroll"),
        ekcert_allowed_cas: read_certificates(trust, "ekcert_allowed_cas"),
    });
    let authentication = Authentication {
        kind: section.choice("type"),
        second_factor: read_second_factor(section),
        connector_name: section.text("connector_name"),
        local_auth: section.flag("local_auth"),
        passwordless: section.flag("passwordless"),
        headless: section.flag("headless"),
        default_session_ttl: section.duration("default_session_ttl"),
        require_session_mfa: section.choice("require_session_mfa"),
        locking_mode: section.choice("locking_mode"),
        webauthn: section.has("webauthn").then_some(webauthn),
        u2f: section.has("u2f").then_some(u2f),
        device_trust: section.has("device_trust").then_some(device_trust),
        hardware_key: has_hardware_key.then_some(hardware_key),
        signature_algorithm_suite: section.choice("signature_algorithm_suite"),
    };
    check(section, &authentication, environment);
    authentication
}

/// Reads `second_factor`, or the list `second_factors` of later versions.
fn read_second_factor(section: &Section<'_>) -> Option<SecondFactor> {
    let one = section.choice("second_factor");
    let list = section.names("second_factors", &["otp", "webauthn", "sso"]);
    if list.is_empty() {
        return one;
    }
    if section.has("second_factor") {
        section.reject("second_factors", "only one of second_factor or second_factors can be set");
    }
    match (list.contains(&"otp"), list.contains(&"webauthn")) {
        (true, true) => Some(SecondFactor::On),
        (true, false) => Some(SecondFactor::Otp),
        (false, true) => Some(SecondFactor::Webauthn),
        (false, false) => {
            section.reject("second_factors", "sso alone is not part of this build yet");
            None
        }
    }
}

fn check(section: &Section<'_>, read: &Authentication, environment: &Environment) {
    let factor = read.second_factor.unwrap_or(SecondFactor::Otp);
    let rp_id = read.webauthn.as_ref().and_then(|webauthn| webauthn.rp_id.as_ref());
    let app_id = read.u2f.as_ref().and_then(|u2f| u2f.app_id.as_ref());
    let has_webauthn = rp_id.is_some() || app_id.is_some();
    let wants_webauthn = matches!(factor, SecondFactor::Webauthn | SecondFactor::On | SecondFactor::Optional);
    if wants_webauthn && !has_webauthn {
        let message = format!("second factor {factor} needs webauthn.rp_id, found no webauthn settings");
        section.reject("second_factor", message);
    }
    if matches!(factor, SecondFactor::Off | SecondFactor::Optional) && !environment.allow_no_second_factor {
        let message =
            format!("cannot disable multi-factor authentication: expected otp, webauthn or on, found {factor}");
        section.reject("second_factor", message);
    }
    let usable = has_webauthn && wants_webauthn;
    for (key, wanted) in [("passwordless", read.passwordless), ("headless", read.headless)] {
        if wanted == Some(true) && !usable {
            section.reject(key, "needs webauthn as second factor and webauthn.rp_id");
        }
    }
    if read.default_session_ttl.is_some_and(|ttl| ttl.is_zero()) {
        section.reject("default_session_ttl", "expected more than 0");
    }
}

/// Certificates, each as PEM or as the path of a PEM file.
fn read_certificates(section: &Section<'_>, key: &'static str) -> Vec<String> {
    section.items(key, |text| {
        let pem = if text.contains("-----BEGIN") {
            text.to_owned()
        } else {
            std::fs::read_to_string(text).map_err(|error| format!("reading the certificate {text} failed: {error}"))?
        };
        if pem.contains("-----BEGIN CERTIFICATE-----") {
            Ok(pem)
        } else {
            Err("expected a PEM certificate or the path of one".to_owned())
        }
    })
}
