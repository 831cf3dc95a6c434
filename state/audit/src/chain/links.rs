//! The chain of one daily file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use tracing::{error, warn};

use super::{Digest, beginning, digest, step};

/// Bytes of a link: where its line ends in the log (u64, big-endian), the line's digest, the head after it.
const LINK: usize = 8 + 32 + 32;
/// How much of a log is read at a time.
const READ: usize = 1024 * 1024;

/// The chain of a daily file, open for more.
pub(crate) struct Chain {
    file: File,
    /// Lines so far.
    pub lines: u64,
    /// Bytes of the log they take.
    pub bytes: u64,
    /// The head after the last of them.
    pub head: Digest,
    /// Lines `from..to` that were found in the log without having passed through this chain: left by a crash between
    /// the two files, or written by somebody else.
    pub adopted: Option<(u64, u64)>,
}

/// One link as it is read back.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub end: u64,
    pub line: Digest,
    pub head: Digest,
}

impl Link {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (end, rest) = bytes.split_first_chunk::<8>()?;
        let (line, rest) = rest.split_first_chunk::<32>()?;
        Some(Self { end: u64::from_be_bytes(*end), line: *line, head: *rest.first_chunk::<32>()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.end.to_be_bytes());
        out.extend_from_slice(&self.line);
        out.extend_from_slice(&self.head);
    }
}

/// All whole links of a chain; none when there is no such file.
pub(super) fn read_links(path: &Path) -> io::Result<Vec<Link>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes.chunks_exact(LINK).filter_map(Link::read).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Calls `each` with every whole line of a file from `offset` on, without its line feed, and where it ends.
pub(super) fn for_lines(file: &File, mut offset: u64, mut each: impl FnMut(&[u8], u64)) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    let mut kept = Vec::new();
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        let mut start = offset;
        offset += read as u64;
        for piece in buffer.get(..read).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            start += piece.len() as u64;
            match piece.strip_suffix(b"\n") {
                Some(line) if kept.is_empty() => each(line, start),
                Some(line) => {
                    kept.extend_from_slice(line);
                    each(&kept, start);
                    kept.clear();
                }
                None => kept.extend_from_slice(piece),
            }
        }
    }
}

impl Chain {
    /// Opens the chain beside the log at `path` and takes in lines that it does not cover yet.
    pub fn open(path: &Path, log: &File) -> io::Result<Self> {
        let chain_path = path.with_extension("chain");
        let size = log.metadata()?.len();
        let mut chain = Self::at_end(&chain_path, path)?;
        if chain.bytes > size {
            // The evidence is kept; what the checkpoints say about the file no longer holds and will be reported.
            error!(path = %path.display(), size, covered = chain.bytes, "the audit log file is shorter than its chain");
            fs::rename(&chain_path, path.with_extension(format!("{}.chain", uuid::Uuid::new_v4())))?;
            chain = Self::at_end(&chain_path, path)?;
        }
        if chain.bytes < size {
            let (mut links, from) = (Vec::new(), chain.bytes);
            for_lines(log, from, |line, end| chain.add(line, end, &mut links))?;
            let count = (links.len() / LINK) as u64;
            chain.save(&links, chain.lines - count)?;
            chain.adopted = Some((chain.lines - count, chain.lines));
            warn!(path = %path.display(), lines = count, "lines of the audit log were not in its chain");
        }
        Ok(chain)
    }

    /// Goes on after the last link that follows the one before it. Links after that are what a failure of power leaves of
    /// a file that grew: zeros, or parts of links. Making them anew from the lines hides nothing: the heads that come
    /// out are those of the checkpoints, unless the lines were changed.
    fn at_end(chain_path: &Path, path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o640).open(chain_path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut chain = Self { file, lines: 0, bytes: 0, head: beginning(&name), adopted: None };
        let size = chain.file.metadata()?.len();
        let whole = size / LINK as u64;
        for last in (0..whole).rev() {
            let before = match last.checked_sub(1) {
                Some(before) => chain.link(before)?,
                None => Some(Link { end: 0, line: Digest::default(), head: chain.head }),
            };
            if let (Some(link), Some(before)) = (chain.link(last)?, before)
                && link.end > before.end
                && link.head == step(&before.head, &link.line)
            {
                (chain.lines, chain.bytes, chain.head) = (last + 1, link.end, link.head);
                break;
            }
        }
        if chain.lines < whole {
            warn!(path = %chain_path.display(), links = whole - chain.lines, "the end of the chain is not whole: made anew");
        }
        if chain.lines * LINK as u64 != size {
            chain.file.set_len(chain.lines * LINK as u64)?;
        }
        Ok(chain)
    }

    fn link(&self, number: u64) -> io::Result<Option<Link>> {
        let mut bytes = [0; LINK];
        self.file.read_exact_at(&mut bytes, number * LINK as u64)?;
        Ok(Link::read(&bytes))
    }

    /// Takes in whole lines that were appended to the log.
    pub fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let (before, mut links) = (self.lines, Vec::new());
        let mut end = self.bytes;
        for line in text.split_inclusive(|b| *b == b'\n') {
            end += line.len() as u64;
            self.add(line.strip_suffix(b"\n").unwrap_or(line), end, &mut links);
        }
        self.save(&links, before)
    }

    fn add(&mut self, line: &[u8], end: u64, links: &mut Vec<u8>) {
        let line = digest(&[line]);
        self.head = step(&self.head, &line);
        (self.lines, self.bytes) = (self.lines + 1, end);
        Link { end, line, head: self.head }.write(links);
    }

    fn save(&self, links: &[u8], first: u64) -> io::Result<()> {
        self.file.write_all_at(links, first * LINK as u64)
    }
}
