//! The progress of copies, on a terminal.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use client::text;

/// Time between two looks of a line.
const REFRESH: Duration = Duration::from_millis(100);
/// Columns for numbers behind a name.
const NUMBERS: usize = 38;
/// Columns of a terminal that does not tell.
const WIDTH: usize = 80;

/// One line for each file, redrawn while it is copied.
pub struct Progress(Option<RefCell<State>>);

struct State {
    files: Vec<File>,
    drawn: Instant,
    /// Whether a line stands there that is not complete.
    open: bool,
}

struct File {
    key: std::path::PathBuf,
    label: String,
    size: u64,
    /// What was there before.
    there: u64,
    done: u64,
    begun: Instant,
}

impl Progress {
    /// Shows nothing if it is to be quiet, or nobody would see it.
    pub fn new(quiet: bool) -> Self {
        let shown = !quiet && io::stdout().is_terminal();
        let state = || RefCell::new(State { files: Vec::new(), drawn: Instant::now(), open: false });
        Self(shown.then(state))
    }

    /// A file begins.
    pub fn begin(&self, host: Option<&str>, name: &Path, size: u64, there: u64) {
        let Some(state) = &self.0 else { return };
        let shown = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy();
        let host = host.map(|host| format!("[{host}] ")).unwrap_or_default();
        let label = text::line(&format!("{host}{shown}")).into_owned();
        let file = File { key: name.to_owned(), label, size, there, done: there, begun: Instant::now() };
        state.borrow_mut().files.push(file);
    }

    /// Bytes have arrived.
    pub fn advance(&self, name: &Path, bytes: u64) {
        let Some(state) = &self.0 else { return };
        let mut state = state.borrow_mut();
        if let Some(file) = state.files.iter_mut().find(|file| file.key == name) {
            file.done += bytes;
        }
        if state.drawn.elapsed() >= REFRESH {
            state.draw();
        }
    }

    /// A file is complete.
    pub fn end(&self, name: &Path) {
        let Some(state) = &self.0 else { return };
        let mut state = state.borrow_mut();
        if let Some(index) = state.files.iter().position(|file| file.key == name) {
            let file = state.files.remove(index);
            state.write(&format!("\r\x1b[K{}\n", line(&file, width())));
            state.open = false;
        }
    }

    /// A file does not arrive.
    pub fn fail(&self, name: &Path) {
        self.clear();
        if let Some(state) = &self.0 {
            state.borrow_mut().files.retain(|file| file.key != name);
        }
    }

    /// Makes room for something else.
    pub fn clear(&self) {
        let Some(state) = &self.0 else { return };
        let mut state = state.borrow_mut();
        if std::mem::take(&mut state.open) {
            state.write("\r\x1b[K");
        }
    }

    /// Nothing more comes.
    pub fn finish(&self) {
        self.clear();
    }
}

impl State {
    /// Shows the file that has been under way the longest.
    fn draw(&mut self) {
        self.drawn = Instant::now();
        let Some(file) = self.files.first() else { return };
        let more = match self.files.len() {
            1 => String::new(),
            n => format!(" (+{})", n - 1),
        };
        let width = width().saturating_sub(more.len());
        let shown = format!("\r\x1b[K{}{more}", line(file, width));
        self.open = true;
        self.write(&shown);
    }

    fn write(&self, shown: &str) {
        let mut out = io::stdout().lock();
        // Whoever does not look any more misses nothing.
        let _ = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
    }
}

fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(WIDTH, |(width, _)| usize::from(width.0))
}

/// `name   42%   12.3 MiB    4.5 MiB/s  00:07`: the time is what is left, or in the end what it took.
fn line(file: &File, width: usize) -> String {
    let seconds = file.begun.elapsed().as_secs_f64().max(0.001);
    let rate = (file.done - file.there) as f64 / seconds;
    let percent = (file.done * 100).checked_div(file.size).unwrap_or(100).min(100);
    let time = if file.done >= file.size {
        clock(seconds)
    } else if rate >= 1.0 {
        clock((file.size - file.done) as f64 / rate)
    } else {
        "--:--".to_owned()
    };
    let room = width.saturating_sub(NUMBERS + 1).max(8);
    let label: String = if file.label.chars().count() > room {
        file.label.chars().take(room - 1).chain(['\u{2026}']).collect()
    } else {
        file.label.clone()
    };
    let numbers = format!("{percent:>4}% {:>10} {:>12} {time:>8}", amount(file.done as f64), amount(rate) + "/s");
    format!("{label:room$}{numbers}")
}

fn amount(bytes: f64) -> String {
    let mut amount = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{amount:.0} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    if seconds < 3600 {
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    } else {
        format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (bytes, shown) in [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (5e12, "4.5 TiB")] {
            assert_eq!(amount(bytes), shown);
        }
        assert_eq!((clock(7.9), clock(3725.0)), ("00:07".to_owned(), "1:02:05".to_owned()));
    }

    #[test]
    fn a_line_fits_the_terminal() {
        let label = "a-rather-long-name-of-a-file-that-nobody-would-want.tar.gz".to_owned();
        let file = File { key: "x".into(), label, size: 10, there: 0, done: 5, begun: Instant::now() };
        let line = line(&file, 60);
        assert!(line.chars().count() <= 60 && line.contains("50%"), "{line:?}");
    }
}
