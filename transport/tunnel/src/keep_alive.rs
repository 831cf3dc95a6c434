//! How the two ends of a tunnel make sure of each other.

use std::time::Duration;

/// The longest that an agent lets a silent proxy be before it asks whether that is still there: a tunnel is how an agent
/// is reached at all, and what proxies are content with (minutes) is long for whoever waits for a session.
const LONGEST_QUESTION: Duration = Duration::from_secs(30);
/// More questions than this are not waited for.
const MOST_QUESTIONS: u32 = 3;

/// How often one end says that it is alive, and how often the other may miss that (`keep_alive_interval` and
/// `keep_alive_count_max` of the cluster's networking settings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The time between two signs of life.
    pub interval: Duration,
    /// How many may be missing.
    pub count: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5 * 60), count: 3 }
    }
}

impl KeepAlive {
    /// From a cluster's settings: the interval in nanoseconds. What is not positive is not set.
    pub fn of(interval: i64, count: i64) -> Self {
        let default = Self::default();
        let nanoseconds = u64::try_from(interval).ok().filter(|n| *n > 0);
        // Below a second, signs of life are all that passes.
        let interval = nanoseconds.map_or(default.interval, Duration::from_nanos).max(Duration::from_secs(1));
        let count = u32::try_from(count).ok().filter(|n| *n > 0).unwrap_or(default.count);
        Self { interval, count }
    }

    /// After how long without a sign of life the other end is taken for offline.
    pub fn threshold(self) -> Duration {
        self.interval.saturating_mul(self.count.max(1))
    }

    /// How a member that depends on a connection asks whether the other end is there: after how much silence and again
    /// after so much more, and how many of these may pass before it gives the connection up. At least two, for the first
    /// one begins with the silence.
    pub fn questions(self) -> (Duration, u32) {
        (self.interval.min(LONGEST_QUESTION), self.count.clamp(2, MOST_QUESTIONS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_not_set() {
        for (interval, count) in [(0, 0), (-1, -1), (i64::MIN, i64::MIN)] {
            assert_eq!(KeepAlive::of(interval, count), KeepAlive::default());
        }
        let fast = KeepAlive::of(1, 1);
        assert_eq!((fast.interval, fast.count), (Duration::from_secs(1), 1));
        assert_eq!(KeepAlive::of(i64::MAX, i64::MAX).count, 3, "more than a number of 32 bits");
    }

    #[test]
    fn members_give_up_after_the_time_that_was_set_and_after_a_minute_and_a_half_at_most() {
        for (interval, count, seconds) in [(1, 2, 2), (1, 1, 2), (10, 3, 30), (300, 3, 90), (3600, 100, 90)] {
            let (every, times) = KeepAlive { interval: Duration::from_secs(interval), count }.questions();
            assert_eq!(every * times, Duration::from_secs(seconds), "{interval} s, {count}");
        }
    }
}
