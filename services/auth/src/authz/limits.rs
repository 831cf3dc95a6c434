//! How often the API may be called.

use std::net::IpAddr;
use std::time::Instant;

use mux::rate::{Rate, RateLimit};
use resources::SystemRole;
use wire::error::{Error, Result};

use super::AuthContext;

/// Challenges, with which names could be tried.
const CHALLENGES: Rate = Rate::per_minute(20, 40);
/// Attempts at passwords and tokens.
const PASSWORDS: Rate = Rate::per_minute(1, 10);

/// The limits by call and address.
pub struct Limits {
    challenges: RateLimit,
    passwords: RateLimit,
    /// Of the configuration file, for all calls.
    all: RateLimit,
}

impl Limits {
    /// `rates` are for all calls of one address.
    pub fn new(rates: &[Rate]) -> Self {
        Self {
            challenges: RateLimit::new([CHALLENGES]),
            passwords: RateLimit::new([PASSWORDS]),
            all: RateLimit::new(rates.iter().copied()),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// `LimitExceeded` when its caller has made too many.
    pub fn check(&self, context: &AuthContext, path: &str) -> Result<()> {
        // A proxy speaks for many people and limits each of them itself; the administrator has to get in.
        let exempt = context.has_role(SystemRole::Proxy) || context.is_admin();
        match context.caller().counted {
            Some(address) if !exempt => self.take(path, context.is_anonymous(), address, Instant::now()),
            _ => Ok(()),
        }
    }

    fn take(&self, path: &str, anonymous: bool, address: IpAddr, now: Instant) -> Result<()> {
        if !self.all.allow(address, now) {
            return Err(Error::limit_exceeded("too many calls from this address, try again later"));
        }
        let limit = match path {
            "/proto.AuthService/CreateAuthenticateChallenge" if anonymous => &self.challenges,
            "/proto.AuthService/ChangeUserAuthentication" | "/proto.AuthService/ChangePassword" => &self.passwords,
            _ => return Ok(()),
        };
        match limit.allow(address, now) {
            true => Ok(()),
            false => Err(Error::limit_exceeded("too many attempts, try again later")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_could_be_guessed_and_all_calls_together_are_limited_for_each_address() {
        let limits = Limits::new(&[Rate::per_minute(60, 12)]);
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        let password = "/proto.AuthService/ChangePassword";
        for _ in 0..PASSWORDS.burst {
            limits.take(password, false, one, start).unwrap();
        }
        assert!(limits.take(password, false, one, start).is_err());
        assert!(limits.take(password, false, two, start).is_ok());
        assert!(limits.take("/proto.AuthService/Ping", true, one, start).is_ok());
        assert!(limits.take("/proto.AuthService/Ping", true, one, start).is_err());
        assert!(limits.take(password, false, one, start + Duration::from_secs(60)).is_ok());
    }
}
