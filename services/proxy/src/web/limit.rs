//! How often one address may call an endpoint.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Addresses remembered at once; beyond that the ones that have been quiet are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// A token bucket per address.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_minute: f64,
    burst: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    seen: Instant,
}

impl RateLimit {
    /// `per_minute` calls on average, `burst` at once.
    pub(crate) fn new(per_minute: u32, burst: u32) -> Self {
        Self { per_minute: f64::from(per_minute), burst: f64::from(burst), buckets: Mutex::default() }
    }

    /// Whether a call from `address` at `now` is within the limit.
    pub(crate) fn allow(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            let refill = Duration::from_secs_f64(self.burst / self.per_minute * 60.0);
            buckets.retain(|_, b| now.saturating_duration_since(b.seen) < refill);
            if buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { tokens: self.burst, seen: now });
        let elapsed = now.saturating_duration_since(bucket.seen).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * self.per_minute / 60.0).min(self.burst);
        bucket.seen = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_average() {
        let limit = RateLimit::new(60, 5);
        let (address, start) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
        assert_eq!((0..10).filter(|_| limit.allow(address, start)).count(), 5);
        assert!(limit.allow(address, start + Duration::from_secs(1)));
        assert!(!limit.allow(address, start + Duration::from_secs(1)));
        assert!(limit.allow(IpAddr::from([10, 0, 0, 2]), start), "another address has its own limit");
    }
}
