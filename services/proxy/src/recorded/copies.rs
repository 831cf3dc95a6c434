//! Copies of files to and from servers without an agent: what their SFTP protocol says, read along for the audit log.
//!
//! A server without an agent tells nobody what is done to its files. Requests and answers of protocol version 3
//! (draft-ietf-secsh-filexfer-02) pass through here, so that each operation can be told with how it ended. Nothing is
//! changed or held up: what cannot be read any more is carried all the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Component, Path, PathBuf};

use tracing::debug;
use wire::events::{SftpAction, SftpAttributes};

/// Requests that are remembered until they are answered, and handles until they are closed.
const MOST_OPEN: usize = 4096;
/// Bytes of a packet that are looked at: two paths fit.
const KEPT: usize = 16 << 10;
/// Bytes of a packet's kind and number.
const NUMBERED: usize = 5;
/// The longest packet that anybody sends.
const LONGEST: usize = 64 << 20;
/// How an operation ended that was not answered, or whose answer cannot be told from those to others.
const UNKNOWN: &str = "the result is not known";

// Kinds of packets, §3.
const INIT: u8 = 1;
const VERSION: u8 = 2;
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
    /// What was asked for and is not answered, by the request's number.
    asked: HashMap<u32, Asked>,
    /// Whether more was asked for at once than is remembered: from then on nobody knows how anything ends.
    overrun: bool,
    /// Paths of what is open, by handle.
    open: HashMap<Vec<u8>, String>,
    /// Where paths that do not begin at the root begin.
    home: PathBuf,
}

/// A request that is not answered. All are remembered: an answer says no more than the number of its request, and with the
/// number of one that is forgotten a client could pass the answer off as that to another.
enum Asked {
    Operation(Done),
    /// An operation on what a handle stands for when it is done: clients can guess handles.
    OnHandle(Done, Vec<u8>),
    Close(Vec<u8>),
    /// Where the account's home is.
    Home,
    /// Nothing that is told.
    Other,
    /// Several requests under one number, which get this many answers still.
    Shared(u32),
}

impl Copies {
    /// Home folder of the account, once it was seen.
    pub fn home(&self) -> String {
        self.home.to_string_lossy().into_owned()
    }

    /// Takes what the client sends; gives what is told although nobody knows how it ended, because the client does not let
    /// the answers be told apart.
    pub fn request(&mut self, mut data: &[u8]) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(packet) = self.requests.next(&mut data) {
            self.take_request(&packet, &mut done);
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

    /// Gives what is not answered, and will not be: the conversation is over.
    pub fn rest(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.asked).into_values().filter_map(|asked| self.unknown(asked)).collect()
    }

    fn take_request(&mut self, packet: &[u8], untold: &mut Vec<Done>) {
        let mut parts = Parts(packet);
        let Some(kind) = parts.byte().filter(|kind| *kind != INIT) else { return };
        let Some(number) = parts.number() else { return };
        let asked = self.asked_for(kind, &mut parts).unwrap_or(Asked::Other);
        if self.asked.len() >= MOST_OPEN {
            self.overrun = true;
        }
        if self.overrun {
            untold.extend(self.rest());
            untold.extend(self.unknown(asked));
            return self.open.clear(); // what is opened from here on is not known either
        }
        match self.asked.entry(number) {
            Entry::Vacant(place) => drop(place.insert(asked)),
            Entry::Occupied(mut place) => {
                let answers = if let Asked::Shared(answers) = place.get() { answers.saturating_add(1) } else { 2 };
                let earlier = place.insert(Asked::Shared(answers));
                untold.extend([earlier, asked].into_iter().filter_map(|asked| self.unknown(asked)));
            }
        }
    }

    /// What is told of a request whose answer is not known.
    fn unknown(&self, asked: Asked) -> Option<Done> {
        let done = match asked {
            Asked::Operation(done) => done,
            Asked::OnHandle(done, handle) => self.at_handle(done, &handle),
            Asked::Close(_) | Asked::Home | Asked::Other | Asked::Shared(_) => return None,
        };
        Some(Done { error: UNKNOWN.to_owned(), ..done })
    }

    fn at_handle(&self, done: Done, handle: &[u8]) -> Done {
        Done { path: self.open.get(handle).cloned().unwrap_or_default(), ..done }
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
            CLOSE => return Some(Asked::Close(parts.string()?.to_vec())),
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
            SftpAction::Fsetstat => {}
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
        Some(match done.action {
            SftpAction::Fsetstat => Asked::OnHandle(done, first.to_vec()),
            _ => Asked::Operation(done),
        })
    }

    fn take_answer(&mut self, packet: &[u8]) -> Option<Done> {
        let mut parts = Parts(packet);
        let kind = parts.byte().filter(|kind| *kind != VERSION)?;
        let number = parts.number()?;
        let mut done = match self.asked.remove(&number)? {
            Asked::Operation(done) => done,
            Asked::OnHandle(done, handle) => self.at_handle(done, &handle),
            Asked::Close(handle) => {
                self.open.remove(&handle);
                return None;
            }
            Asked::Home => {
                if kind == NAME && parts.number()? > 0 {
                    self.home = PathBuf::from(text(parts.string()?));
                }
                return None;
            }
            Asked::Shared(answers) => {
                if answers > 1 {
                    self.asked.insert(number, Asked::Shared(answers - 1));
                }
                if kind == HANDLE {
                    self.open.remove(parts.string()?); // what it stood for is closed
                }
                return None;
            }
            Asked::Other => return None,
        };
        match kind {
            STATUS => {
                let code = parts.number()?;
                let said = parts.string().map(text).filter(|said| !said.is_empty());
                done.error = if code == 0 { String::new() } else { said.unwrap_or_else(|| format!("status {code}")) };
            }
            HANDLE => {
                let handle = parts.string()?;
                self.open.remove(handle); // what it stood for is closed
                if self.open.len() < MOST_OPEN {
                    self.open.insert(handle.to_vec(), done.path.clone());
                }
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

/// How many bytes of a packet of this kind are looked at. Most are in such as are of no interest but for their number.
fn looked_at(kind: u8) -> usize {
    const READ: u8 = 5;
    const WRITE: u8 = 6;
    const DATA: u8 = 103;
    match kind {
        READ | WRITE | DATA => NUMBERED,
        _ => KEPT,
    }
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
            return Some(std::mem::take(&mut self.head).split_off(4));
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
        Some(4 + length.min(self.head.get(4).map_or(1, |kind| looked_at(*kind))))
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
        let most = u32::try_from(MOST_OPEN).unwrap();
        let requests: Vec<u8> = (0..most).flat_map(remove).collect();
        assert!(copies.request(&requests).is_empty());
        // One more than is remembered: nothing is known from here on.
        let untold = copies.request(&packet(5, most, &[]));
        assert_eq!(untold.len(), MOST_OPEN);
        assert!(untold.iter().all(|done| done.error == UNKNOWN && done.path == "/x"));
        assert_eq!(copies.request(&remove(0)).len(), 1);
        assert!(copies.answer(&status(0, 0, b"")).is_empty());

        // Nor does one that leaves before the answer.
        let mut copies = Copies::default();
        copies.request(&[remove(1), packet(5, 2, &[])].concat());
        assert_eq!(copies.rest()[0].error, UNKNOWN);
        assert!(copies.rest().is_empty());
    }

    #[test]
    fn an_answer_to_one_request_is_not_passed_off_as_that_to_another() {
        let remove = |number: u32| packet(REMOVE, number, &[&string(b"/x")]);
        // A read that fails is not the removal that succeeds, in whichever order they come.
        let read = |number: u32| packet(5, number, &[&string(b"none"), &[0; 12]]);
        for requests in [[read(7), remove(7)], [remove(7), read(7)], [packet(CLOSE, 7, &[&string(b"h")]), remove(7)]] {
            let mut copies = Copies::default();
            let untold = copies.request(&requests.concat());
            assert_eq!(untold.len(), 1);
            assert_eq!((untold[0].path.as_str(), untold[0].error.as_str()), ("/x", UNKNOWN));
            // Both answers come; then the number is free.
            assert!(copies.answer(&status(7, 4, b"Failure")).is_empty());
            assert_eq!(copies.request(&remove(7)).len(), 1, "an answer is outstanding");
            assert!(copies.answer(&[status(7, 0, b""), status(7, 0, b"")].concat()).is_empty());
            assert!(copies.request(&remove(7)).is_empty());
            let done = copies.answer(&status(7, 0, b""));
            assert_eq!((done.len(), done[0].error.as_str()), (1, ""));
        }
        // The greeting has no number: its version is none.
        let mut copies = Copies::default();
        copies.request(&[packet(INIT, 3, &[]), remove(3)].concat());
        assert!(copies.answer(&packet(VERSION, 3, &[])).is_empty());
        assert_eq!(copies.answer(&status(3, 3, b"Permission denied"))[0].error, "Permission denied");
    }

    #[test]
    fn a_handle_that_is_guessed_has_its_path_all_the_same() {
        let none = 0u32.to_be_bytes();
        let mut copies = Copies::default();
        let open = |number: u32, path: &[u8]| packet(OPEN, number, &[&string(path), &none, &none]);
        let set = |number: u32| packet(FSETSTAT, number, &[&string(b"0"), &none]);
        let close = packet(CLOSE, 3, &[&string(b"0")]);
        copies.request(&[open(1, b"/a"), set(2), close, open(4, b"/b"), set(5)].concat());
        let handle = |number: u32| packet(HANDLE, number, &[&string(b"0")]);
        let answers = [handle(1), status(2, 0, b""), status(3, 0, b""), handle(4), status(5, 0, b"")].concat();
        let paths: Vec<String> = copies.answer(&answers).into_iter().map(|done| done.path).collect();
        assert_eq!(paths, ["/a", "/a", "/b", "/b"]);

        // What cannot be told apart takes no other's name.
        copies.request(&[open(6, b"/c"), open(6, b"/d"), set(7)].concat());
        let answers = [handle(6), status(6, 2, b"No such file"), status(7, 0, b"")].concat();
        assert_eq!(copies.answer(&answers)[0].path, "");
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
