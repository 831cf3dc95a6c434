//! When to look again for what could not be removed from a module.

/// Unused keys that are still in the module after a fault. They are looked for again after more and more rounds, because a
/// module may be away for long.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    faults: u32,
    rounds: u32,
}

impl Owed {
    /// So many rounds of some twenty seconds are the longest wait.
    const MOST_ROUNDS: u32 = 64;

    /// Notes whether nothing is left.
    pub(crate) fn note(&mut self, done: bool) {
        self.faults = if done { 0 } else { self.faults.saturating_add(1) };
        self.rounds =
            1_u32.checked_shl(self.faults.saturating_sub(1)).map_or(Self::MOST_ROUNDS, |n| n.min(Self::MOST_ROUNDS));
    }

    /// Counts a round; whether it is time.
    pub(crate) fn is_due(&mut self) -> bool {
        self.rounds = self.rounds.saturating_sub(1);
        self.faults > 0 && self.rounds == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_module_that_stays_away_is_asked_less_and_less_often() {
        let mut owed = Owed::default();
        assert!(!owed.is_due());
        let mut waits = Vec::new();
        for _ in 0..40 {
            owed.note(false);
            waits.push((1..).find(|_| owed.is_due()).unwrap());
        }
        assert_eq!((&waits[..8], waits[39]), (&[1, 2, 4, 8, 16, 32, 64, 64][..], 64));
        owed.note(true);
        assert!((0..100).all(|_| !owed.is_due()));
    }
}
