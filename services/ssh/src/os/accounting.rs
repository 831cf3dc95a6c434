//! The host's records of who is logged in and who was: utmp(5), wtmp(5) and btmp, as `who`, `last` and `lastb` show
//! them.
//!
//! Files that are not there are not made: the host does without. A record that cannot be written costs nobody a
//! session. The C library's own functions for this keep state for the whole process and set signal handlers, so the
//! records are put together here, in the layout of its structure.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{DEAD_PROCESS, F_WRLCK, LOGIN_PROCESS, SEEK_SET, USER_PROCESS, flock, utmpx};
use nix::unistd::Uid;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::debug;

const UTMP: &str = "/run/utmp";
const WTMP: &str = "/var/log/wtmp";
const BTMP: &str = "/var/log/btmp";

/// Length of a record, and of the seconds in it: 4 bytes where programs of 32 bits share the files.
const RECORD: usize = size_of::<utmpx>();
const COMPACT: bool = RECORD == 384;
/// Records of utmp that are looked through for the one of a terminal.
const MOST_RECORDS: usize = 65_536;
/// How often a file that others use is tried, and how long a try waits.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// A session on a terminal, as it stands in the records.
#[derive(Clone, Debug)]
struct Entry {
    kind: i16,
    process: i32,
    /// The terminal without `/dev/`.
    line: Vec<u8>,
    user: String,
    client: IpAddr,
    time: DateTime<Utc>,
}

/// A session that is in the records.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    entry: Entry,
    written: JoinHandle<()>,
}

impl LoggedIn {
    /// Enters a session; `None` where this process is not the one to do so.
    pub fn begin(user: &str, terminal: &Path, process: u32, client: SocketAddr) -> Option<Self> {
        if !Uid::effective().is_root() {
            return None;
        }
        let line = terminal.strip_prefix("/dev").unwrap_or(terminal).as_os_str().as_bytes().to_vec();
        let process = i32::try_from(process).ok()?;
        let client = client.ip().to_canonical();
        let entry = Entry { kind: USER_PROCESS, process, line, user: user.to_owned(), client, time: Utc::now() };
        let begun = entry.clone();
        Some(Self { entry, written: spawn_blocking(move || record(&begun, Path::new(UTMP), Path::new(WTMP))) })
    }

    /// Says that it is over.
    pub async fn end(self) {
        let _ = self.written.await; // the end stands after the beginning
        let entry = Entry { kind: DEAD_PROCESS, user: String::new(), time: Utc::now(), ..self.entry };
        let _ = spawn_blocking(move || record(&entry, Path::new(UTMP), Path::new(WTMP))).await;
    }
}

/// Enters an attempt to log in as somebody who does not exist.
pub(crate) fn failed(user: &str, client: SocketAddr) {
    if !Uid::effective().is_root() {
        return;
    }
    let process = i32::try_from(std::process::id()).unwrap_or_default();
    let (user, line, client) = (user.to_owned(), b"ssh:notty".to_vec(), client.ip().to_canonical());
    let entry = Entry { kind: LOGIN_PROCESS, process, line, user, client, time: Utc::now() };
    spawn_blocking(move || report(append(Path::new(BTMP), &entry.encode()), BTMP));
}

fn record(entry: &Entry, utmp: &Path, wtmp: &Path) {
    let bytes = entry.encode();
    report(replace(utmp, &bytes), UTMP);
    report(append(wtmp, &bytes), WTMP);
}

fn report(result: io::Result<()>, file: &str) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => debug!(%error, file, "login not recorded"),
        _ => {}
    }
}

/// Puts a record in place of the one of the same terminal, or at the end.
fn replace(path: &Path, record: &[u8; RECORD]) -> io::Result<()> {
    let mut file = locked(OpenOptions::new().read(true).write(true).open(path)?)?;
    let id = id_of(record);
    let (mut at, mut old) = (0, [0; RECORD]);
    for _ in 0..MOST_RECORDS {
        match file.read_exact(&mut old) {
            Ok(()) if id_of(&old) == id => break,
            Ok(()) => at += RECORD as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    file.seek(SeekFrom::Start(at))?;
    file.write_all(record)
}

fn append(path: &Path, record: &[u8; RECORD]) -> io::Result<()> {
    let mut file = locked(OpenOptions::new().append(true).open(path)?)?;
    file.write_all(record)
}

/// The file, once nobody else writes it. The lock is the one that other programs take, but belongs to the open file:
/// theirs would be lost as soon as any thread of this process closed the file.
fn locked(file: File) -> io::Result<File> {
    let whole = flock {
        l_type: i16::try_from(F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    for _ in 0..TRIES {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => return Ok(file),
            Err(Errno::EAGAIN | Errno::EACCES) => sleep(PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program has it locked"))
}

/// The part of a record by which a terminal is found again.
fn id_of(record: &[u8; RECORD]) -> &[u8] {
    let at = offset_of!(utmpx, ut_id);
    record.get(at..at + 4).unwrap_or_default()
}

impl Entry {
    /// The record in the C library's layout.
    fn encode(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        put(&mut record, offset_of!(utmpx, ut_type), &self.kind.to_ne_bytes());
        put(&mut record, offset_of!(utmpx, ut_pid), &self.process.to_ne_bytes());
        put(&mut record, offset_of!(utmpx, ut_line), most(&self.line, 32));
        put(
            &mut record,
            offset_of!(utmpx, ut_id),
            self.line.get(self.line.len().saturating_sub(4)..).unwrap_or_default(),
        );
        put(&mut record, offset_of!(utmpx, ut_user), most(self.user.as_bytes(), 32));
        if self.kind != DEAD_PROCESS {
            put(&mut record, offset_of!(utmpx, ut_host), most(self.client.to_string().as_bytes(), 256));
            let address = match self.client {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            put(&mut record, offset_of!(utmpx, ut_addr_v6), &address);
        }
        let (seconds, micros) = (self.time.timestamp(), self.time.timestamp_subsec_micros());
        let at = offset_of!(utmpx, ut_tv);
        if COMPACT {
            // Programs that read these files take the seconds for unsigned when that day comes.
            put(&mut record, at, &u32::try_from(seconds).unwrap_or_default().to_ne_bytes());
            put(&mut record, at + 4, &micros.to_ne_bytes());
        } else {
            put(&mut record, at, &seconds.to_ne_bytes());
            put(&mut record, at + 8, &u64::from(micros).to_ne_bytes());
        }
        record
    }
}

fn most(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}

fn put(record: &mut [u8; RECORD], at: usize, bytes: &[u8]) {
    if let Some(place) = record.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use super::*;

    fn entry(kind: i16, line: &str, user: &str) -> Entry {
        Entry {
            kind,
            process: 4711,
            line: line.into(),
            user: user.into(),
            client: IpAddr::from([10, 1, 2, 3]),
            time: Utc::now(),
        }
    }

    #[test]
    fn the_records_are_those_that_who_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (utmp, wtmp) = (folder.path().join("utmp"), folder.path().join("wtmp"));
        record(&entry(USER_PROCESS, "pts/7", "nobody"), &utmp, &wtmp);
        assert!(!utmp.exists() && !wtmp.exists(), "a host without records stays without");
        for file in [&utmp, &wtmp] {
            std::fs::write(file, b"").unwrap();
        }
        record(&entry(USER_PROCESS, "pts/7", "alice"), &utmp, &wtmp);
        record(&entry(USER_PROCESS, "pts/8", "bob"), &utmp, &wtmp);
        let who = || String::from_utf8(Command::new("who").arg(&utmp).output().unwrap().stdout).unwrap();
        let shown = who();
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 2, "{shown}");
        assert_eq!((lines[0][0], lines[0][1]), ("alice", "pts/7"));
        assert!(lines[0].last().unwrap().contains("10.1.2.3"), "{shown}");
        record(&entry(DEAD_PROCESS, "pts/7", ""), &utmp, &wtmp);
        assert!(who().starts_with("bob") && who().lines().count() == 1, "{}", who());
        let length = |file: &Path| std::fs::metadata(file).unwrap().len();
        assert_eq!((length(&utmp), length(&wtmp)), (2 * RECORD as u64, 3 * RECORD as u64));
    }
}
