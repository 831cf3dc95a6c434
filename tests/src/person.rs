//! A local user with a password and a phone that shows one-time codes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use totp_rs::Totp;

use crate::waiting::wait_for;

/// Seconds a one-time code is shown.
const STEP: u64 = 30;

/// Somebody who has accepted an invitation.
pub struct Person {
    /// The name to log in with.
    pub name: String,
    /// The password they set.
    pub password: String,
    phone: Totp,
    /// What the phone has read.
    address: String,
    /// The last step whose code was used; codes can be used once.
    used: u64,
}

impl Person {
    /// Somebody with a phone that has read the address in the QR code.
    #[track_caller]
    pub fn new(name: &str, password: &str, address: &str) -> Self {
        let phone = Totp::from_url(address).unwrap_or_else(|e| panic!("address of one-time codes {address}: {e:?}"));
        Self { name: name.to_owned(), password: password.to_owned(), phone, address: address.to_owned(), used: 0 }
    }

    /// A one-time code not given before. The code of the next half minute is accepted early, as from a phone
    /// whose clock is ahead; when that is used as well this waits.
    #[track_caller]
    pub fn code(&mut self) -> String {
        self.used = wait_for("a fresh one-time code", Duration::from_secs(40), || {
            let now = now() / STEP;
            let next = (self.used + 1).max(now);
            if next <= now + 1 { Ok(next) } else { Err("all codes of this minute are used") }
        });
        self.last_code()
    }

    /// The secret in the phone, base32.
    pub fn seed(&self) -> String {
        let (_, after) = self.address.split_once("secret=").expect("a secret in the address");
        after.split('&').next().unwrap_or_default().to_owned()
    }

    /// The code given last.
    pub fn last_code(&self) -> String {
        self.phone.generate(self.used * STEP).to_string()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
