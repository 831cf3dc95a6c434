#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::packet::{Parts, Reply};
use super::*;

const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const REALPATH: u8 = 16;
const RENAME: u8 = 18;
const SYMLINK: u8 = 20;

/// Asks everything at once, as clients do that ask ahead; gives the answers and what was told to the audit log.
fn converse(requests: &[Reply]) -> (Vec<Vec<u8>>, Vec<Performed>) {
    let mut input = Vec::new();
    for request in requests {
        input.extend_from_slice(&u32::try_from(request.0.len()).unwrap().to_be_bytes());
        input.extend_from_slice(&request.0);
    }
    let (mut output, mut performed) = (Vec::new(), Vec::new());
    serve(input.as_slice(), &mut output, None, |p| performed.push(p)).unwrap();
    let mut answers = Vec::new();
    let mut rest = output.as_slice();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (answer, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        answers.push(answer.to_vec());
        rest = tail;
    }
    (answers, performed)
}

fn request(kind: u8, texts: &[&[u8]]) -> Reply {
    let mut request = Reply::new(kind, 7);
    texts.iter().for_each(|text| request.string(text));
    request
}

fn open(path: &Path, flags: u32) -> Reply {
    let mut open = request(OPEN, &[path.as_os_str().as_encoded_bytes()]);
    open.number(flags);
    open.attributes(&Attributes::default());
    open
}

fn write(handle: u32, offset: u64, data: &[u8]) -> Reply {
    let mut write = request(WRITE, &[&handle.to_be_bytes()]);
    write.long(offset);
    write.string(data);
    write
}

fn read(handle: u32, offset: u64, length: u32) -> Reply {
    let mut read = request(READ, &[&handle.to_be_bytes()]);
    read.long(offset);
    read.number(length);
    read
}

/// The number of a status.
fn code(answer: &[u8]) -> u32 {
    let mut parts = Parts(answer);
    assert_eq!(parts.byte().unwrap(), 101, "{answer:?} is a status");
    parts.number().unwrap();
    parts.number().unwrap()
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[test]
fn a_file_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let (answers, performed) = converse(&[
        open(&path, 2 | 8 | 16),
        write(0, 5, b"world"),
        write(0, 0, b"hello"),
        request(CLOSE, &[&0u32.to_be_bytes()]),
        open(&path, 1),
        read(1, 0, 100),
        read(1, 10, 100),
        request(CLOSE, &[&9u32.to_be_bytes()]),
    ]);
    assert_eq!(std::fs::read(&path).unwrap(), b"helloworld");
    assert_eq!((code(&answers[1]), code(&answers[2]), code(&answers[3])), (0, 0, 0));
    assert!(answers[5].ends_with(b"\0\0\0\x0ahelloworld"));
    assert_eq!((code(&answers[6]), code(&answers[7])), (1, 4), "the end of the file, and no such handle");
    assert_eq!(performed.iter().map(|p| p.action).collect::<Vec<_>>(), [1, 1]);
    assert_eq!((performed[0].path.as_str(), performed[0].flags), (path.to_str().unwrap(), 26));
}

#[test]
fn names_are_bytes_and_folders_are_listed_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9"));
    std::fs::write(&odd, "x").unwrap();
    for i in 0..300 {
        std::fs::write(folder.path().join(i.to_string()), "").unwrap();
    }
    let handle: &[u8] = &0u32.to_be_bytes();
    let again = || request(READDIR, &[handle]);
    let (answers, _) = converse(&[
        request(OPENDIR, &[bytes(folder.path())]),
        again(),
        again(),
        again(),
        again(),
        request(REMOVE, &[bytes(&odd)]),
    ]);
    let listed = |answer: &[u8]| {
        let mut parts = Parts(answer);
        assert_eq!(parts.byte().unwrap(), 104);
        parts.number().unwrap();
        parts.number().unwrap()
    };
    assert_eq!(answers[1..4].iter().map(|a| listed(a)).sum::<u32>(), 301);
    assert_eq!(code(&answers[4]), 1, "the end of the folder");
    assert!(answers[1..4].iter().any(|a| a.windows(4).any(|w| w == b"caf\xe9")));
    assert_eq!((code(&answers[5]), odd.exists()), (0, false));
}

#[test]
fn renaming_replaces_only_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&a, "a").unwrap();
    std::fs::write(&b, "b").unwrap();
    let (answers, performed) = converse(&[
        request(RENAME, &[bytes(&a), bytes(&b)]),
        request(200, &[b"posix-rename@openssh.com", bytes(&a), bytes(&b)]),
    ]);
    assert_eq!((code(&answers[0]), code(&answers[1])), (4, 0));
    assert_eq!(std::fs::read(&b).unwrap(), b"a");
    assert_eq!((performed[0].error.as_str(), performed[1].target.as_str()), ("File exists", b.to_str().unwrap()));
}

#[test]
fn links_take_the_target_first_as_openssh_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("l");
    let (answers, _) = converse(&[request(SYMLINK, &[b"target", bytes(&link)])]);
    assert_eq!(code(&answers[0]), 0);
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("target"));
}

#[test]
fn failures_say_why_to_the_client_and_to_the_log() {
    let (answers, performed) =
        converse(&[request(REMOVE, &[b"/no/such/file"]), request(MKDIR, &[b"/x"]), request(99, &[])]);
    assert_eq!(code(&answers[0]), 2);
    assert!(answers[0].windows(25).any(|w| w == b"No such file or directory"));
    assert_eq!(performed[0].error, "No such file or directory");
    assert_eq!((code(&answers[1]), code(&answers[2])), (5, 8), "malformed and unknown requests");
}

#[test]
fn paths_are_made_absolute_whether_they_exist_or_not() {
    let (answers, _) = converse(&[request(REALPATH, &[b"/no/such/../file"]), request(REALPATH, &[b"/usr/./bin/.."])]);
    assert!(answers[0].windows(8).any(|w| w == b"/no/file"));
    assert!(answers[1].windows(4).any(|w| w == b"/usr"));
}

#[test]
fn what_is_no_packet_ends_the_server() {
    for input in [&b"\0\0\0\0"[..], b"\xff\xff\xff\xff", b"\0\0\0\x09abc"] {
        assert!(serve(input, Vec::new(), None, |_| {}).is_err());
    }
    let (answers, _) = converse(&[Reply(vec![3]), request(OPEN, &[])]);
    assert_eq!((code(&answers[0]), code(&answers[1])), (5, 5));
}
