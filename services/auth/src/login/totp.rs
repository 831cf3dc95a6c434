//! One-time codes (RFC 6238: SHA-1, 6 digits, 30 seconds, one period of tolerance either way).

use std::collections::BTreeMap;

use backend::{Condition, ConditionalAction, Item};
use chrono::TimeDelta;
use resources::places;
use totp_rs::{Algorithm, Builder, Secret, Totp};
use wire::{
    error::{Error, ErrorKind, Result},
    proto, time,
    types::{MfaDevice, mfa_device::Device},
};

use super::qr;
use crate::{Auth, random, store};

/// Seconds for which one code is shown.
const PERIOD: u64 = 30;

/// Digits of a code.
const DIGITS: u8 = 6;

/// Bytes of a new secret.
const SECRET: usize = 20;

/// How long the last used code is remembered: longer than any code is accepted.
const MEMORY: TimeDelta = TimeDelta::minutes(5);

/// The code steps that each device of a user has used; a code is accepted once and never an older one after it.
type UsedSteps = BTreeMap<String, u64>;

/// A new secret, as people and programs enter it into their device.
pub(crate) struct NewSecret {
    pub(crate) base32: String,
}

impl NewSecret {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self { base32: Secret::from(random::bytes::<SECRET>()?).to_base32() })
    }

    /// What a device needs to know, also as an image to scan.
    pub(crate) fn challenge(&self, issuer: &str, account: &str, id: String) -> Result<proto::TotpRegisterChallenge> {
        let plain = |text: &str| text.replace(':', "-");
        let totp = builder(&self.base32)?
            .with_issuer(Some(plain(issuer)))
            .with_account_name(plain(account))
            .build()
            .map_err(|e| Error::other(format!("one-time code: {e}")))?;
        let url = totp.to_url().map_err(|e| Error::other(format!("one-time code: {e}")))?;
        Ok(proto::TotpRegisterChallenge {
            secret: self.base32.clone(),
            issuer: issuer.to_owned(),
            period_seconds: u32::try_from(PERIOD).unwrap_or(0),
            algorithm: "SHA1".to_owned(),
            digits: u32::from(DIGITS),
            account: account.to_owned(),
            qr_code: qr::png(&url)?,
            id,
        })
    }
}

/// The step of a code that a secret accepts at `unix` seconds.
pub(crate) fn step_of(secret: &str, code: &str, unix: u64) -> Result<Option<u64>> {
    if code.len() != usize::from(DIGITS) || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let totp: Totp = builder(secret)?.build().map_err(|e| Error::other(format!("one-time code: {e}")))?;
    Ok(totp.check(code, unix))
}

fn builder(secret: &str) -> Result<Builder> {
    let secret = Secret::try_from_base32(secret.trim_end_matches('='))
        .map_err(|_| Error::other("the stored one-time code secret cannot be read"))?;
    Ok(Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_skew(1)
        .with_step_duration(PERIOD)
        .with_secret(secret))
}

impl Auth {
    /// The device of `user` that shows `code` now. The code is used up by this.
    ///
    /// # Errors
    /// `AccessDenied` for codes of no device and for codes that were used before.
    pub(crate) async fn check_totp(&self, user: &str, code: &str) -> Result<MfaDevice> {
        let now = u64::try_from(self.now().timestamp()).unwrap_or(0);
        let mut used_before = false;
        for device in self.mfa_devices(user).await? {
            let Some(Device::Totp(totp)) = &device.device else { continue };
            let Some(step) = step_of(&totp.key, code, now)? else { continue };
            match self.use_totp_step(user, &device.id, step).await {
                Ok(()) => {
                    self.touch_device(user, &device).await;
                    return Ok(device);
                }
                Err(e) if e.kind == ErrorKind::AccessDenied => used_before = true,
                Err(e) => return Err(e),
            }
        }
        Err(Error::access_denied(if used_before { "previously used totp token" } else { "invalid totp token" }))
    }

    async fn use_totp_step(&self, user: &str, device: &str, step: u64) -> Result<()> {
        let write = self.totp_step_write(user, device, step).await?;
        // Somebody else who was faster with the same code is the reason for a failing condition.
        self.store().atomic(vec![write]).await.map(drop).map_err(|e| match e.kind {
            ErrorKind::CompareFailed => Error::access_denied("previously used totp token"),
            _ => e,
        })
    }

    /// The write that uses up a code step of a device.
    ///
    /// # Errors
    /// `AccessDenied` when it, or a later one, was used before.
    pub(crate) async fn totp_step_write(&self, user: &str, device: &str, step: u64) -> Result<ConditionalAction> {
        let key = store::key_at(&places::used_totp(user))?;
        let (mut used, condition) = match self.store().backend().get(&key).await {
            Ok(item) => (used_steps(&item), Condition::Revision(item.revision)),
            Err(e) if e.is_not_found() => (UsedSteps::new(), Condition::NotExists),
            Err(e) => return Err(store::storage(&e)),
        };
        if used.get(device).is_some_and(|last| *last >= step) {
            return Err(Error::access_denied("previously used totp token"));
        }
        used.insert(device.to_owned(), step);
        let value = serde_json::to_vec(&used).map_err(|e| Error::other(format!("used code cannot be stored: {e}")))?;
        Ok(ConditionalAction::put(key, condition, value, Some(self.now() + MEMORY)))
    }

    /// Remembers when a device was used. Failing here does not fail the login.
    async fn touch_device(&self, user: &str, device: &MfaDevice) {
        let mut touched = device.clone();
        touched.last_used = Some(time::timestamp(self.now()));
        if let Err(error) = self.store_mfa_device(user, &touched).await {
            tracing::debug!(%error, user, "cannot remember when a device was used");
        }
    }
}

fn used_steps(item: &Item) -> UsedSteps {
    serde_json::from_slice(&item.value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The secret of RFC 6238 appendix B.
    const RFC_SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn codes_are_those_of_the_rfc_with_one_period_of_tolerance() {
        assert_eq!(step_of(RFC_SECRET, "287082", 59).unwrap(), Some(1));
        assert_eq!(step_of(RFC_SECRET, "287082", 89).unwrap(), Some(1));
        assert_eq!(step_of(RFC_SECRET, "287082", 90).unwrap(), None);
        assert_eq!(step_of(RFC_SECRET, "081804", 1_111_111_109).unwrap(), Some(37_037_036));
    }

    #[test]
    fn what_is_no_code_is_refused_quietly() {
        for text in ["", "28708", "2870822", "28708a", "２８７０８２", "      "] {
            assert_eq!(step_of(RFC_SECRET, text, 59).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn a_challenge_can_be_read_back_from_its_parts() {
        let secret = NewSecret::generate().unwrap();
        let challenge = secret.challenge("example.com", "alice@proxy.example.com", "id".into()).unwrap();
        assert_eq!((challenge.period_seconds, challenge.digits, challenge.algorithm.as_str()), (30, 6, "SHA1"));
        assert_eq!(challenge.secret.len(), 32);
        assert!(challenge.qr_code.starts_with(b"\x89PNG"));
    }
}
