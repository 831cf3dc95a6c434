//! Showing a recording on the user's terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use recording::play::{Pace, Shown, Timeline};
use tokio::time::{Instant, sleep_until};
use wire::events::OneOf;

use super::{Events, Recording, first};
use crate::error::{Error, Result};
use crate::ssh::stdio::Input;
use crate::terminal::RawMode;

/// How far the arrow keys go.
const STEP: Duration = Duration::from_secs(10);
/// Clears a terminal.
const CLEAR: &[u8] = b"\x1b[2J\x1b[3J\x1b[H";

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Pause,
    Back,
    Forward,
    Quit,
}

/// Why showing frames stopped.
enum Stop {
    End,
    Quit,
    /// The user wants to be elsewhere.
    Seek(Duration),
}

/// Plays a recording on standard output. On a terminal, space pauses, the arrow keys go ten seconds back and forth,
/// and Ctrl-C or Ctrl-D end it.
pub async fn play(recording: &Recording, pace: Pace) -> Result<()> {
    let mut events = recording.open().await?;
    let mut pending = first(&mut events).await?;
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let raw = interactive.then(|| RawMode::enter(io::stdin())).transpose();
    let _raw = raw.map_err(Error::io("changing the terminal's mode"))?;
    let mut player = Player {
        keys: interactive.then(Input::stdin),
        terminal: io::stdout().is_terminal(),
        timeline: Timeline::new(pace),
        at: Duration::ZERO,
        paused: false,
    };
    loop {
        match player.show(&mut events, pending.take()).await? {
            Stop::End | Stop::Quit => return Ok(()),
            Stop::Seek(from) => {
                player.write(CLEAR)?;
                player.timeline = Timeline::new(Pace { from, ..pace });
                player.at = from;
                events = recording.open().await?;
            }
        }
    }
}

struct Player {
    /// `None` when nobody is there to press any.
    keys: Option<Input>,
    /// Whether standard output is a terminal, which can follow the size of the recorded one.
    terminal: bool,
    timeline: Timeline,
    /// Where in the recording the last frame was.
    at: Duration,
    paused: bool,
}

impl Player {
    async fn show(&mut self, events: &mut Events, mut pending: Option<OneOf>) -> Result<Stop> {
        let mut shown = Instant::now();
        loop {
            let event = match pending.take() {
                Some(event) => event,
                None => match self.next(events).await? {
                    Ok(Some(event)) => event,
                    Ok(None) => return Ok(Stop::End),
                    Err(stop) => return Ok(stop),
                },
            };
            let Some(frame) = self.timeline.frame(event) else { continue };
            // Of a session that runs, events come when they happen: that time has been waited for.
            if let Some(stop) = self.wait(frame.wait.saturating_sub(shown.elapsed())).await {
                return Ok(stop);
            }
            self.at = frame.at;
            match frame.shown {
                Shown::Output(bytes) => self.write(&bytes)?,
                Shown::Size { width, height } if self.terminal => {
                    self.write(format!("\x1b[8;{height};{width}t").as_bytes())?;
                }
                Shown::Size { .. } => {}
                Shown::End => return Ok(Stop::End),
            }
            shown = Instant::now();
        }
    }

    /// The next event, which may be long in coming; or what the user wants instead.
    async fn next(&mut self, events: &mut Events) -> Result<Result<Option<OneOf>, Stop>> {
        loop {
            let Some(keys) = &mut self.keys else { return events.next().await.map(Ok) };
            let typed = tokio::select! {
                event = events.next() => return event.map(Ok),
                typed = keys.next() => typed,
            };
            if let Some(stop) = self.typed(typed.as_deref()) {
                return Ok(Err(stop));
            }
        }
    }

    /// Waits until a frame is due, as long as the user does not want anything else.
    async fn wait(&mut self, mut left: Duration) -> Option<Stop> {
        while self.paused || !left.is_zero() {
            let Some(keys) = &mut self.keys else {
                tokio::time::sleep(left).await;
                return None;
            };
            let (begin, paused) = (Instant::now(), self.paused);
            let due = async {
                if paused {
                    std::future::pending::<()>().await;
                }
                sleep_until(begin + left).await;
            };
            let typed = tokio::select! {
                () = due => return None,
                typed = keys.next() => typed,
            };
            if !paused {
                left = left.saturating_sub(begin.elapsed());
            }
            if let Some(stop) = self.typed(typed.as_deref()) {
                return Some(stop);
            }
        }
        None
    }

    /// What keys mean; `None` for the end of the input, after which nobody can press any.
    fn typed(&mut self, typed: Option<&[u8]>) -> Option<Stop> {
        let Some(typed) = typed else {
            (self.keys, self.paused) = (None, false);
            return None;
        };
        let key = key(typed)?;
        let was_paused = std::mem::replace(&mut self.paused, false);
        match key {
            Key::Pause => {
                self.paused = !was_paused;
                None
            }
            Key::Back => Some(Stop::Seek(self.at.saturating_sub(STEP))),
            Key::Forward => Some(Stop::Seek(self.at + STEP)),
            Key::Quit => Some(Stop::Quit),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::io("writing to standard output"))
    }
}

/// The last of the keys in what was typed that means something.
fn key(typed: &[u8]) -> Option<Key> {
    if typed.iter().any(|byte| matches!(byte, 3 | 4 | b'q')) {
        return Some(Key::Quit);
    }
    match typed {
        [.., b'\x1b', b'[' | b'O', b'D' | b'B'] => Some(Key::Back),
        [.., b'\x1b', b'[' | b'O', b'C' | b'A'] => Some(Key::Forward),
        [.., b' '] => Some(Key::Pause),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_recognised() {
        assert_eq!(key(b" "), Some(Key::Pause));
        assert_eq!(key(b"\x1b[D"), Some(Key::Back));
        assert_eq!(key(b"\x1bOC"), Some(Key::Forward));
        assert_eq!(key(b"\x03"), Some(Key::Quit));
        assert_eq!(key(b"x"), None);
    }
}
