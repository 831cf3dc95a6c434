//! Measures the audit log and the recordings of sessions, without a network: events to durable storage, search over a
//! million events, what recording costs, and the memory of whoever replays a long recording.
//!
//! `cargo run --release -p bench --bin trail [folder]`; the folder decides which disk is measured. `TRAIL_EVENTS` and
//! `TRAIL_RECORDING_MB` make it smaller.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{Clock, FileLog, FileLogConfig, Log, Order, Query, codes};
use chrono::{DateTime, TimeDelta, Utc};
use recording::{DiskStore, Keyring, SealingKey, SessionId, SessionInfo, SessionWriter, Store, Uploads};
use wire::events::{Exec, Metadata, OneOf, ServerMetadata, SessionMetadata, SessionPrint, SessionStart, UserMetadata};

/// Emitters at the door at the same time.
const EMITTERS: usize = 256;
/// How long events are emitted to measure the door.
const DOOR: Duration = Duration::from_secs(10);
/// Events for the searches, unless the environment says otherwise.
const EVENTS: usize = 1_000_000;
/// Size of the recording that is replayed in MB, likewise.
const RECORDING: usize = 1000;

fn main() {
    let folder = std::env::args().nth(1).map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        door(&folder.path().join("door")).await;
        searches(&folder.path().join("search")).await;
        recordings(&folder.path().join("recordings")).await;
        replay(&folder.path().join("replay")).await;
    });
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn log(folder: &Path) -> Log {
    let files = FileLog::open(FileLogConfig::at(folder), Clock::system()).unwrap();
    Log::new(Arc::new(files), "bench", Clock::system())
}

fn event(number: usize, time: Option<DateTime<Utc>>) -> OneOf {
    let text = |what: &str, of: usize| format!("{what}-{:06}", number % of);
    codes::EXEC.event(Exec {
        metadata: Some(Metadata { time: time.map(wire::time::timestamp), ..Default::default() }),
        user: Some(UserMetadata { user: text("user", 500), login: "root".into(), ..Default::default() }),
        session: Some(SessionMetadata { session_id: SessionId::random().to_string(), ..Default::default() }),
        server: Some(ServerMetadata { server_id: text("server", 1000), ..Default::default() }),
        ..Default::default()
    })
}

/// Events that many emit at a time, each waiting until its own is on the disk.
async fn door(folder: &Path) {
    let log = log(folder);
    let (start, deadline) = (Instant::now(), Instant::now() + DOOR);
    let emitters: Vec<_> = (0..EMITTERS)
        .map(|emitter| {
            let log = log.clone();
            tokio::spawn(async move {
                let (mut emitted, mut slowest) = (0, Duration::ZERO);
                while Instant::now() < deadline {
                    let before = Instant::now();
                    log.emit(event(emitter, None)).await.unwrap();
                    slowest = slowest.max(before.elapsed());
                    emitted += 1;
                }
                (emitted, slowest)
            })
        })
        .collect();
    let (mut emitted, mut slowest) = (0, Duration::ZERO);
    for emitter in emitters {
        let (count, wait) = emitter.await.unwrap();
        emitted += count;
        slowest = slowest.max(wait);
    }
    let rate = f64::from(emitted) / start.elapsed().as_secs_f64();
    line("events to disk", &format!("{rate:.0}/s"), &format!("{EMITTERS} at a time, the slowest {slowest:.0?}"));
}

async fn searches(folder: &Path) {
    let events = setting("TRAIL_EVENTS", EVENTS);
    let log = log(folder);
    let (end, start) = (Utc::now(), Instant::now());
    let span = TimeDelta::days(30);
    let mut filling = tokio::task::JoinSet::new();
    for emitter in 0..EMITTERS {
        let log = log.clone();
        filling.spawn(async move {
            for number in (emitter..events).step_by(EMITTERS) {
                let age = span * i32::try_from(events - number).unwrap() / i32::try_from(events).unwrap();
                log.emit(event(number, Some(end - age))).await.unwrap();
            }
        });
    }
    filling.join_all().await;
    line("a log for searches", &format!("{events}"), &format!("events of 30 days, written in {:.0?}", start.elapsed()));
    let all = Query { limit: 50, ..Query::between(end - span, end) };
    let first = timed(&log, &all).await;
    line("first page, first search of all", &milliseconds(first), "reads what a restart has forgotten");
    line("first page, newest first", &milliseconds(median(&log, &all).await), "");
    let oldest = Query { order: Order::Ascending, ..all.clone() };
    line("first page, oldest first", &milliseconds(median(&log, &oldest).await), "");
    let day = Query { limit: 50, ..Query::between(end - span / 2, end - span / 2 + TimeDelta::days(1)) };
    line("first page of one day", &milliseconds(median(&log, &day).await), "");
    let user = Query { user: Some("user-000007".into()), ..all.clone() };
    line("first page of one user", &milliseconds(median(&log, &user).await), "one event in 500");
    let nobody = Query { user: Some("nobody".into()), ..all };
    line("a user who did nothing", &milliseconds(timed(&log, &nobody).await), "every event is looked at");
}

async fn timed(log: &Log, query: &Query) -> Duration {
    let start = Instant::now();
    log.search(query.clone()).await.unwrap();
    start.elapsed()
}

async fn median(log: &Log, query: &Query) -> Duration {
    let mut times = Vec::new();
    for _ in 0..9 {
        times.push(timed(log, query).await);
    }
    times.sort();
    times[times.len() / 2]
}

/// Terminal output as a build prints it.
fn output() -> Vec<u8> {
    let lines = (0..400).map(|n| format!("   Compiling something-{n} v0.{n}.{} (registry)\r\n", n * 7 % 13));
    lines.collect::<String>().into_bytes()
}

async fn recordings(folder: &Path) {
    let uploads = Uploads::open(folder).unwrap();
    let info = SessionInfo {
        session: SessionId::random(),
        server_id: "server".into(),
        cluster: "bench".into(),
        clock: Clock::system(),
    };
    let (writer, chunk) = (SessionWriter::create(&uploads, info, false).await.unwrap(), output());
    let (start, before, target) = (Instant::now(), processor(), 200_000_000);
    let mut written = 0;
    while written < target {
        writer.output(&chunk).await.unwrap();
        written += chunk.len();
    }
    writer.finish().await.unwrap();
    let (took, used) = (start.elapsed(), processor() - before);
    let megabytes = written as f64 / 1e6;
    line("recording a session", &format!("{:.0} MB/s", megabytes / took.as_secs_f64()), "one session, to disk");
    line("processor time of recording", &format!("{:.1} ms/MB", used.as_secs_f64() * 1e3 / megabytes), "of output");

    held(&uploads).await;
    for (what, seals) in [("storing an upload", false), ("storing an upload, sealed", true)] {
        let keys = Keyring::default();
        keys.set(vec![SealingKey::generate().unwrap()], seals);
        let store = DiskStore::open(&folder.join(what)).unwrap().with_keys(keys);
        let start = Instant::now();
        let bytes = store_recording(&store, SessionId::random(), 200).await;
        let rate = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
        line(what, &format!("{rate:.0} MB/s"), "of output, durable in pieces");
    }
}

/// Sessions that are held open, recorded and not.
const HELD: usize = 200;

/// The memory that a session's recording takes while the session waits for its user.
async fn held(uploads: &Uploads) {
    for recorded in [false, true] {
        let (before, mut writers) = (resident(), Vec::new());
        for _ in 0..HELD {
            let info = SessionInfo {
                session: SessionId::random(),
                server_id: "server".into(),
                cluster: "bench".into(),
                clock: Clock::system(),
            };
            let writer = match recorded {
                true => SessionWriter::create(uploads, info, false).await.unwrap(),
                false => SessionWriter::discard(info),
            };
            writer.output(&output()).await.unwrap();
            writers.push(writer);
        }
        tokio::time::sleep(2 * recording::FLUSH_DELAY).await;
        let each = resident().saturating_sub(before) as f64 / HELD as f64;
        let what = if recorded { "memory of a recorded session" } else { "memory of one that is not recorded" };
        line(what, &format!("{each:.0} KiB"), "besides the session itself");
        for writer in &writers {
            writer.finish().await.unwrap();
        }
    }
}

/// Stores a recording of this many MB of output; how many bytes it were.
async fn store_recording(store: &dyn Store, session: SessionId, megabytes: usize) -> usize {
    let mut upload = store.create(session).await.unwrap();
    upload.write(&codes::SESSION_START.event(SessionStart::default())).await.unwrap();
    let (chunk, mut written, mut index) = (output(), 0, 1);
    while written < megabytes * 1_000_000 {
        let print = SessionPrint {
            metadata: Some(Metadata { index, ..Default::default() }),
            data: chunk.clone(),
            delay_milliseconds: index,
            ..Default::default()
        };
        upload.write(&codes::SESSION_PRINT.event(print)).await.unwrap();
        written += chunk.len();
        index += 1;
    }
    upload.complete().await.unwrap();
    written
}

async fn replay(folder: &Path) {
    let megabytes = setting("TRAIL_RECORDING_MB", RECORDING);
    let (store, session) = (DiskStore::open(folder).unwrap(), SessionId::random());
    store_recording(&store, session, megabytes).await;
    let (start, before) = (Instant::now(), resident());
    let (mut stream, mut most, mut count) = (store.open(session).await.unwrap(), before, 0_u64);
    while stream.next().await.unwrap().is_some() {
        count += 1;
        if count.is_multiple_of(1000) {
            most = most.max(resident());
        }
    }
    let grown = (most - before) as f64 / 1024.0;
    let took = start.elapsed().as_secs_f64();
    line(
        &format!("replaying {megabytes} MB"),
        &format!("{grown:.1} MB"),
        &format!("more memory than before; {took:.1} s"),
    );
}

/// Processor time of this process.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn line(what: &str, value: &str, note: &str) {
    println!("{what:<40} {value:>12}  {note}");
}
