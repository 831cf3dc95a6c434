//! Finding text in what a terminal showed.

use std::time::Duration;

use regex::Regex;
use wire::events::OneOf;
use wire::events::one_of::Event;

/// The longest line that is looked at; what follows is another line.
const LONGEST_LINE: usize = 4096;

/// Looks for a pattern in the lines of a recording, as they were shown: without control sequences.
pub struct Finder<'a> {
    pattern: &'a Regex,
    line: Vec<u8>,
    /// When the line began, after the first output.
    began: Duration,
    state: State,
}

/// A line with the pattern in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// When it began, after the first output.
    pub at: Duration,
    /// Its text.
    pub line: String,
}

/// Where in a control sequence (ECMA-48) the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    /// Parameters of a control sequence, until a letter.
    Control,
    /// A string for the terminal, such as a title, until its end.
    Command,
    /// After the escape that may end such a string.
    CommandEscape,
}

impl<'a> Finder<'a> {
    /// Looks for `pattern`.
    pub fn new(pattern: &'a Regex) -> Self {
        Self { pattern, line: Vec::new(), began: Duration::ZERO, state: State::Text }
    }

    /// Takes an event; the hits in the lines that it ends.
    pub fn event(&mut self, event: &OneOf) -> Vec<Hit> {
        let Some(Event::SessionPrint(print)) = &event.event else { return Vec::new() };
        let now = Duration::from_millis(u64::try_from(print.delay_milliseconds).unwrap_or_default());
        let mut hits = Vec::new();
        for &byte in &print.data {
            if self.line.is_empty() {
                self.began = now;
            }
            self.take(byte, &mut hits);
        }
        hits
    }

    /// The hit in what follows the last line's end.
    pub fn finish(mut self) -> Option<Hit> {
        let mut hits = Vec::new();
        self.end_line(&mut hits);
        hits.pop()
    }

    fn take(&mut self, byte: u8, hits: &mut Vec<Hit>) {
        self.state = match (self.state, byte) {
            (State::Text | State::Control, 0x1b) => State::Escape,
            (State::Text, b'\n') => {
                self.end_line(hits);
                State::Text
            }
            (State::Text, 0x08) => {
                self.line.pop();
                State::Text
            }
            (State::Text, 0x00..=0x1f | 0x7f) if byte != b'\t' => State::Text,
            (State::Text, _) => {
                self.line.push(byte);
                if self.line.len() >= LONGEST_LINE {
                    self.end_line(hits);
                }
                State::Text
            }
            (State::Escape, b'[') => State::Control,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Command,
            (State::Escape, _) => State::Text,
            (State::Control, 0x40..=0x7e) => State::Text,
            (State::Control, _) => State::Control,
            (State::Command, 0x07) | (State::CommandEscape, b'\\') => State::Text,
            (State::Command | State::CommandEscape, 0x1b) => State::CommandEscape,
            (State::Command | State::CommandEscape, _) => State::Command,
        };
    }

    fn end_line(&mut self, hits: &mut Vec<Hit>) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if self.pattern.is_match(&line) {
            hits.push(Hit { at: self.began, line });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::codes;
    use wire::events::SessionPrint;

    use super::*;

    fn print(delay: i64, data: &[u8]) -> OneOf {
        codes::SESSION_PRINT.event(SessionPrint {
            data: data.to_vec(),
            delay_milliseconds: delay,
            ..Default::default()
        })
    }

    #[test]
    fn text_is_found_as_it_was_shown_and_when() {
        let pattern = Regex::new("(?i)rm -rf").unwrap();
        let mut finder = Finder::new(&pattern);
        let mut hits = Vec::new();
        for event in [
            print(0, b"$ ls\r\nfile\r\n"),
            print(1000, b"$ \x1b[1mrm\x1b[0m -x"),
            print(2000, b"\x08r"),
            print(2500, b"f /srv\r\n\x1b]0;rm -rf title\x07"),
            print(3000, b"$ RM -RF"),
        ] {
            hits.extend(finder.event(&event));
        }
        hits.extend(finder.finish());
        let found: Vec<_> = hits.iter().map(|hit| (hit.at.as_millis(), hit.line.as_str())).collect();
        assert_eq!(found, [(1000, "$ rm -rf /srv"), (3000, "$ RM -RF")]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_than_its_share() {
        let pattern = Regex::new("x").unwrap();
        let mut finder = Finder::new(&pattern);
        let hits = finder.event(&print(0, &vec![b'x'; 3 * LONGEST_LINE + 1]));
        assert_eq!(hits.len(), 3);
        assert_eq!(finder.finish().unwrap().line, "x");
    }
}
