//! Reads recordings from strangers.

use std::io::{self, BufRead, Cursor, ErrorKind, Read, Take};

use audit::EventExt;
use aws_lc_rs::digest;
use flate2::bufread::GzDecoder;
use wire::events::OneOf;

use crate::{
    FormatError, Seal,
    format::{HEADER_BYTES, MAX_MESSAGE_BYTES, PartHeader, PartKind, decode_event},
    seal::{End, MAX_SEALED_BYTES},
};

/// Reads the events of a recording, in order and each once: after a resumed upload some are there twice.
///
/// Memory is bounded by one message, whatever the bytes say. After an error the reader yields nothing more. At a clean
/// end it yields `None`, and goes on should the source have grown by then.
pub struct StreamReader<R: BufRead> {
    state: State<R>,
    /// Number of the part being read, or of the last one read.
    part: u64,
    last_index: i64,
    /// Bytes of whole parts read.
    whole: u64,
    message: Vec<u8>,
    seal: Option<Seal>,
    ending: Ending,
}

/// What is known about the end of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It may stop anywhere.
    Open,
    /// It has its end if parts of it are sealed: none was so far.
    Complete,
    /// A part was sealed, so the end must come.
    Due,
    /// The end has come.
    Over,
}

enum State<R: BufRead> {
    /// Between two parts.
    Between(Tallied<R>),
    /// Inside a body.
    Body { body: Box<Body<R>>, header: PartHeader },
    /// After an error.
    Failed,
}

/// Compressed records.
enum Body<R: BufRead> {
    /// As they are in the source.
    Plain(GzDecoder<Take<Tallied<R>>>),
    /// Out of a sealed body, which has been read.
    Opened { records: GzDecoder<Cursor<Vec<u8>>>, source: Tallied<R> },
}

/// A source, and the digest of what was read from it where that matters.
struct Tallied<R> {
    source: R,
    digest: Option<digest::Context>,
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..count]);
        }
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Tallied<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is consumed was asked for before, so it is there without reading.
        if let Some(digest) = &mut self.digest
            && let Ok(bytes) = self.source.fill_buf()
        {
            digest.update(bytes.get(..count).unwrap_or_default());
        }
        self.source.consume(count);
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(records) => records.read(buffer),
            Self::Opened { records, .. } => records.read(buffer),
        }
    }
}

impl<R: BufRead> StreamReader<R> {
    /// Reads from `source`, which must not be sealed.
    pub fn new(source: R) -> Self {
        let state = State::Between(Tallied { source, digest: None });
        let (message, ending) = (Vec::new(), Ending::Open);
        Self { state, part: 0, last_index: -1, whole: 0, message, seal: None, ending }
    }

    /// Reads from `source`, parts of which may be sealed.
    pub fn sealed(source: R, seal: Seal) -> Self {
        Self { seal: Some(seal), ..Self::new(source) }
    }

    /// Reads a complete recording, parts of which may be sealed: it is an error when its end is missing then.
    pub fn complete(source: R, seal: Seal) -> Self {
        let digest = Some(digest::Context::new(&digest::SHA256));
        let mut reader = Self::sealed(source, seal);
        if let State::Between(source) = &mut reader.state {
            source.digest = digest;
        }
        reader.ending = Ending::Complete;
        reader
    }

    /// The next event; `None` at the end of the recording.
    ///
    /// # Errors
    ///
    /// [`FormatError`]; all events before it have been returned.
    pub fn next_event(&mut self) -> Result<Option<OneOf>, FormatError> {
        loop {
            let event = match &mut self.state {
                State::Failed => return Ok(None),
                State::Between(_) => match self.open_part() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(None),
                    Err(e) => return self.fail(e),
                },
                State::Body { body, .. } => match read_record(body, &mut self.message, self.part) {
                    Ok(Some(event)) => event,
                    Ok(None) => match self.close_part() {
                        Ok(()) => continue,
                        Err(e) => return self.fail(e),
                    },
                    Err(e) => return self.fail(e),
                },
            };
            if event.index() > self.last_index {
                self.last_index = event.index();
                return Ok(Some(event));
            }
        }
    }

    /// How many bytes of the source belong to parts that have been read to their end.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    fn fail<T>(&mut self, error: FormatError) -> Result<T, FormatError> {
        self.state = State::Failed;
        Err(error)
    }

    /// Reads a header; false at the end of the source.
    fn open_part(&mut self) -> Result<bool, FormatError> {
        let State::Between(source) = &mut self.state else { return Ok(false) };
        let before = source.digest.clone();
        let mut bytes = [0; HEADER_BYTES];
        match read_full(source, &mut bytes).map_err(FormatError::Read)? {
            0 if self.ending == Ending::Due => return Err(FormatError::NoEnd { part: self.part }),
            0 => return Ok(false),
            HEADER_BYTES => {}
            _ => return Err(FormatError::Truncated { part: self.part + 1 }),
        }
        self.part += 1;
        let header = PartHeader::from_bytes(&bytes)?;
        if self.ending == Ending::Over {
            return Err(FormatError::Corrupt { part: self.part, what: "it comes after the end".into() });
        }
        if let State::Between(mut source) = std::mem::replace(&mut self.state, State::Failed) {
            let body = match header.kind {
                PartKind::Plain => Body::Plain(GzDecoder::new(source.take(header.body))),
                PartKind::Sealed => {
                    let opened = self.open_body(&mut source, &bytes, header.body)?;
                    if self.ending == Ending::Complete {
                        self.ending = Ending::Due;
                    }
                    Body::Opened { records: GzDecoder::new(Cursor::new(opened)), source }
                }
                PartKind::End => {
                    let opened = self.open_body(&mut source, &bytes, header.body)?;
                    self.check_end(&opened, before)?;
                    let whole = skip(&mut source, header.padding).map_err(FormatError::Read)?;
                    if !whole {
                        return Err(FormatError::Truncated { part: self.part });
                    }
                    self.whole = self.whole.saturating_add(header.length());
                    self.state = State::Between(source);
                    return Ok(true);
                }
            };
            self.state = State::Body { body: Box::new(body), header };
        }
        Ok(true)
    }

    /// Compares what the end says with what was read.
    fn check_end(&mut self, said: &[u8], read: Option<digest::Context>) -> Result<(), FormatError> {
        self.ending = Ending::Over;
        let same = read.is_none_or(|read| End::after(self.whole, read).to_bytes() == said);
        let wrong = || FormatError::Corrupt {
            part: self.part,
            what: "the parts before it are not those that were written".into(),
        };
        same.then_some(()).ok_or_else(wrong)
    }

    /// Reads a sealed body and opens it.
    fn open_body(
        &self,
        source: &mut Tallied<R>,
        header: &[u8; HEADER_BYTES],
        length: u64,
    ) -> Result<Vec<u8>, FormatError> {
        let part = self.part;
        let seal = self.seal.as_ref().ok_or(FormatError::Sealed { part })?;
        if length > MAX_SEALED_BYTES {
            let what = format!("a sealed body of {length} bytes: expected at most {MAX_SEALED_BYTES}");
            return Err(FormatError::Corrupt { part, what });
        }
        let mut body = Vec::new();
        source.by_ref().take(length).read_to_end(&mut body).map_err(FormatError::Read)?;
        if (body.len() as u64) < length {
            return Err(FormatError::Truncated { part });
        }
        seal.open(header, &body, part)
    }

    /// Passes over what follows the compressed records.
    fn close_part(&mut self) -> Result<(), FormatError> {
        if let State::Body { body, header } = std::mem::replace(&mut self.state, State::Failed) {
            let mut source = match *body {
                Body::Opened { source, .. } => source,
                Body::Plain(records) => {
                    let mut rest = records.into_inner();
                    let left = rest.limit();
                    match skip(&mut rest, left) {
                        Ok(true) => rest.into_inner(),
                        Ok(false) => return Err(FormatError::Truncated { part: self.part }),
                        Err(e) => return Err(FormatError::Read(e)),
                    }
                }
            };
            if !skip(&mut source, header.padding).map_err(FormatError::Read)? {
                return Err(FormatError::Truncated { part: self.part });
            }
            self.whole = self.whole.saturating_add(header.length());
            self.state = State::Between(source);
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for StreamReader<R> {
    type Item = Result<OneOf, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

/// One record of a body; `None` at its end.
fn read_record<R: Read>(body: &mut R, message: &mut Vec<u8>, part: u64) -> Result<Option<OneOf>, FormatError> {
    let broken = |e: io::Error| match e.kind() {
        ErrorKind::UnexpectedEof => FormatError::Truncated { part },
        ErrorKind::InvalidData | ErrorKind::InvalidInput => FormatError::Corrupt { part, what: e.to_string() },
        _ => FormatError::Read(e),
    };
    let mut length = [0; 4];
    match read_full(body, &mut length).map_err(broken)? {
        0 => return Ok(None),
        4 => {}
        _ => return Err(FormatError::Truncated { part }),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_MESSAGE_BYTES {
        let what = format!("a message of {length} bytes: expected 1 to {MAX_MESSAGE_BYTES}");
        return Err(FormatError::Corrupt { part, what });
    }
    message.resize(length, 0);
    if read_full(body, message).map_err(broken)? < length {
        return Err(FormatError::Truncated { part });
    }
    decode_event(message).map(Some).map_err(|what| FormatError::Corrupt { part, what })
}

/// Fills the buffer as far as the source reaches; returns how far.
fn read_full<R: Read>(source: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Passes over `count` bytes; false when the source ends before.
fn skip<R: BufRead>(source: &mut R, count: u64) -> io::Result<bool> {
    let skipped = io::copy(&mut source.by_ref().take(count), &mut io::sink())?;
    Ok(skipped == count)
}

#[cfg(test)]
mod tests;
