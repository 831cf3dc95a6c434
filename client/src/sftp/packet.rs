//! Messages of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02), as a client reads and writes
//! them. Names are bytes, as files have them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version that is spoken.
pub(super) const VERSION: u32 = 3;

/// Numbers of messages.
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// Ways to open a file.
pub mod open {
    /// For reading.
    pub const READ: u32 = 1;
    /// For writing.
    pub const WRITE: u32 = 2;
    /// Made if it is not there.
    pub const CREATE: u32 = 8;
    /// Emptied.
    pub const TRUNCATE: u32 = 0x10;
}

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_MODE: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_EXTENSIONS: u32 = 0x8000_0000;

/// The part of a mode that says what a file is, and what folders and regular files have there.
const TYPE_MASK: u32 = 0o170_000;
const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_REGULAR: u32 = 0o100_000;

/// What is known about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Size in bytes.
    pub size: Option<u64>,
    /// Type and permissions, as Unix has them.
    pub mode: Option<u32>,
    /// Times of the last access and the last change, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Attributes {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.mode.is_some_and(|mode| mode & TYPE_MASK == TYPE_FOLDER)
    }

    /// Whether it is a regular file. Servers that do not tell have nothing else.
    pub fn is_regular(&self) -> bool {
        self.mode.is_none_or(|mode| matches!(mode & TYPE_MASK, TYPE_REGULAR | 0))
    }

    fn read(input: &mut Bytes) -> Option<Self> {
        let flags = input.try_get_u32().ok()?;
        let size = if flags & HAS_SIZE == 0 { None } else { Some(input.try_get_u64().ok()?) };
        if flags & HAS_OWNER != 0 {
            input.try_get_u64().ok()?; // user and group: numbers of another machine
        }
        let mode = if flags & HAS_MODE == 0 { None } else { Some(input.try_get_u32().ok()?) };
        let times =
            if flags & HAS_TIMES == 0 { None } else { Some((input.try_get_u32().ok()?, input.try_get_u32().ok()?)) };
        if flags & HAS_EXTENSIONS != 0 {
            for _ in 0..input.try_get_u32().ok()? {
                take_string(input)?;
                take_string(input)?;
            }
        }
        Some(Self { size, mode, times })
    }

    fn write(&self, output: &mut BytesMut) {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        output.put_u32(
            flag(self.size.is_some(), HAS_SIZE)
                | flag(self.mode.is_some(), HAS_MODE)
                | flag(self.times.is_some(), HAS_TIMES),
        );
        if let Some(size) = self.size {
            output.put_u64(size);
        }
        if let Some(mode) = self.mode {
            output.put_u32(mode);
        }
        if let Some((accessed, changed)) = self.times {
            output.put_u32(accessed);
            output.put_u32(changed);
        }
    }
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: Bytes,
    pub attributes: Attributes,
}

/// What a server answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status { code: u32, message: String },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Entry>),
    Attributes(Attributes),
    Extended(Bytes),
}

impl Answer {
    /// Reads a message after its length; also returns which request it is for.
    pub fn read(mut input: Bytes) -> Option<(u32, Self)> {
        let kind = input.try_get_u8().ok()?;
        let id = input.try_get_u32().ok()?;
        let answer = match kind {
            kind::STATUS => {
                let code = input.try_get_u32().ok()?;
                // Old servers leave the text out.
                let message = take_string(&mut input).unwrap_or_default();
                Self::Status { code, message: String::from_utf8_lossy(&message).into_owned() }
            }
            kind::HANDLE => Self::Handle(take_string(&mut input)?),
            kind::DATA => Self::Data(take_string(&mut input)?),
            kind::NAME => Self::Names(names(&mut input)?),
            kind::ATTRS => Self::Attributes(Attributes::read(&mut input)?),
            kind::EXTENDED_REPLY => Self::Extended(input),
            _ => return None,
        };
        Some((id, answer))
    }
}

fn names(input: &mut Bytes) -> Option<Vec<Entry>> {
    let count = input.try_get_u32().ok()?;
    // No capacity is taken from the other side: each entry has to be there.
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = take_string(input)?;
        take_string(input)?; // the same for people
        entries.push(Entry { name, attributes: Attributes::read(input)? });
    }
    Some(entries)
}

/// The version that a server speaks, and the names of its extensions.
pub(super) fn version(mut input: Bytes) -> Option<(u32, Vec<Bytes>)> {
    if input.try_get_u8().ok()? != kind::VERSION {
        return None;
    }
    let version = input.try_get_u32().ok()?;
    let mut extensions = Vec::new();
    while input.has_remaining() {
        extensions.push(take_string(&mut input)?);
        take_string(&mut input)?;
    }
    Some((version, extensions))
}

/// Takes an SSH string off the front.
fn take_string(input: &mut Bytes) -> Option<Bytes> {
    let length = input.try_get_u32().ok()? as usize;
    (length <= input.len()).then(|| input.split_to(length))
}

/// A request to be written.
pub(super) struct Request(BytesMut);

impl Request {
    /// A request of a kind. Its number is filled in when it is sent.
    pub fn new(kind: u8, size: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(size + 64);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(0);
        Self(bytes)
    }

    /// The first message of a client.
    pub fn init() -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32(5);
        bytes.put_u8(kind::INIT);
        bytes.put_u32(VERSION);
        bytes.freeze()
    }

    pub fn string(mut self, string: &[u8]) -> Self {
        self.0.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
        self.0.put_slice(string);
        self
    }

    pub fn u32(mut self, number: u32) -> Self {
        self.0.put_u32(number);
        self
    }

    pub fn u64(mut self, number: u64) -> Self {
        self.0.put_u64(number);
        self
    }

    pub fn attributes(mut self, attributes: &Attributes) -> Self {
        attributes.write(&mut self.0);
        self
    }

    /// The whole message.
    pub fn finish(mut self, id: u32) -> Bytes {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0[5..9].copy_from_slice(&id.to_be_bytes());
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn requests_have_their_length_and_number_in_front() {
        let request = Request::new(kind::MKDIR, 0).string(b"a/b").attributes(&Attributes::default()).finish(7);
        assert_eq!(&request[..], b"\0\0\0\x10\x0e\0\0\0\x07\0\0\0\x03a/b\0\0\0\0");
        assert_eq!(&Request::init()[..], b"\0\0\0\x05\x01\0\0\0\x03");
    }

    #[test]
    fn attributes_survive_being_written_and_read() {
        for attributes in [
            Attributes::default(),
            Attributes { size: Some(1 << 40), mode: Some(0o100_644), times: Some((1, 2)) },
            Attributes { mode: Some(0o040_755), ..Default::default() },
        ] {
            let mut bytes = BytesMut::new();
            attributes.write(&mut bytes);
            assert_eq!(Attributes::read(&mut bytes.freeze()), Some(attributes));
        }
        let with_all = b"\x80\0\0\x0f\0\0\0\0\0\0\0\x05\0\0\0\x01\0\0\0\x02\0\0\x81\xa4\0\0\0\x03\0\0\0\x04\0\0\0\x01\0\0\0\x01x\0\0\0\x01y";
        let read = Attributes::read(&mut Bytes::from_static(with_all)).unwrap();
        assert_eq!(read, Attributes { size: Some(5), mode: Some(0o100_644), times: Some((3, 4)) });
        assert!(read.is_regular() && !read.is_folder());
    }

    #[test]
    fn answers_of_every_kind_are_read_and_cut_ones_are_refused() {
        let read = |bytes: &'static [u8]| Answer::read(Bytes::from_static(bytes));
        let status = read(b"\x65\0\0\0\x01\0\0\0\x02\0\0\0\x04gone\0\0\0\0").unwrap();
        assert_eq!(status, (1, Answer::Status { code: 2, message: "gone".into() }));
        assert_eq!(read(b"\x65\0\0\0\x01\0\0\0\x02").unwrap().1, Answer::Status { code: 2, message: String::new() });
        assert_eq!(read(b"\x67\0\0\0\x02\0\0\0\x01x").unwrap(), (2, Answer::Data(Bytes::from_static(b"x"))));
        let names: &[u8] = b"\x68\0\0\0\x03\0\0\0\x01\0\0\0\x01a\0\0\0\x01l\0\0\0\0";
        assert!(matches!(Answer::read(Bytes::copy_from_slice(names)), Some((3, Answer::Names(n))) if n.len() == 1));
        for end in 0..names.len() {
            assert!(Answer::read(Bytes::copy_from_slice(&names[..end])).is_none(), "{end}");
        }
        assert!(read(b"\x68\0\0\0\x03\xff\xff\xff\xff").is_none());
        assert!(read(b"\x01\0\0\0\x03").is_none());
        let server = Bytes::from_static(b"\x02\0\0\0\x03\0\0\0\x01x\0\0\0\x011");
        assert_eq!(version(server), Some((3, vec![Bytes::from_static(b"x")])));
    }
}
