//! How long a flush waits for others who are about to write.

use std::time::{Duration, Instant};

/// The longest wait, for disks that are slow.
const LONGEST: Duration = Duration::from_millis(5);

/// Has writers share flushes.
///
/// Callers whose writes are flushed together are answered together, and many write again at once. If the first of them
/// had the next flush for itself, all others would wait for two. So a flush waits for as many as are about: those who
/// were just answered and those who came meanwhile. It waits for half a flush at most, and a lone caller never does.
#[derive(Debug, Default)]
pub struct GroupCommit {
    /// How many were answered after the last flush.
    answered: usize,
    /// Until when they are waited for.
    until: Option<Instant>,
}

impl GroupCommit {
    /// Takes down that a flush for so many callers has ended.
    pub fn flushed(&mut self, callers: usize, began: Instant, ended: Instant) {
        self.answered = callers;
        self.until = Some(ended + (ended.saturating_duration_since(began) / 2).min(LONGEST));
    }

    /// How long to wait for the next caller; `None` when the flush may begin. `gathered` callers wait for it, of whom
    /// `before` have come during the flush before.
    pub fn wait(&self, gathered: usize, before: usize, now: Instant) -> Option<Duration> {
        if gathered >= self.answered + before {
            return None;
        }
        self.until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_millis(2);

    fn after(callers: usize) -> (GroupCommit, Instant) {
        let mut group = GroupCommit::default();
        let began = Instant::now();
        let ended = began + FLUSH;
        group.flushed(callers, began, ended);
        (group, ended)
    }

    #[test]
    fn a_lone_caller_does_not_wait() {
        assert_eq!(GroupCommit::default().wait(1, 0, Instant::now()), None);
        let (group, ended) = after(1);
        assert_eq!(group.wait(1, 0, ended), None);
    }

    #[test]
    fn those_who_were_answered_are_waited_for_until_they_are_back() {
        let (group, ended) = after(3);
        assert_eq!(group.wait(1, 0, ended), Some(FLUSH / 2));
        assert_eq!(group.wait(2, 0, ended + FLUSH / 4), Some(FLUSH / 4));
        assert_eq!(group.wait(3, 0, ended), None);
    }

    #[test]
    fn those_who_came_during_the_flush_do_not_stand_for_others() {
        let (group, ended) = after(4);
        assert_eq!(group.wait(4, 4, ended), Some(FLUSH / 2), "the other four come again");
        assert_eq!(group.wait(8, 4, ended), None);
    }

    #[test]
    fn nobody_waits_for_longer_than_half_a_flush_or_for_long_at_all() {
        let (group, ended) = after(8);
        assert_eq!(group.wait(1, 0, ended + FLUSH / 2), None);
        let mut group = GroupCommit::default();
        group.flushed(8, ended, ended + Duration::from_secs(1));
        assert_eq!(group.wait(1, 0, ended + Duration::from_secs(1)), Some(LONGEST));
    }
}
