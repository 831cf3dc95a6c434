//! What the kernel's side writes into its buffers, see `bpf/sessions.bpf.c`: numbers in the processor's byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Kind, Process, What};

/// Where the text of a script's name may be among the arguments of its interpreter: each interpreter that is a script
/// itself adds two at most.
const INTERPRETERS: usize = 12;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The session's group.
    pub cgroup: u64,
    /// Nanoseconds since the machine was started.
    pub time: u64,
    /// Who did it.
    pub process: Process,
    /// What was done.
    pub what: What,
}

/// Reads a record of a kind; `None` if it is not one.
pub(crate) fn read(kind: Kind, bytes: &[u8]) -> Option<Record> {
    let mut fields = Fields(bytes);
    let (cgroup, time) = (fields.u64()?, fields.u64()?);
    let (id, parent) = (fields.u32()?, fields.u32()?);
    let process = Process { id, parent, program: text(until_zero(fields.take(16)?)) };
    let what = match kind {
        Kind::Command => command(&mut fields)?,
        Kind::Disk => opened(&mut fields)?,
        Kind::Network => connected(&mut fields)?,
    };
    Some(Record { cgroup, time, process, what })
}

fn command(fields: &mut Fields<'_>) -> Option<What> {
    let result = fields.i32()?;
    let is_script = fields.u32()? != 0;
    let (arguments, path) = (fields.u32()?, fields.u32()?);
    let arguments = fields.take(usize::try_from(arguments).ok()?)?;
    let path = until_zero(fields.take(usize::try_from(path).ok()?)?);
    let mut all: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    if arguments.is_empty() || all.last().is_some_and(|last| last.is_empty()) {
        all.pop(); // what follows the last zero
    }
    // The first is the program's own name for itself.
    let mut skipped = 1;
    if is_script && let Some(at) = all.iter().take(INTERPRETERS).skip(1).position(|argument| *argument == path) {
        skipped = at + 2;
    }
    let arguments = all.into_iter().skip(skipped).map(text).collect();
    Some(What::Ran { path: text(path), arguments, result })
}

fn opened(fields: &mut Fields<'_>) -> Option<What> {
    let (result, flags) = (fields.i32()?, fields.i32()?);
    fields.u32()?;
    let length = fields.u32()?;
    let path = text(until_zero(fields.take(usize::try_from(length).ok()?)?));
    Some(What::Opened { path, flags, result })
}

fn connected(fields: &mut Fields<'_>) -> Option<What> {
    let (source, destination) = (fields.take(16)?, fields.take(16)?);
    let (version, port) = (fields.u16()?, fields.u16()?);
    let address = |bytes: &[u8]| match version {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?))),
        _ => None,
    };
    Some(What::Connected { source: address(source)?, destination: SocketAddr::new(address(destination)?, port) })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Names need not be UTF-8; the audit log's are.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rest of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn origin() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&77_u64.to_ne_bytes());
        bytes.extend_from_slice(&5_u64.to_ne_bytes());
        bytes.extend_from_slice(&100_u32.to_ne_bytes());
        bytes.extend_from_slice(&99_u32.to_ne_bytes());
        bytes.extend_from_slice(b"cat\0ld name here");
        bytes
    }

    fn command_record(script: bool, arguments: &[u8], path: &[u8]) -> Vec<u8> {
        let mut bytes = origin();
        bytes.extend_from_slice(&(-2_i32).to_ne_bytes());
        bytes.extend_from_slice(&u32::from(script).to_ne_bytes());
        bytes.extend_from_slice(&u32::try_from(arguments.len()).unwrap().to_ne_bytes());
        bytes.extend_from_slice(&u32::try_from(path.len()).unwrap().to_ne_bytes());
        bytes.extend_from_slice(arguments);
        bytes.extend_from_slice(path);
        bytes
    }

    fn ran(script: bool, arguments: &[u8], path: &[u8]) -> (String, Vec<String>) {
        match read(Kind::Command, &command_record(script, arguments, path)).unwrap().what {
            What::Ran { path, arguments, result: -2 } => (path, arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_has_its_arguments_without_its_own_name() {
        let record = read(Kind::Command, &command_record(false, b"cat\0-n\0\0/x\0", b"/bin/cat\0")).unwrap();
        assert_eq!((record.cgroup, record.time), (77, 5));
        assert_eq!(record.process, Process { id: 100, parent: 99, program: "cat".into() });
        let arguments = ["-n", "", "/x"].map(str::to_owned).to_vec();
        assert_eq!(record.what, What::Ran { path: "/bin/cat".into(), arguments, result: -2 });
        assert_eq!(ran(false, b"echo\0", b"/bin/echo\0"), ("/bin/echo".into(), vec![]));
        assert_eq!(ran(false, b"", b"/bin/echo\0"), ("/bin/echo".into(), vec![]));
    }

    #[test]
    fn a_script_has_its_own_arguments_not_those_of_its_interpreter() {
        let seen = ran(true, b"/usr/bin/env\0-S\0./run\0now\0", b"./run\0");
        assert_eq!(seen, ("./run".into(), vec!["now".into()]));
        // The name was changed on the way: everything is told.
        let seen = ran(true, b"/bin/sh\0/dev/fd/3\0now\0", b"./run\0");
        assert_eq!(seen.1, ["/dev/fd/3", "now"]);
    }

    #[test]
    fn a_cut_argument_is_told_as_far_as_it_goes() {
        assert_eq!(ran(false, b"echo\0abc", b"/bin/echo\0").1, ["abc"]);
    }

    #[test]
    fn an_opened_file_has_its_flags_and_result() {
        let mut bytes = origin();
        for number in [-13_i32, 0x80000, 0, 6] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes.extend_from_slice(b"/etc\xff\0");
        let what = read(Kind::Disk, &bytes).unwrap().what;
        assert_eq!(what, What::Opened { path: "/etc\u{fffd}".into(), flags: 0x80000, result: -13 });
    }

    #[test]
    fn a_connection_has_addresses_of_its_version() {
        let record = |version: u16| {
            let mut bytes = origin();
            bytes.extend_from_slice(&[127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            bytes.extend_from_slice(&version.to_ne_bytes());
            bytes.extend_from_slice(&443_u16.to_ne_bytes());
            read(Kind::Network, &bytes).map(|record| record.what)
        };
        let four =
            What::Connected { source: "127.0.0.1".parse().unwrap(), destination: "0.0.0.0:443".parse().unwrap() };
        let six = What::Connected { source: "7f00:1::9".parse().unwrap(), destination: "[::1]:443".parse().unwrap() };
        assert_eq!((record(4), record(6), record(5)), (Some(four), Some(six), None));
    }

    #[test]
    fn no_record_that_is_cut_off_is_read() {
        let whole = command_record(false, b"cat\0/x\0", b"/bin/cat\0");
        for length in 0..whole.len() {
            assert_eq!(read(Kind::Command, &whole[..length]), None, "{length}");
        }
    }
}
