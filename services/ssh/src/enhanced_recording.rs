//! Enhanced recording: what a session's processes do, as the kernel tells it, among the events of the session.

use std::fs::File;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use audit::{EventExt, codes};
use chrono::{DateTime, Utc};
use enhanced::{Event, Kind, Monitor, PerKind, Process, Settings, Watched, What};
use rbac::Strictness;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use wire::error::Error;
use wire::events::session_network::NetworkOperation;
use wire::events::{BpfMetadata, EventAction, OneOf, SessionCommand, SessionDisk, SessionNetwork};

use crate::connection::Connection;
use crate::record::Trail;

/// How long the end of a session waits for the log to take what its processes did.
const LAST_EVENTS: Duration = Duration::from_secs(30);
/// How long one event may take beyond that.
const GRACE: Duration = Duration::from_secs(5);
/// What is said to have done what the node says itself.
const THIS_PROGRAM: &str = "teleport";
/// `ENOBUFS`: the result of what is not told for want of room.
const NO_ROOM: i32 = -105;

/// Has the kernel watch sessions, where the administrator wants it.
pub(crate) async fn start(settings: Option<Settings>) -> Result<Option<Monitor>, Error> {
    let Some(settings) = settings else { return Ok(None) };
    let started = tokio::task::spawn_blocking(move || Monitor::start(&settings)).await;
    match started.map_err(|e| Error::other(e.to_string()))? {
        Ok(monitor) => {
            info!("enhanced recording: the kernel tells what sessions do");
            Ok(Some(monitor))
        }
        Err(problem) => {
            Err(Error::other(format!("ssh_service.enhanced_recording is enabled, but cannot work here: {problem}")))
        }
    }
}

/// A session whose processes are watched; nothing of it runs yet.
pub(crate) struct Watch {
    watched: Watched,
    events: mpsc::Receiver<Event>,
    entrance: Option<File>,
}

impl Watch {
    /// Watches a session as the node's settings and the user's roles say: `None` when they do not ask for it.
    ///
    /// # Errors
    ///
    /// In words, when it does not work and a role does not let a session go on without its recording.
    pub fn begin(connection: &Connection, session: &str) -> Result<Option<Self>, String> {
        let Some(monitor) = &connection.node.kernel else { return Ok(None) };
        let options = &connection.access.permit.options;
        let kinds = PerKind::named(options.enhanced_recording.iter().map(String::as_str));
        if !kinds.any() {
            return Ok(None);
        }
        match Self::of(monitor, session, kinds) {
            Ok(watch) => Ok(Some(watch)),
            Err(problem) => {
                error!(problem, session, "enhanced recording failed");
                match options.ssh_recording {
                    Strictness::Strict => Err(format!("Session terminating due to node error. ({problem})")),
                    Strictness::BestEffort => Ok(None),
                }
            }
        }
    }

    fn of(monitor: &Monitor, session: &str, kinds: PerKind<bool>) -> Result<Self, String> {
        let (watched, events) = monitor.watch(session, kinds).map_err(|e| e.to_string())?;
        let entrance = watched.entrance().map_err(|e| format!("control group of the session: {e}"))?;
        Ok(Self { watched, events, entrance: Some(entrance) })
    }

    /// How the session's first process comes to be watched; for one process.
    pub fn take_entrance(&mut self) -> Option<File> {
        self.entrance.take()
    }

    /// Puts what comes into the session's trail.
    pub fn follow(self, trail: Trail, tasks: &TaskTracker) -> Followed {
        let Self { watched, mut events, .. } = self;
        let cgroup = watched.cgroup_id();
        let deadline = Arc::new(OnceLock::<Instant>::new());
        let (until, told) = (deadline.clone(), trail.clone());
        let task = tasks.spawn(async move {
            let mut untold = PerKind::default();
            while let Some(event) = events.recv().await {
                match until.get() {
                    Some(deadline) if Instant::now() > *deadline => count(&mut untold, &event.what),
                    _ => told.record(in_the_log(&told, cgroup, event)).await,
                }
            }
            untold
        });
        Followed { watched, trail, task, deadline }
    }
}

/// A session whose processes' doings go into its trail.
pub(crate) struct Followed {
    watched: Watched,
    trail: Trail,
    task: JoinHandle<PerKind<u64>>,
    /// From when on events are only counted; set when the session ends.
    deadline: Arc<OnceLock<Instant>>,
}

impl Followed {
    /// Ends it: returns when everything that was done is in the trail, with how much of it is not.
    pub async fn end(self) {
        let Self { watched, trail, task, deadline } = self;
        let cgroup = watched.cgroup_id();
        let _ = deadline.set(Instant::now() + LAST_EVENTS); // nobody else sets it
        let lost = watched.end().await;
        let untold = match timeout(LAST_EVENTS + GRACE, task).await {
            Ok(Ok(untold)) => untold,
            Ok(Err(_)) | Err(_) => {
                warn!(session = %trail.id, "the log takes no more of what the session did");
                PerKind::default()
            }
        };
        for kind in Kind::ALL {
            let count = lost.get(kind) + untold.get(kind);
            if count > 0 {
                warn!(session = %trail.id, kind = kind.name(), count, "events of enhanced recording lost");
                trail.record(not_told(&trail, cgroup, kind, count)).await;
            }
        }
    }
}

fn count(untold: &mut PerKind<u64>, what: &What) {
    match what {
        What::Ran { .. } => untold.command += 1,
        What::Opened { .. } => untold.disk += 1,
        What::Connected { .. } => untold.network += 1,
    }
}

/// An event of the log about something that was done.
fn in_the_log(trail: &Trail, cgroup: u64, event: Event) -> OneOf {
    let Event { at, process, what } = event;
    let bpf = metadata(cgroup, &process);
    let mut event = match what {
        What::Ran { path, arguments, result } => codes::SESSION_COMMAND.event(SessionCommand {
            ppid: u64::from(process.parent),
            path,
            argv: arguments,
            return_code: result,
            ..command(trail, bpf)
        }),
        What::Opened { path, flags, result } => {
            codes::SESSION_DISK.event(SessionDisk { path, flags, return_code: result, ..disk(trail, bpf) })
        }
        What::Connected { source, destination } => codes::SESSION_NETWORK.event(SessionNetwork {
            src_addr: source.to_string(),
            dst_addr: destination.ip().to_string(),
            dst_port: destination.port().into(),
            tcp_version: if destination.is_ipv4() { 4 } else { 6 },
            ..network(trail, bpf)
        }),
    };
    if let Some(metadata) = event.metadata_mut() {
        metadata.time = Some(wire::time::timestamp(DateTime::<Utc>::from(at)));
    }
    event
}

/// An event that stands for those which are not told: whoever reads the log of a session sees that it is not whole.
fn not_told(trail: &Trail, cgroup: u64, kind: Kind, count: u64) -> OneOf {
    let bpf = metadata(cgroup, &Process { program: THIS_PROGRAM.to_owned(), ..Process::default() });
    let path = format!("({count} events lost)");
    match kind {
        Kind::Command => {
            codes::SESSION_COMMAND.event(SessionCommand { path, return_code: NO_ROOM, ..command(trail, bpf) })
        }
        Kind::Disk => codes::SESSION_DISK.event(SessionDisk { path, return_code: NO_ROOM, ..disk(trail, bpf) }),
        Kind::Network => codes::SESSION_NETWORK.event(SessionNetwork { dst_addr: path, ..network(trail, bpf) }),
    }
}

fn metadata(cgroup: u64, process: &Process) -> BpfMetadata {
    BpfMetadata { pid: u64::from(process.id), cgroup_id: cgroup, program: process.program.clone() }
}

fn command(trail: &Trail, bpf: BpfMetadata) -> SessionCommand {
    let (user, session, server) = trail.said();
    SessionCommand { user, session, server, bpf: Some(bpf), ..Default::default() }
}

fn disk(trail: &Trail, bpf: BpfMetadata) -> SessionDisk {
    let (user, session, server) = trail.said();
    SessionDisk { user, session, server, bpf: Some(bpf), ..Default::default() }
}

fn network(trail: &Trail, bpf: BpfMetadata) -> SessionNetwork {
    let (user, session, server) = trail.said();
    let (operation, action) = (NetworkOperation::Connect as i32, EventAction::Observed as i32);
    SessionNetwork { user, session, server, bpf: Some(bpf), operation, action, ..Default::default() }
}
