//! The programs in the kernel, and who reads what they write.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use aya::maps::{HashMap as KernelMap, MapData, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_obj::btf::BtfKind;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::groups::{Group, Tree};
use crate::record::{self, Record};
use crate::{Error, Event, Kind, PerKind, Settings};

/// The compiled programs, or why there are none.
const PROGRAMS: Result<&[u8], &str> = include!(concat!(env!("OUT_DIR"), "/programs.rs"));
/// Each program and its tracepoint, and whether a kernel has to have it.
const TRACEPOINTS: [(&str, &str, bool); 4] = [
    ("ran", "sched_process_exec", true),
    ("called", "sys_exit", true),
    ("submits", "io_uring_submit_req", false),
    ("connects", "inet_sock_set_state", true),
];
/// Oldest kernel with the buffers used here.
const OLDEST_KERNEL: (u32, u32) = (5, 8);
/// Events that may wait for a session to take them. Records in the audit log go to disk: bursts wait here.
const QUEUE: usize = 16 * 1024;
/// How long an event may be on its way from a process that has ended to its buffer's reader.
const SETTLING: Duration = Duration::from_millis(2);
/// Largest buffer, in bytes.
const MAX_BUFFER: u32 = 1 << 28;

/// A session in the kernel's map: what is watched, and how much of each kind was lost. See `struct session` there.
type Entry = [u64; 4];

/// Watches sessions, as long as it lives. Clones share it.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
    _reader: Arc<Reader>,
}

/// The thread that reads; it ends when this is dropped, and with it what was made for the watch.
struct Reader {
    wanted: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.wanted.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has nothing to say
        }
    }
}

struct Shared {
    rings: Mutex<Vec<Ring>>,
    sessions: Mutex<KernelMap<MapData, u64, Entry>>,
    watched: Mutex<HashMap<u64, Watcher>>,
    lost: [AtomicU64; 3],
    tree: Tree,
    /// Keeps the programs in the kernel.
    _programs: Mutex<Ebpf>,
}

/// One of the kernel's buffers.
struct Ring {
    kind: Kind,
    buffer: RingBuf<MapData>,
    /// Its size in bytes.
    size: usize,
}

/// Who takes the events of a session.
struct Watcher {
    events: mpsc::Sender<Event>,
    /// How many did not find room in the queue.
    lost: [u64; 3],
}

/// A session that is watched, until this is dropped.
pub struct Watched {
    monitor: Monitor,
    group: Option<Group>,
    cgroup: u64,
}

impl Monitor {
    /// Starts to watch: loads the programs and makes the folder for groups. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error`], when this build, this kernel, these rights or these settings do not allow it.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        let object = PROGRAMS.map_err(Error::NotBuilt)?;
        let user = rustix::process::geteuid();
        if !user.is_root() {
            return Err(Error::NotRoot(user.as_raw()));
        }
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        if kernel_version(&release).is_some_and(|version| version < OLDEST_KERNEL) {
            return Err(Error::OldKernel(release));
        }
        let types = Btf::from_sys_fs().map_err(|e| Error::NoTypes(in_words(&e)))?;
        let tree = Tree::open(&settings.cgroup_path, &settings.root_path)?;
        let mut programs = load(object, &types, settings)?;
        let mut ring = |kind| {
            let buffer = RingBuf::try_from(take(&mut programs, ring_name(kind))?)?;
            Ok(Ring { kind, buffer, size: ring_size(kind, settings) as usize })
        };
        let rings = Kind::ALL.into_iter().map(&mut ring).collect::<Result<Vec<_>, EbpfError>>().map_err(refused)?;
        let sessions =
            take(&mut programs, "sessions").and_then(|map| Ok(KernelMap::try_from(map)?)).map_err(refused)?;
        let (ended, wanted) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::Reader(e.into()))?;
        let shared = Arc::new(Shared {
            rings: Mutex::new(rings),
            sessions: Mutex::new(sessions),
            watched: Mutex::default(),
            lost: Default::default(),
            tree,
            _programs: Mutex::new(programs),
        });
        let reader = shared.clone();
        let thread = std::thread::Builder::new().name("kernel-events".into());
        let thread = thread.spawn(move || reader.read_until(&ended)).map_err(Error::Reader)?;
        Ok(Self { shared, _reader: Arc::new(Reader { wanted: Some(wanted), thread: Some(thread) }) })
    }

    /// Watches a session's processes for things of these kinds. They come to the receiver in their order.
    ///
    /// # Errors
    ///
    /// [`Error::SessionId`], [`Error::Groups`] and [`Error::Kernel`].
    pub fn watch(&self, session: &str, kinds: PerKind<bool>) -> Result<(Watched, mpsc::Receiver<Event>), Error> {
        let id = Uuid::parse_str(session).map_err(|_| Error::SessionId(session.to_owned()))?;
        let failed = |error| Error::Groups { folder: session.into(), error };
        let group = self.shared.tree.group(id).map_err(failed)?;
        let (events, receiver) = mpsc::channel(QUEUE);
        let cgroup = group.id;
        self.shared.watched.lock().insert(cgroup, Watcher { events, lost: [0; 3] });
        // From here on, dropping it undoes what was done.
        let watched = Watched { monitor: self.clone(), group: Some(group), cgroup };
        let bits = Kind::ALL.into_iter().filter(|kind| kinds.get(*kind)).map(|kind| 1 << place(kind)).sum();
        let entered = self.shared.sessions.lock().insert(cgroup, [bits, 0, 0, 0], 0);
        entered.map_err(|e| Error::Kernel(e.to_string()))?;
        Ok((watched, receiver))
    }

    /// Counts what is not told.
    pub fn losses(&self) -> Losses {
        Losses(Arc::downgrade(&self.shared))
    }
}

/// Counts what a [`Monitor`] does not tell, without keeping it.
#[derive(Clone)]
pub struct Losses(Weak<Shared>);

impl Losses {
    /// How many things were not told since the start, of each kind; none once the monitor is gone.
    pub fn count(&self) -> PerKind<u64> {
        let Some(shared) = self.0.upgrade() else { return PerKind::default() };
        let count = |kind| shared.lost.get(place(kind)).map_or(0, |lost| lost.load(Ordering::Relaxed));
        PerKind { command: count(Kind::Command), disk: count(Kind::Disk), network: count(Kind::Network) }
    }
}

impl Watched {
    /// The number of the session's group.
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup
    }

    /// What the session's first process writes `0` to in order to be watched, with everything that it starts.
    ///
    /// # Errors
    ///
    /// What opening a file fails with.
    pub fn entrance(&self) -> io::Result<File> {
        match &self.group {
            Some(group) => group.entrance(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Ends the watch. What was done before is told, then the receiver ends. Processes that go on are not watched any
    /// more. Says how many things were not told, of each kind, because they came faster than they were taken.
    pub async fn end(mut self) -> PerKind<u64> {
        self.monitor.shared.drain();
        // Another processor may be about to write what happened there before.
        tokio::time::sleep(SETTLING).await;
        self.monitor.shared.drain();
        let lost = self.monitor.shared.forget(self.cgroup);
        let group = self.group.take();
        let _ = tokio::task::spawn_blocking(move || drop(group)).await; // fails only when the runtime ends
        lost
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // After the end there is nothing left to forget.
        let _ = self.monitor.shared.forget(self.cgroup);
    }
}

impl Shared {
    /// Reads what the kernel writes until nobody wants it any more.
    fn read_until(&self, ended: &OwnedFd) {
        let wake: Vec<OwnedFd> = {
            let rings = self.rings.lock();
            rings.iter().filter_map(|ring| ring.buffer.as_fd().try_clone_to_owned().ok()).collect()
        };
        loop {
            let mut fds: Vec<PollFd<'_>> = wake.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            fds.push(PollFd::new(ended, PollFlags::IN));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    warn!(%error, "what the kernel tells of sessions is not read any more");
                    return;
                }
            }
            if fds.last().is_some_and(|fd| !fd.revents().is_empty()) {
                return;
            }
            self.drain();
        }
    }

    /// Hands out everything that was in the buffers when this was called, in its order.
    fn drain(&self) {
        let mut rings = self.rings.lock();
        let mut records = Vec::new();
        for Ring { kind, buffer, size } in rings.iter_mut() {
            let mut taken = 0;
            // Whoever writes at the same time does not keep this from ending.
            while taken < *size {
                let Some(item) = buffer.next() else { break };
                taken += item.len();
                match record::read(*kind, &item) {
                    Some(record) => records.push((*kind, record)),
                    None => warn!(kind = kind.name(), length = item.len(), "record of the kernel not understood"),
                }
            }
        }
        if records.is_empty() {
            return;
        }
        records.sort_by_key(|(_, record)| record.time);
        let (now, since_boot) = (SystemTime::now(), since_boot());
        let mut watched = self.watched.lock();
        for (kind, record) in records {
            let Some(watcher) = watched.get_mut(&record.cgroup) else { continue };
            let age = since_boot.saturating_sub(Duration::from_nanos(record.time));
            let Record { process, what, .. } = record;
            let event = Event { at: now.checked_sub(age).unwrap_or(now), process, what };
            if watcher.events.try_send(event).is_err()
                && let Some(lost) = watcher.lost.get_mut(place(kind))
            {
                *lost += 1;
            }
        }
    }

    /// Ends the watch of a group, and says what was lost.
    fn forget(&self, cgroup: u64) -> PerKind<u64> {
        let Some(watcher) = self.watched.lock().remove(&cgroup) else { return PerKind::default() };
        let entry: Entry = {
            let mut sessions = self.sessions.lock();
            let entry = sessions.get(&cgroup, 0).unwrap_or_default();
            if let Err(error) = sessions.remove(&cgroup) {
                debug!(%error, cgroup, "session was not in the kernel's map");
            }
            entry
        };
        let lost = |kind: Kind| {
            let here = watcher.lost.get(place(kind)).copied().unwrap_or(0);
            let count = here + entry.get(place(kind) + 1).copied().unwrap_or(0);
            if let Some(total) = self.lost.get(place(kind)) {
                total.fetch_add(count, Ordering::Relaxed);
            }
            count
        };
        PerKind { command: lost(Kind::Command), disk: lost(Kind::Disk), network: lost(Kind::Network) }
    }
}

/// A kind's bit in the kernel's map, and its counter.
fn place(kind: Kind) -> usize {
    match kind {
        Kind::Command => 0,
        Kind::Disk => 1,
        Kind::Network => 2,
    }
}

fn ring_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Command => "commands",
        Kind::Disk => "disk",
        Kind::Network => "network",
    }
}

/// Bytes of a kind's buffer: a power of two, as the kernel wants it.
fn ring_size(kind: Kind, settings: &Settings) -> u32 {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    settings.pages.get(kind).max(1).saturating_mul(page).min(MAX_BUFFER).next_power_of_two()
}

/// Loads the programs and has the kernel run them.
fn load(object: &[u8], types: &Btf, settings: &Settings) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader.btf(Some(types));
    for kind in Kind::ALL {
        loader.map_max_entries(ring_name(kind), ring_size(kind, settings));
    }
    let mut programs = loader.load(object).map_err(refused)?;
    for (name, tracepoint, is_needed) in TRACEPOINTS {
        let typedef = format!("btf_trace_{tracepoint}");
        if !is_needed && types.id_by_type_name_kind(&typedef, BtfKind::Typedef).is_err() {
            debug!(tracepoint, "the kernel does not have it");
            continue;
        }
        let mut attach = || {
            let program = programs.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?;
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(tracepoint, types)?;
            program.attach().map(drop)
        };
        attach().map_err(|error| Error::Kernel(format!("tracepoint {tracepoint}: {}", in_words(&error))))?;
    }
    Ok(programs)
}

fn take(programs: &mut Ebpf, name: &str) -> Result<aya::maps::Map, EbpfError> {
    let missing = || aya::maps::MapError::InvalidName { name: name.to_owned() };
    programs.take_map(name).ok_or_else(|| missing().into())
}

fn refused(error: EbpfError) -> Error {
    Error::Kernel(in_words(&error))
}

/// An error with its causes, in one line: the verifier's report is many.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = first_line(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let said = first_line(&cause.to_string());
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The first two numbers of a kernel's release.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The clock of the records.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests;
