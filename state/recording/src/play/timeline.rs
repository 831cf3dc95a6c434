//! What to show when.

use std::{fmt, str::FromStr, time::Duration};

use wire::events::{OneOf, one_of::Event};

/// With idle time skipped, no pause is longer than this.
pub const IDLE_GAP: Duration = Duration::from_millis(500);

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// As it happened.
    pub const NORMAL: Self = Self(1.0);

    /// A factor from 0.25 to 16; others are refused.
    pub fn new(factor: f64) -> Option<Self> {
        (0.25..=16.0).contains(&factor).then_some(Self(factor))
    }

    fn scale(self, duration: Duration) -> Duration {
        duration.div_f64(self.0)
    }
}

/// Not a speed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a speed: expected 0.5x, 1x, 2x, 4x or 8x")]
pub struct InvalidSpeed(String);

impl FromStr for Speed {
    type Err = InvalidSpeed;

    /// Reads `0.5x`, `1x`, `2x`, `4x` or `8x`.
    fn from_str(text: &str) -> Result<Self, InvalidSpeed> {
        let invalid = || InvalidSpeed(text.to_owned());
        let factor: f64 = text.strip_suffix('x').ok_or_else(invalid)?.parse().map_err(|_| invalid())?;
        let known = [0.5, 1.0, 2.0, 4.0, 8.0].contains(&factor);
        Self::new(factor).filter(|_| known).ok_or_else(invalid)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

/// How to play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// How fast.
    pub speed: Speed,
    /// Whether pauses are cut to [`IDLE_GAP`].
    pub skip_idle: bool,
    /// Where to begin: everything before is shown at once.
    pub from: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { speed: Speed::NORMAL, skip_idle: false, from: Duration::ZERO }
    }
}

/// Something to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// How long to wait after the frame before.
    pub wait: Duration,
    /// Where in the recording this is.
    pub at: Duration,
    /// What to show.
    pub shown: Shown,
}

/// What a frame shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// Bytes for the terminal.
    Output(Vec<u8>),
    /// The terminal has this size from now on.
    Size {
        /// In columns.
        width: u16,
        /// In rows.
        height: u16,
    },
    /// The session is over.
    End,
}

/// Turns events into frames, one after the other. It neither waits nor shows anything.
///
/// To go back, or to jump ahead quickly, begin anew with another [`Pace::from`]. To pause, do not ask for frames.
#[derive(Clone, Debug)]
pub struct Timeline {
    pace: Pace,
    at: Duration,
}

impl Timeline {
    /// The frames of a recording played at this pace.
    pub fn new(pace: Pace) -> Self {
        Self { pace, at: Duration::ZERO }
    }

    /// Plays on at another speed.
    pub fn set_speed(&mut self, speed: Speed) {
        self.pace.speed = speed;
    }

    /// Where in the recording the last frame was.
    pub fn position(&self) -> Duration {
        self.at
    }

    /// The frame of the next event; `None` when there is nothing to show.
    pub fn frame(&mut self, event: OneOf) -> Option<Frame> {
        let (wait, shown) = match event.event? {
            Event::SessionPrint(print) => {
                let at = Duration::from_millis(u64::try_from(print.delay_milliseconds).unwrap_or(0)).max(self.at);
                (self.advance(at), Shown::Output(print.data))
            }
            Event::SessionStart(start) => (Duration::ZERO, size(&start.terminal_size)?),
            Event::Resize(resize) => (Duration::ZERO, size(&resize.terminal_size)?),
            Event::SessionEnd(_) => (Duration::ZERO, Shown::End),
            _ => return None,
        };
        Some(Frame { wait, at: self.at, shown })
    }

    /// Moves to a moment of the recording and says how long that takes.
    fn advance(&mut self, to: Duration) -> Duration {
        let gap = to.saturating_sub(self.at.max(self.pace.from));
        self.at = to;
        let scaled = self.pace.speed.scale(gap);
        if self.pace.skip_idle { scaled.min(IDLE_GAP) } else { scaled }
    }
}

/// A terminal's size as events write it: `80:24`.
fn size(text: &str) -> Option<Shown> {
    let (width, height) = text.split_once(':')?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (width > 0 && height > 0).then_some(Shown::Size { width, height })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::codes;
    use wire::events::{Resize, SessionEnd, SessionPrint, SessionStart};

    use super::*;

    fn print(at: i64) -> OneOf {
        codes::SESSION_PRINT.event(SessionPrint { delay_milliseconds: at, data: vec![b'x'], ..Default::default() })
    }

    fn waits(pace: Pace, moments: &[i64]) -> Vec<u64> {
        let mut timeline = Timeline::new(pace);
        let wait = |at: &i64| u64::try_from(timeline.frame(print(*at)).unwrap().wait.as_millis()).unwrap();
        moments.iter().map(wait).collect()
    }

    #[test]
    fn pauses_are_scaled_and_cut() {
        let moments = [0, 100, 3100, 3000, 4100];
        let pace = Pace::default();
        assert_eq!(waits(pace, &moments), [0, 100, 3000, 0, 1000]);
        let double = Pace { speed: "2x".parse().unwrap(), ..pace };
        assert_eq!(waits(double, &moments), [0, 50, 1500, 0, 500]);
        assert_eq!(waits(Pace { speed: "0.5x".parse().unwrap(), ..pace }, &[0, 100]), [0, 200]);
        assert_eq!(waits(Pace { skip_idle: true, ..pace }, &moments), [0, 100, 500, 0, 500]);
        assert_eq!(waits(Pace { from: Duration::from_secs(3), ..pace }, &moments), [0, 0, 100, 0, 1000]);
        assert_eq!(waits(pace, &[-5, i64::MIN]), [0, 0]);
    }

    #[test]
    fn speeds_are_the_five_that_players_offer() {
        for text in ["0.5x", "1x", "2x", "4x", "8x"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for text in ["", "x", "3x", "1", "-1x", "nanx", "infx", "1 x", "0x"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
        assert!(Speed::new(0.0).is_none() && Speed::new(f64::NAN).is_none());
    }

    #[test]
    fn the_terminal_follows_the_sizes_of_the_session() {
        let mut timeline = Timeline::new(Pace::default());
        let start = SessionStart { terminal_size: "80:24".into(), ..Default::default() };
        let frame = timeline.frame(codes::SESSION_START.event(start)).unwrap();
        assert_eq!(frame.shown, Shown::Size { width: 80, height: 24 });
        for odd in ["", "80", "80:", "0:0", "-1:5", "99999999:1"] {
            let resize = Resize { terminal_size: odd.into(), ..Default::default() };
            assert!(timeline.frame(codes::RESIZE.event(resize)).is_none(), "{odd}");
        }
        let end = timeline.frame(codes::SESSION_END.event(SessionEnd::default())).unwrap();
        assert_eq!(end.shown, Shown::End);
        assert!(timeline.frame(OneOf::default()).is_none());
    }
}
