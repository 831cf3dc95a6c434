//! File transfers that somebody wants in a session, and which of them a moderator decides about: always the one that was
//! shown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::text;

/// Transfers that wait for a decision; more are not remembered.
const MOST_WAITING: usize = 16;
/// For so long after somebody else has decided, a key may still be meant for that transfer, and not for the next.
const REACTION: Duration = Duration::from_secs(1);
/// What moderators are told about their keys.
const HELP: &str = "\r\nTeleport > Press y to approve the file transfer, or n to deny it.\r\n";

/// A file transfer that somebody wants, as the server tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Transfer {
    #[serde(rename = "requestID")]
    pub id: String,
    requester: String,
    location: String,
    filename: String,
    download: bool,
}

/// Those that wait, the one that was shown first.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    waiting: VecDeque<Transfer>,
    /// The one about which the user has decided last: it may be told again while others decide.
    answered: String,
    /// When somebody else has decided about the first one.
    taken_away: Option<Instant>,
}

impl Transfers {
    /// Somebody wants to copy; whether that is now the first.
    pub fn wanted(&mut self, transfer: Transfer) -> bool {
        let known = self.answered == transfer.id || self.waiting.iter().any(|waiting| waiting.id == transfer.id);
        if known || self.waiting.len() >= MOST_WAITING {
            return false;
        }
        self.waiting.push_back(transfer);
        self.waiting.len() == 1
    }

    /// It was decided; whether another is now the first.
    pub fn decided(&mut self, id: &str, now: Instant) -> bool {
        let was_first = self.waiting.front().is_some_and(|first| first.id == id);
        if was_first {
            self.taken_away = Some(now);
        }
        self.waiting.retain(|waiting| waiting.id != id);
        was_first && !self.waiting.is_empty()
    }

    /// The first one, about which the user decides.
    pub fn take(&mut self, now: Instant) -> Option<String> {
        if self.taken_away.is_some_and(|at| now.saturating_duration_since(at) < REACTION) {
            return None;
        }
        self.answered = self.waiting.pop_front()?.id;
        Some(self.answered.clone())
    }

    /// What a moderator is asked about the first one.
    pub fn question(&self) -> Option<String> {
        let Transfer { requester, location, filename, download, .. } = self.waiting.front()?;
        let [requester, location, filename] = [requester, location, filename].map(|said| text::line(said));
        Some(match (requester.is_empty(), download) {
            (true, _) => HELP.to_owned(),
            (_, true) => format!("\r\nTeleport > {requester} wants to download {location}{HELP}"),
            (_, false) => format!("\r\nTeleport > {requester} wants to upload {filename} to {location}{HELP}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(id: &str) -> Transfer {
        Transfer { id: id.into(), requester: "al\u{1b}ice".into(), location: "/x".into(), ..Default::default() }
    }

    #[test]
    fn a_moderator_decides_about_what_was_shown() {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        assert!(transfers.wanted(transfer("a")));
        assert!(!transfers.wanted(transfer("b")) && !transfers.wanted(transfer("a")));
        assert_eq!(transfers.take(now).as_deref(), Some("a"));
        // Told again because others have to approve as well: it was answered.
        assert!(!transfers.wanted(transfer("a")) && !transfers.decided("a", now));
        assert!(transfers.question().is_some_and(|asked| asked.contains("al\\u{1b}ice")));
        assert_eq!((transfers.take(now).as_deref(), transfers.take(now)), (Some("b"), None));
    }

    #[test]
    fn a_key_is_not_for_a_transfer_that_has_just_taken_the_place_of_another() {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        transfers.wanted(transfer("a"));
        assert!(!transfers.decided("a", now));
        assert!(transfers.wanted(transfer("b")));
        assert_eq!(transfers.take(now), None);
        assert_eq!(transfers.take(now + REACTION).as_deref(), Some("b"));
    }

    #[test]
    fn no_more_are_remembered_than_there_are_places() {
        let mut transfers = Transfers::default();
        for number in 0..100 {
            transfers.wanted(transfer(&number.to_string()));
        }
        assert_eq!(transfers.waiting.len(), MOST_WAITING);
        assert!(transfers.decided("0", Instant::now()) && !transfers.decided("7", Instant::now()));
    }
}
