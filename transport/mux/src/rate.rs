//! How often one address may ask for something.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Addresses remembered at once; beyond that the ones that have been quiet are forgotten, and when there are none, those
/// that were seen longest ago: whoever has many addresses must not keep everybody else out.
const MAX_ADDRESSES: usize = 16_384;
/// Addresses that are not forgotten when there is no place for another one.
const MOST_KEPT: usize = MAX_ADDRESSES / 2;

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

    fn refilled(self, left: f64, elapsed: Duration) -> f64 {
        let per_second = self.average as f64 / self.period.as_secs_f64().max(f64::MIN_POSITIVE);
        (left + elapsed.as_secs_f64() * per_second).min(self.burst as f64)
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
        let address = of_one(address);
        let mut addresses = self.addresses.lock();
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            make_room(&mut addresses, &self.rates, now);
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

/// The address that counts: providers give each customer at least 2⁶⁴ addresses of IPv6.
fn of_one(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// Forgets addresses until half of the places are free, so that this is seldom done: all are looked at each time.
fn make_room(addresses: &mut HashMap<IpAddr, Buckets>, rates: &[Rate], now: Instant) {
    addresses.retain(|_, buckets| !buckets.is_full(rates, now));
    let Some(excess) = addresses.len().checked_sub(MOST_KEPT).filter(|excess| *excess > 0) else { return };
    let mut seen: Vec<Instant> = addresses.values().map(|buckets| buckets.seen).collect();
    let (_, last_forgotten, _) = seen.select_nth_unstable(excess - 1);
    addresses.retain(|_, buckets| buckets.seen > *last_forgotten);
}

impl Buckets {
    fn refill(&mut self, rates: &[Rate], now: Instant) {
        let elapsed = now.saturating_duration_since(self.seen);
        self.left.iter_mut().zip(rates).for_each(|(left, rate)| *left = rate.refilled(*left, elapsed));
        self.seen = now;
    }

    fn is_full(&self, rates: &[Rate], now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.seen);
        self.left.iter().zip(rates).all(|(left, rate)| rate.refilled(*left, elapsed) >= rate.burst as f64)
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
        assert!(limit.addresses.lock().len() < MAX_ADDRESSES);
    }

    #[test]
    fn many_addresses_keep_nobody_out_and_late_ones_stay_limited() {
        let limit = RateLimit::new([Rate::per_minute(1, 1)]);
        let start = Instant::now();
        let at = |number: usize| start + Duration::from_micros(number as u64);
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap_or_default().to_be_bytes());
        for number in 0..MAX_ADDRESSES {
            assert!(limit.allow(address(number), at(number)));
        }
        assert!(limit.allow(IpAddr::from([198, 51, 100, 1]), at(MAX_ADDRESSES)));
        assert_eq!(limit.addresses.lock().len(), MOST_KEPT + 1);
        assert!(!limit.allow(address(MAX_ADDRESSES - 1), at(MAX_ADDRESSES + 1)), "one seen lately is not forgotten");
    }

    #[test]
    fn one_quiet_address_does_not_make_every_new_one_look_at_all() {
        let limit = RateLimit::new([Rate::per_minute(60, 1)]);
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap_or_default().to_be_bytes());
        assert!(limit.allow(address(0), start), "quiet again when the others come");
        for number in 1..=MAX_ADDRESSES {
            assert!(limit.allow(address(number), later + Duration::from_nanos(number as u64)));
        }
        let kept = limit.addresses.lock().len();
        assert!(kept <= MOST_KEPT + 1, "{kept}");
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let limit = RateLimit::new([Rate::per_minute(60, 5)]);
        let start = Instant::now();
        let from =
            |network: u16, host: u16| limit.allow(IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]), start);
        assert_eq!((0..20).filter(|host| from(1, *host)).count(), 5);
        assert!(from(2, 1));
        let mapped = |last: u16| limit.allow(IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, last]), start);
        assert!((0..20).all(mapped), "these are addresses of IPv4");
    }
}
