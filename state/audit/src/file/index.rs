//! Which stretch of a log file holds which moments: a few bytes of memory for every 64 KiB of log.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    ops::Range,
    os::unix::fs::FileExt,
};

use chrono::DateTime;
use serde::Deserialize;

/// Moments as nanoseconds since 1970.
pub(super) type Moment = i64;

/// What is known about one file. It grows with the file.
#[derive(Default)]
pub(super) struct FileIndex {
    /// Stretches of whole lines, in the order of the file.
    pub blocks: Vec<Block>,
    /// How much of the file is covered.
    covered: u64,
}

/// A stretch of whole lines.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Where it lies in the file.
    pub range: Range<u64>,
    /// The earliest moment in it.
    pub first: Moment,
    /// The latest moment in it.
    pub last: Moment,
    /// A bit for each event name in it, by [`kind_bit`].
    pub kinds: u64,
}

/// A block is closed once it has this many bytes.
const BLOCK: u64 = 64 * 1024;
/// How much of a file is read at a time.
const READ: usize = 1024 * 1024;

impl FileIndex {
    /// Takes in what was appended to the file since the last call.
    pub fn refresh(&mut self, file: &File) -> io::Result<()> {
        let size = file.metadata()?.len();
        if size < self.covered {
            *self = Self::default();
        }
        let mut buffer = Vec::new();
        while self.covered < size {
            let missing = usize::try_from(size - self.covered).unwrap_or(READ);
            buffer.resize(missing.min(READ), 0);
            file.read_exact_at(&mut buffer, self.covered)?;
            let whole = match buffer.iter().rposition(|b| *b == b'\n') {
                Some(at) => at + 1,
                // Longer than any line of ours: passed over, so that the rest is found.
                None if buffer.len() == READ => READ,
                None => break,
            };
            for line in buffer[..whole].split_inclusive(|b| *b == b'\n') {
                self.add(line);
            }
        }
        Ok(())
    }

    fn add(&mut self, line: &[u8]) {
        let start = self.covered;
        self.covered += line.len() as u64;
        let Some(head) = Head::of(line) else { return };
        let bit = kind_bit(head.event);
        match self.blocks.last_mut() {
            Some(block) if block.range.end - block.range.start < BLOCK => {
                block.range.end = self.covered;
                block.first = block.first.min(head.time);
                block.last = block.last.max(head.time);
                block.kinds |= bit;
            }
            _ => {
                let range = start..self.covered;
                self.blocks.push(Block { range, first: head.time, last: head.time, kinds: bit });
            }
        }
    }
}

/// The bit that stands for an event name in [`Block::kinds`]; several names may share one.
pub(super) fn kind_bit(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    1 << (hasher.finish() % 64)
}

/// The two fields of a line that decide whether it is worth reading.
pub(super) struct Head<'a> {
    /// When it happened.
    pub time: Moment,
    /// What happened.
    pub event: &'a str,
}

impl<'a> Head<'a> {
    /// Finds the fields in a line; `None` when it is not an event.
    pub fn of(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        // Metadata stands first in a line, so the first field of a name is the event's own.
        match (field(line, "\"time\""), field(line, "\"event\"")) {
            (Some(time), Some(event)) => Some(Self { time: moment(time)?, event }),
            _ => {
                #[derive(Deserialize)]
                struct Fields<'a> {
                    time: &'a str,
                    event: &'a str,
                }
                let fields: Fields<'_> = serde_json::from_str(line).ok()?;
                Some(Self { time: moment(fields.time)?, event: fields.event })
            }
        }
    }
}

/// The text after the first `name` that is followed by a colon. An escaped quote inside other texts cannot be
/// mistaken for the one that begins `name`, because a backslash follows the word there.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = line;
    loop {
        rest = rest.get(rest.find(name)? + name.len()..)?;
        let Some(value) = rest.trim_start().strip_prefix(':') else { continue };
        let value = value.trim_start().strip_prefix('"')?;
        return value.split('"').next();
    }
}

fn moment(text: &str) -> Option<Moment> {
    DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    #[test]
    fn lines_of_other_writers_are_understood() {
        for line in [
            r#"{"ei":0,"event":"exec","time":"1970-01-01T00:00:01Z","x":"\"time\":\"no\""}"#,
            r#"{"event": "exec", "time" : "1970-01-01T00:00:01Z"}"#,
            r#"{"a":"time","b":"\"event\":\"x\"","time":"1970-01-01T00:00:01Z","event":"exec"}"#,
        ] {
            let head = Head::of(line.as_bytes()).unwrap();
            assert_eq!((head.time, head.event), (1_000_000_000, "exec"), "{line}");
        }
        for line in ["", "{}", "nonsense", r#"{"event":"exec","time":"soon"}"#, r#"{"event":1,"time":2}"#] {
            assert!(Head::of(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn an_index_follows_its_file() {
        let mut file = tempfile::tempfile().unwrap();
        let mut index = FileIndex::default();
        for second in 0..3000 {
            let time = DateTime::from_timestamp(second, 0).unwrap().to_rfc3339();
            writeln!(file, r#"{{"event":"exec","time":"{time}"}}"#).unwrap();
            if second % 700 == 0 {
                index.refresh(&file).unwrap();
            }
        }
        write!(file, "{{\"event\":\"half").unwrap();
        index.refresh(&file).unwrap();
        assert!(index.blocks.len() > 1);
        assert_eq!(index.blocks[0].first, 0);
        assert_eq!(index.blocks.last().unwrap().last, 2_999_000_000_000);
        for pair in index.blocks.windows(2) {
            assert_eq!(pair[0].range.end, pair[1].range.start);
        }
        file.set_len(0).unwrap();
        index.refresh(&file).unwrap();
        assert!(index.blocks.is_empty());
    }
}
