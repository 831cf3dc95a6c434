//! Copies of files to and from servers without an agent: what their SFTP protocol says, read along for the audit log.
//!
//! A server without an agent tells nobody what is done to its files. Requests and answers of protocol version 3
//! (draft-ietf-secsh-filexfer-02) pass through here, so that each operation can be told with how it ended. Nothing is
//! changed or held up: what cannot be read any more is carried all the same.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use tracing::debug;
use wire::events::{SftpAction, SftpAttributes};

/// Requests that are remembered until they are answered, and handles until they are closed.
const MOST_OPEN: usize = 4096;
/// Bytes of a packet that are looked at: two paths fit.
const KEPT: usize = 16 << 10;
/// The longest packet that anybody sends.
const LONGEST: usize = 64 << 20;

// Kinds of packets, §3.
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const NAME: u8 = 104;
const EXTENDED: u8 = 200;

/// An operation, and how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Done {
    pub action: SftpAction,
    pub path: String,
    /// The other path, of operations that have two.
    pub target: String,
    /// Flags of an open.
    pub flags: u32,
    pub attributes: Option<SftpAttributes>,
    /// Why it failed; empty when it did not.
    pub error: String,
}

/// Reads one conversation along.
#[derive(Default)]
pub(super) struct Copies {
    requests: Packets,
    answers: Packets,
    /// What was asked for, by the request's number.
    asked: HashMap<u32, Asked>,
    /// Paths of what is open, by handle.
    open: HashMap<Vec<u8>, String>,
    /// Where paths that do not begin at the root begin.
    home: PathBuf,
}

enum Asked {
    Operation(Done),
    /// Where the account's home is.
    Home,
}

impl Copies {
    /// Home folder of the account, once it was seen.
    pub fn home(&self) -> String {
        self.home.to_string_lossy().into_owned()
    }

    /// Takes what the client sends; gives what is told although nobody knows how it ended, because the client waits for no
    /// answers.
    pub fn request(&mut self, mut data: &[u8]) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(packet) = self.requests.next(&mut data) {
            done.extend(self.take_request(&packet));
        }
        done
    }

    /// Takes what the server sends; gives what has been done.
    pub fn answer(&mut self, mut data: &[u8]) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(packet) = self.answers.next(&mut data) {
            done.extend(self.take_answer(&packet));
        }
        done
    }

    fn take_request(&mut self, packet: &[u8]) -> Option<Done> {
        let mut parts = Parts(packet);
        let (kind, number) = (parts.byte()?, parts.number()?);
        if kind == CLOSE {
            self.open.remove(parts.string()?);
            return None;
        }
        let asked = self.asked_for(kind, &mut parts)?;
        // A number that is used again hides nothing.
        let displaced = match self.asked.len() < MOST_OPEN {
            true => self.asked.insert(number, asked),
            false => Some(asked),
        };
        match displaced {
            Some(Asked::Operation(done)) => {
                Some(Done { error: "the client did not wait for the answer".into(), ..done })
            }
            _ => None,
        }
    }

    fn asked_for(&self, kind: u8, parts: &mut Parts<'_>) -> Option<Asked> {
        let action = match kind {
            OPEN => SftpAction::Open,
            SETSTAT => SftpAction::Setstat,
            FSETSTAT => SftpAction::Fsetstat,
            OPENDIR => SftpAction::Readdir,
            REMOVE => SftpAction::Remove,
            MKDIR => SftpAction::Mkdir,
            RMDIR => SftpAction::Rmdir,
            RENAME => SftpAction::Rename,
            READLINK => SftpAction::Readlink,
            SYMLINK => SftpAction::Symlink,
            REALPATH => return matches!(parts.string()?, b"" | b".").then_some(Asked::Home),
            EXTENDED => match parts.string()? {
                b"posix-rename@openssh.com" => SftpAction::Rename,
                b"hardlink@openssh.com" => SftpAction::Link,
                b"lsetstat@openssh.com" => SftpAction::Setstat,
                _ => return None,
            },
            _ => return None,
        };
        let mut done = Done { action, ..Done::default() };
        let first = parts.string()?;
        match done.action {
            SftpAction::Fsetstat => done.path = self.open.get(first).cloned().unwrap_or_default(),
            // OpenSSH sends the target first, other than the draft says. A link's text need not name anything.
            SftpAction::Symlink => {
                done.target = text(first);
                done.path = self.absolute(parts.string()?);
            }
            _ => done.path = self.absolute(first),
        }
        match done.action {
            SftpAction::Rename | SftpAction::Link => done.target = self.absolute(parts.string()?),
            SftpAction::Open => (done.flags, done.attributes) = (parts.number()?, parts.attributes()),
            SftpAction::Setstat | SftpAction::Fsetstat | SftpAction::Mkdir => done.attributes = parts.attributes(),
            _ => {}
        }
        Some(Asked::Operation(done))
    }

    fn take_answer(&mut self, packet: &[u8]) -> Option<Done> {
        let mut parts = Parts(packet);
        let (kind, number) = (parts.byte()?, parts.number()?);
        let mut done = match self.asked.remove(&number)? {
            Asked::Operation(done) => done,
            Asked::Home => {
                if kind == NAME && parts.number()? > 0 {
                    self.home = PathBuf::from(text(parts.string()?));
                }
                return None;
            }
        };
        match kind {
            STATUS => {
                let code = parts.number()?;
                let said = parts.string().map(text).filter(|said| !said.is_empty());
                done.error = if code == 0 { String::new() } else { said.unwrap_or_else(|| format!("status {code}")) };
            }
            HANDLE if self.open.len() < MOST_OPEN => {
                self.open.insert(parts.string()?.to_vec(), done.path.clone());
            }
            _ => {}
        }
        Some(done)
    }

    /// A path from the root, without `.` and `..`, as far as that is known.
    fn absolute(&self, path: &[u8]) -> String {
        let path = self.home.join(text(path));
        if !path.is_absolute() {
            return path.to_string_lossy().into_owned();
        }
        let mut absolute = Path::new("/").to_owned();
        for component in path.components() {
            match component {
                Component::Normal(name) => absolute.push(name),
                Component::ParentDir => drop(absolute.pop()),
                _ => {}
            }
        }
        absolute.to_string_lossy().into_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a packet of this kind is of interest. Most bytes are in others.
fn matters(kind: u8) -> bool {
    const READ: u8 = 5;
    const WRITE: u8 = 6;
    const DATA: u8 = 103;
    !matches!(kind, READ | WRITE | DATA)
}

/// Finds packets in a stream; of long ones only the beginning.
#[derive(Default)]
struct Packets {
    /// Length and contents of the packet that is under way.
    head: Vec<u8>,
    /// Bytes of it that are not looked at.
    skip: usize,
    /// Whether the stream is not understood.
    lost: bool,
}

impl Packets {
    fn next(&mut self, data: &mut &[u8]) -> Option<Vec<u8>> {
        while !self.lost && !data.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(data.len());
                *data = data.get(skipped..)?;
                self.skip -= skipped;
                continue;
            }
            let wanted = self.wanted()?;
            let taken = wanted.saturating_sub(self.head.len()).min(data.len());
            let (piece, rest) = data.split_at_checked(taken)?;
            self.head.extend_from_slice(piece);
            *data = rest;
            // With the kind, more of it may be wanted.
            if self.head.len() < 5 || self.wanted()? > self.head.len() {
                continue;
            }
            let length = self.length()?;
            self.skip = (length + 4).saturating_sub(self.head.len());
            let packet = std::mem::take(&mut self.head).split_off(4);
            if packet.first().copied().is_some_and(matters) {
                return Some(packet);
            }
        }
        None
    }

    fn length(&self) -> Option<usize> {
        let (length, _) = self.head.split_first_chunk::<4>()?;
        Some(u32::from_be_bytes(*length) as usize)
    }

    /// How many bytes of the packet are to be looked at, its length among them.
    fn wanted(&mut self) -> Option<usize> {
        let Some(length) = self.length() else { return Some(5) };
        if length == 0 || length > LONGEST {
            debug!(length, "file operations of this session are not told: the protocol is not understood");
            self.lost = true;
            return None;
        }
        Some(match self.head.get(4) {
            Some(kind) if matters(*kind) => 4 + length.min(KEPT),
            _ => 5,
        })
    }
}

/// Takes the parts of a packet from its front.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    /// Attributes of a file, §5; `None` when there are none.
    fn attributes(&mut self) -> Option<SftpAttributes> {
        const SIZE: u32 = 1;
        const OWNER: u32 = 2;
        const PERMISSIONS: u32 = 4;
        const TIMES: u32 = 8;
        let present = self.number()?;
        let mut attributes = SftpAttributes::default();
        if present & SIZE != 0 {
            attributes.file_size = Some((u64::from(self.number()?) << 32) | u64::from(self.number()?));
        }
        if present & OWNER != 0 {
            (attributes.uid, attributes.gid) = (Some(self.number()?), Some(self.number()?));
        }
        if present & PERMISSIONS != 0 {
            attributes.permissions = Some(self.number()?);
        }
        if present & TIMES != 0 {
            let mut moment = || {
                let moment = chrono::DateTime::from_timestamp(i64::from(self.number()?), 0)?;
                Some(wire::time::timestamp(moment))
            };
            (attributes.access_time, attributes.modification_time) = (Some(moment()?), Some(moment()?));
        }
        (present & (SIZE | OWNER | PERMISSIONS | TIMES) != 0).then_some(attributes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn packet(kind: u8, number: u32, parts: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![kind];
        body.extend_from_slice(&number.to_be_bytes());
        parts.iter().for_each(|part| body.extend_from_slice(part));
        let mut packet = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        packet.extend_from_slice(&body);
        packet
    }

    fn string(text: &[u8]) -> Vec<u8> {
        let mut string = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        string.extend_from_slice(text);
        string
    }

    fn status(number: u32, code: u32, said: &[u8]) -> Vec<u8> {
        packet(STATUS, number, &[&code.to_be_bytes(), &string(said), &string(b"en")])
    }

    #[test]
    fn operations_are_told_with_their_ends_however_the_bytes_are_cut() {
        let none = 0u32.to_be_bytes();
        let requests = [
            packet(REALPATH, 1, &[&string(b".")]),
            packet(6, 9, &[&vec![7; 40_000]]), // a write, of which nothing is told
            packet(OPEN, 2, &[&string(b"notes"), &26u32.to_be_bytes(), &none]),
            packet(REMOVE, 3, &[&string(b"/etc/../x")]),
        ]
        .concat();
        let answers = [
            packet(NAME, 1, &[&1u32.to_be_bytes(), &string(b"/home/dev"), &string(b""), &none]),
            packet(HANDLE, 2, &[&string(b"h")]),
            status(3, 3, b"Permission denied"),
            packet(103, 4, &[&string(&[1; 50_000])]),
        ]
        .concat();
        for piece in [1, 7, 5_000, 1 << 20] {
            let mut copies = Copies::default();
            // The home folder is asked for first, and its answer waited for.
            copies.request(&requests[..14]);
            assert!(copies.answer(&answers[..40]).is_empty());
            assert!(requests[14..].chunks(piece).all(|data| copies.request(data).is_empty()));
            let done: Vec<Done> = answers[40..].chunks(piece).flat_map(|data| copies.answer(data)).collect();
            assert_eq!(copies.home(), "/home/dev");
            assert_eq!(done.len(), 2, "in pieces of {piece}");
            assert_eq!(
                (done[0].action, done[0].path.as_str(), done[0].flags),
                (SftpAction::Open, "/home/dev/notes", 26)
            );
            assert_eq!((done[1].path.as_str(), done[1].error.as_str()), ("/x", "Permission denied"));

            let times = [8u32.to_be_bytes(), 5u32.to_be_bytes(), 6u32.to_be_bytes()].concat();
            copies.request(&packet(FSETSTAT, 5, &[&string(b"h"), &times]));
            let done = copies.answer(&status(5, 0, b""));
            assert_eq!((done[0].path.as_str(), done[0].error.as_str()), ("/home/dev/notes", ""));
            assert_eq!(done[0].attributes.as_ref().unwrap().modification_time.unwrap().seconds, 6);
        }
    }

    #[test]
    fn a_client_that_waits_for_no_answers_hides_nothing() {
        let mut copies = Copies::default();
        let remove = |number: u32| packet(REMOVE, number, &[&string(b"/x")]);
        let requests: Vec<u8> = (0..MOST_OPEN as u32 + 5).flat_map(remove).collect();
        assert_eq!(copies.request(&requests).len(), 5);
        // Many packets of no interest at once.
        assert!(copies.request(&packet(5, 1, &[]).repeat(100_000)).is_empty());
        assert_eq!(copies.request(&remove(0)).len(), 1);
    }

    #[test]
    fn what_is_no_protocol_harms_nothing() {
        let mut copies = Copies::default();
        for noise in [
            &b"\0\0\0\0"[..],
            b"\xff\xff\xff\xff\x03",
            b"\0\0\0\x05\x03\0\0\0\x01",
            b"\0\0\0\x09\x03\0\0\0\x01\xff\xff\xff\xff",
        ] {
            let mut other = Copies::default();
            assert!(other.request(noise).is_empty() && other.answer(noise).is_empty());
            copies.request(noise);
        }
        assert!(copies.answer(&[0xff; 100]).is_empty());
    }
}
