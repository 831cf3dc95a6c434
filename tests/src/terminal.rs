//! A program at a terminal, and somebody who reads and types.

use std::io::{Read, Write};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use regex::Regex;

use crate::command::end_of;
use crate::waiting::{try_for, wait_for};

/// How long the person waits for what they expect to see.
const PATIENCE: Duration = Duration::from_secs(45);

/// What has come to the screen.
#[derive(Default)]
struct Screen {
    bytes: Vec<u8>,
    closed: bool,
}

/// A program running at a terminal of 24 rows and 80 columns.
pub struct Terminal {
    keyboard: Arc<Pty>,
    screen: Arc<Mutex<Screen>>,
    child: Child,
    /// Bytes of the screen that `expect` has gone past.
    seen: usize,
}

impl Terminal {
    /// Starts a program at a new terminal.
    #[track_caller]
    pub fn start(program: &std::path::Path, arguments: &[String], environment: &[(String, String)]) -> Self {
        let (pty, side) = open().expect("open a terminal");
        pty.resize(Size::new(24, 80)).expect("size a terminal");
        let command = Command::new(program).args(arguments).env_clear();
        let command = command.envs(environment.iter().map(|(name, value)| (name, value)));
        let child = command.spawn(side).unwrap_or_else(|e| panic!("start {}: {e}", program.display()));
        let (keyboard, screen) = (Arc::new(pty), Arc::new(Mutex::new(Screen::default())));
        let (source, sink) = (Arc::clone(&keyboard), Arc::clone(&screen));
        thread::spawn(move || read_all(&source, &sink));
        Self { keyboard, screen, child, seen: 0 }
    }

    /// Types a line and Enter.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        (&*self.keyboard).write_all(format!("{line}\r").as_bytes()).expect("type at a terminal");
    }

    /// Presses keys, and no Enter.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        (&*self.keyboard).write_all(keys.as_bytes()).expect("type at a terminal");
    }

    /// Waits for new text that matches; gives the first group of the pattern, or the whole match.
    #[track_caller]
    pub fn expect(&mut self, pattern: &str) -> String {
        let found = self.expect_any(&[pattern]);
        found.unwrap_or_else(|| panic!("the program ended without {pattern:?}: {}", self.text())).1
    }

    /// Waits for new text that matches one of the patterns and says which, with the text; nothing when the
    /// program closed the terminal instead.
    #[track_caller]
    pub fn expect_any(&mut self, patterns: &[&str]) -> Option<(usize, String)> {
        let patterns: Vec<_> = patterns.iter().map(|p| Regex::new(p).expect("a pattern")).collect();
        let found = try_for(PATIENCE, || {
            let (text, closed) = self.new_text();
            let earliest = patterns.iter().enumerate().filter_map(|(i, p)| Some((i, p.captures(&text)?)));
            match earliest.min_by_key(|(_, found)| found.get(0).map(|m| m.start())) {
                Some((i, found)) => {
                    let end = found.get(0).map_or(0, |m| m.end());
                    let wanted = found.get(1).or(found.get(0)).map_or("", |m| m.as_str());
                    Ok(Some((i, end, wanted.to_owned())))
                }
                None if closed => Ok(None),
                None => Err(()),
            }
        });
        let found = found.unwrap_or_else(|()| panic!("waited {PATIENCE:?} for {patterns:?} in: {}", self.text()))?;
        self.seen += found.1;
        Some((found.0, found.2))
    }

    /// Waits until the program ends; its exit code and all it showed.
    #[track_caller]
    pub fn finish(mut self) -> (i32, String) {
        let code = end_of(&mut self.child, PATIENCE);
        let code = code.unwrap_or_else(|| panic!("still running after {PATIENCE:?}: {}", self.text()));
        wait_for("the terminal to close", PATIENCE, || if self.new_text().1 { Ok(()) } else { Err("open") });
        (code, self.text())
    }

    /// All it has shown.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner).bytes).into_owned()
    }

    /// What was shown since the last match (bytes outside UTF-8 as `?`, to keep places), and whether it is over.
    fn new_text(&self) -> (String, bool) {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let text = screen.bytes[self.seen..].iter().map(|&b| if b.is_ascii() { char::from(b) } else { '?' });
        (text.collect(), screen.closed)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read_all(mut source: &Pty, sink: &Mutex<Screen>) {
    let mut buffer = [0; 4096];
    loop {
        // A terminal whose program has gone answers with an error rather than with an end.
        let read = source.read(&mut buffer).unwrap_or(0);
        let mut screen = sink.lock().unwrap_or_else(PoisonError::into_inner);
        if read == 0 {
            screen.closed = true;
            return;
        }
        screen.bytes.extend_from_slice(&buffer[..read]);
    }
}
