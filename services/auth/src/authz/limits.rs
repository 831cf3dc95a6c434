//! How often somebody without a certificate may try what could be guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use resources::SystemRole;
use wire::error::{Error, Result};

use super::AuthContext;

/// Buckets kept; when there are more, the fullest ones are forgotten.
const MAX_BUCKETS: usize = 16_384;

/// A bucket that fills with time and is emptied by calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Limit {
    name: &'static str,
    /// Calls that may come at once.
    burst: u32,
    /// Time until one more call may come.
    interval: Duration,
}

const CHALLENGES: Limit = Limit { name: "challenges", burst: 40, interval: Duration::from_secs(3) };
const PASSWORDS: Limit = Limit { name: "passwords", burst: 10, interval: Duration::from_secs(60) };

/// The limits by call and address.
#[derive(Default)]
pub struct Limits {
    buckets: Mutex<HashMap<(&'static str, IpAddr), Bucket>>,
}

struct Bucket {
    left: f64,
    seen: Instant,
}

impl Limits {
    /// Counts a call.
    ///
    /// # Errors
    /// `LimitExceeded` when its caller has made too many.
    pub fn check(&self, context: &AuthContext, path: &str) -> Result<()> {
        let limit = match path {
            "/proto.AuthService/CreateAuthenticateChallenge" if context.is_anonymous() => CHALLENGES,
            "/proto.AuthService/ChangeUserAuthentication" | "/proto.AuthService/ChangePassword" => PASSWORDS,
            _ => return Ok(()),
        };
        // A proxy speaks for many people and limits each of them itself.
        if context.has_role(SystemRole::Proxy) {
            return Ok(());
        }
        match context.caller().remote_addr {
            Some(address) => self.take(limit, address.ip().to_canonical(), Instant::now()),
            None => Ok(()),
        }
    }

    fn take(&self, limit: Limit, address: IpAddr, now: Instant) -> Result<()> {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|(name, _), bucket| {
                let of = if *name == CHALLENGES.name { CHALLENGES } else { PASSWORDS };
                bucket.refilled(of, now) < f64::from(of.burst)
            });
        }
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&(limit.name, address)) {
            return Err(Error::limit_exceeded("too many callers, try again later"));
        }
        let fresh = Bucket { left: f64::from(limit.burst), seen: now };
        let bucket = buckets.entry((limit.name, address)).or_insert(fresh);
        bucket.left = bucket.refilled(limit, now);
        bucket.seen = now;
        if bucket.left < 1.0 {
            return Err(Error::limit_exceeded("too many attempts, try again later"));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

impl Bucket {
    fn refilled(&self, limit: Limit, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(self.seen).as_secs_f64() / limit.interval.as_secs_f64();
        (self.left + gained).min(f64::from(limit.burst))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_call_an_interval() {
        let limits = Limits::default();
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        for _ in 0..PASSWORDS.burst {
            limits.take(PASSWORDS, one, start).unwrap();
        }
        assert!(limits.take(PASSWORDS, one, start).is_err());
        assert!(limits.take(PASSWORDS, two, start).is_ok());
        let later = start + PASSWORDS.interval;
        assert!(limits.take(PASSWORDS, one, later).is_ok());
        assert!(limits.take(PASSWORDS, one, later).is_err());
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let limits = Limits::default();
        let start = Instant::now();
        for number in 0..u32::try_from(MAX_BUCKETS).unwrap() + 10 {
            let _ = limits.take(CHALLENGES, IpAddr::from(number.to_be_bytes()), start);
        }
        assert!(limits.buckets.lock().len() <= MAX_BUCKETS);
        let later = start + Duration::from_secs(3600);
        limits.take(CHALLENGES, "198.51.100.1".parse().unwrap(), later).unwrap();
        assert_eq!(limits.buckets.lock().len(), 1);
    }
}
