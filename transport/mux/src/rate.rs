//! How often one address may ask for something.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Addresses remembered at once; beyond that the ones that have been quiet are forgotten, and when there are none, new
/// addresses are refused.
const MAX_ADDRESSES: usize = 16_384;

/// So much over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Over how long it is counted.
    pub period: Duration,
    /// In the long run, per period.
    pub average: u64,
    /// At once.
    pub burst: u64,
}

impl Rate {
    /// A rate per minute.
    pub const fn per_minute(average: u64, burst: u64) -> Self {
        Self { period: Duration::from_secs(60), average, burst }
    }

    fn per_second(self) -> f64 {
        self.average as f64 / self.period.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Buckets for each address, one for each rate: whatever is asked for takes from all of them.
#[derive(Debug, Default)]
pub struct RateLimit {
    rates: Vec<Rate>,
    addresses: Mutex<HashMap<IpAddr, Buckets>>,
}

#[derive(Debug)]
struct Buckets {
    /// What is left, in the order of the rates.
    left: Vec<f64>,
    seen: Instant,
}

impl RateLimit {
    /// All of these rates hold; without any there is no limit.
    pub fn new(rates: impl IntoIterator<Item = Rate>) -> Self {
        Self { rates: rates.into_iter().collect(), addresses: Mutex::default() }
    }

    /// Whether one more from `address` at `now` is within the limit. What is refused does not count.
    pub fn allow(&self, address: IpAddr, now: Instant) -> bool {
        if self.rates.is_empty() {
            return true;
        }
        let address = address.to_canonical();
        let mut addresses = self.addresses.lock();
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            addresses.retain(|_, buckets| {
                buckets.refill(&self.rates, now);
                buckets.left.iter().zip(&self.rates).any(|(left, rate)| *left < rate.burst as f64)
            });
            if addresses.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let full = || Buckets { left: self.rates.iter().map(|rate| rate.burst as f64).collect(), seen: now };
        let buckets = addresses.entry(address).or_insert_with(full);
        buckets.refill(&self.rates, now);
        if buckets.left.iter().any(|left| *left < 1.0) {
            return false;
        }
        buckets.left.iter_mut().for_each(|left| *left -= 1.0);
        true
    }
}

impl Buckets {
    fn refill(&mut self, rates: &[Rate], now: Instant) {
        let elapsed = now.saturating_duration_since(self.seen).as_secs_f64();
        for (left, rate) in self.left.iter_mut().zip(rates) {
            *left = (*left + elapsed * rate.per_second()).min(rate.burst as f64);
        }
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(limit: &RateLimit, address: [u8; 4], now: Instant) -> usize {
        (0..100).filter(|_| limit.allow(IpAddr::from(address), now)).count()
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_average_for_each_address() {
        let limit = RateLimit::new([Rate::per_minute(60, 5)]);
        let start = Instant::now();
        assert_eq!(passed(&limit, [10, 0, 0, 1], start), 5);
        assert_eq!(passed(&limit, [10, 0, 0, 1], start + Duration::from_secs(1)), 1);
        assert_eq!(passed(&limit, [10, 0, 0, 2], start), 5);
    }

    #[test]
    fn all_rates_hold() {
        let rates = [
            Rate { period: Duration::from_secs(1), average: 10, burst: 10 },
            Rate { period: Duration::from_secs(3600), average: 12, burst: 12 },
        ];
        let limit = RateLimit::new(rates);
        let start = Instant::now();
        assert_eq!(passed(&limit, [10, 0, 0, 1], start), 10);
        assert_eq!(passed(&limit, [10, 0, 0, 1], start + Duration::from_secs(10)), 2);
        assert_eq!(passed(&RateLimit::default(), [10, 0, 0, 1], start), 100);
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let limit = RateLimit::new([Rate::per_minute(60, 1)]);
        let start = Instant::now();
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap_or_default() + 10 {
            limit.allow(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(limit.addresses.lock().len(), MAX_ADDRESSES);
        assert!(limit.allow(IpAddr::from([198, 51, 100, 1]), start + Duration::from_secs(1)));
        assert_eq!(limit.addresses.lock().len(), 1);
    }
}
