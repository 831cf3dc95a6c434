//! How long to wait before the next try.

use std::time::Duration;

/// The first retries are quick, so that an agent is back within about a second after its proxy restarts; from then on
/// the wait doubles up to the ceiling.
const FIRST: Duration = Duration::from_millis(150);
const CEILING: Duration = Duration::from_secs(8);

/// A tunnel that lasted this long was a good one: the next loss starts over with quick retries.
pub(crate) const GOOD_TUNNEL: Duration = Duration::from_secs(5);

/// Counts failures in a row and says how long to wait after so many.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next try. `jitter` is a random number from 0 up to and without 1; it spreads the agents of
    /// a proxy that restarts.
    pub(crate) fn delay(&self, jitter: f64) -> Duration {
        let full = match self.failures.checked_sub(1) {
            None => FIRST / 2,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(CEILING),
        };
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn retries_start_quick_and_end_at_the_ceiling() {
        let mut backoff = Backoff::default();
        assert!(backoff.delay(1.0) <= Duration::from_millis(75));
        let mut within_the_first_second = 0;
        let mut total = Duration::ZERO;
        for _ in 0..40 {
            backoff.failed();
            total += backoff.delay(0.5);
            within_the_first_second += u32::from(total < Duration::from_secs(1));
        }
        assert!(within_the_first_second >= 3);
        assert_eq!(backoff.delay(1.0), CEILING);
        assert_eq!(backoff.delay(0.0), CEILING / 2);
        backoff.succeeded();
        assert!(backoff.delay(1.0) <= Duration::from_millis(75));
    }
}
