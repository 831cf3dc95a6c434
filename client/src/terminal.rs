//! The user's terminal: prompts, raw mode, size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longest answer to a prompt, in bytes.
const LONGEST_ANSWER: usize = 4096;

/// Where questions are asked: the controlling terminal, or the standard streams of a program without one.
#[derive(Debug)]
pub struct Prompter {
    terminal: Option<File>,
}

/// Whether what is typed may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It is shown.
    On,
    /// It is not.
    Off,
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

impl Prompter {
    /// Opens the controlling terminal if there is one.
    pub fn open() -> Self {
        Self { terminal: OpenOptions::new().read(true).write(true).open("/dev/tty").ok() }
    }

    /// Asks a question and reads a line.
    ///
    /// # Errors
    /// `Interrupted` when the user gave up with Ctrl-C, `UnexpectedEof` when there is nobody to answer.
    pub fn ask(&mut self, question: &str, echo: Echo) -> io::Result<Zeroizing<String>> {
        match &mut self.terminal {
            Some(terminal) => ask_terminal(terminal, question, echo),
            None => {
                eprint!("{question}");
                let answer = read_line(&mut io::stdin().lock());
                eprintln!();
                answer
            }
        }
    }
}

/// Asks on a terminal. Signals are off while the answer is typed, so that the terminal is put back in every case.
fn ask_terminal(terminal: &mut File, question: &str, echo: Echo) -> io::Result<Zeroizing<String>> {
    let saved = tcgetattr(terminal.as_fd())?;
    let mut changed = saved.clone();
    changed.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
    changed.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    changed.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    // What was typed before the question is no answer to it.
    tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &changed)?;
    let answer = terminal.write_all(question.as_bytes()).and_then(|()| type_line(terminal, echo));
    let restored = tcsetattr(terminal.as_fd(), SetArg::TCSADRAIN, &saved);
    let _ = terminal.write_all(b"\n"); // the answer counts
    restored?;
    answer
}

/// A line typed key by key.
fn type_line(terminal: &mut (impl Read + Write), echo: Echo) -> io::Result<Zeroizing<String>> {
    let mut typed = Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER));
    let mut key = [0];
    loop {
        if terminal.read(&mut key)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match key[0] {
            b'\r' | b'\n' => break,
            3 | 28 => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            4 if typed.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            4 => {}
            8 | 127 => erase(terminal, &mut typed, 1, echo)?,
            21 => erase(terminal, &mut typed, LONGEST_ANSWER, echo)?,
            byte if typed.len() < LONGEST_ANSWER => {
                typed.push(byte);
                if echo == Echo::On && byte >= b' ' {
                    terminal.write_all(&key)?;
                }
            }
            _ => {}
        }
    }
    into_text(&typed)
}

/// Takes back up to `count` of the bytes typed last.
fn erase(terminal: &mut impl Write, typed: &mut Vec<u8>, count: usize, echo: Echo) -> io::Result<()> {
    let count = count.min(typed.len());
    typed.truncate(typed.len() - count);
    match echo {
        Echo::On => terminal.write_all(&b"\x08 \x08".repeat(count)),
        Echo::Off => Ok(()),
    }
}

fn read_line(input: &mut impl Read) -> io::Result<Zeroizing<String>> {
    let mut typed = Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER));
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            if typed.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            break;
        }
        match byte[0] {
            b'\n' => break,
            byte if typed.len() < LONGEST_ANSWER => typed.push(byte),
            _ => {}
        }
    }
    if typed.last() == Some(&b'\r') {
        typed.pop();
    }
    into_text(&typed)
}

fn into_text(bytes: &[u8]) -> io::Result<Zeroizing<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A terminal that hands over keys as they are pressed; put back when dropped.
#[derive(Debug)]
pub struct RawMode<F: AsFd> {
    terminal: F,
    saved: Termios,
}

impl<F: AsFd> RawMode<F> {
    /// Changes the terminal.
    pub fn enter(terminal: F) -> io::Result<Self> {
        let saved = tcgetattr(terminal.as_fd())?;
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal.as_fd(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self { terminal, saved })
    }
}

impl<F: AsFd> Drop for RawMode<F> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSADRAIN, &self.saved);
    }
}

/// The size of a terminal; `None` when it is none.
pub fn size(terminal: BorrowedFd<'_>) -> Option<Size> {
    let (width, height) = terminal_size::terminal_size_of(terminal)?;
    Some(Size { columns: width.0, rows: height.0 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Keys to be pressed, and what was shown.
    struct Typist(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Typist {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Typist {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn typed(keys: &[u8], echo: Echo) -> (io::Result<String>, Vec<u8>) {
        let mut typist = Typist(io::Cursor::new(keys.to_vec()), Vec::new());
        let answer = type_line(&mut typist, echo).map(|text| text.to_string());
        (answer, typist.1)
    }

    #[test]
    fn a_secret_is_read_without_being_shown() {
        let (answer, shown) = typed(b"abx\x7fc\r", Echo::Off);
        assert_eq!((answer.unwrap(), shown.len()), ("abc".to_owned(), 0));
        assert_eq!(typed(b"wrong\x15right\n", Echo::On).0.unwrap(), "right");
    }

    #[test]
    fn ctrl_c_and_a_closed_terminal_end_the_prompt() {
        assert_eq!(typed(b"ab\x03", Echo::Off).0.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(typed(b"ab", Echo::Off).0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(typed(b"\x04", Echo::Off).0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
