#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, fs::File, path::PathBuf};

use audit::codes;
use tempfile::TempDir;
use wire::events::{Resize, SessionEnd, SessionStart, one_of::Event};

use super::*;
use crate::EventStream;

fn info() -> SessionInfo {
    SessionInfo {
        session: SessionId::random(),
        server_id: "node".into(),
        cluster: "one".into(),
        clock: Clock::system(),
    }
}

async fn events(path: PathBuf) -> Vec<OneOf> {
    let mut stream = EventStream::from_file(File::open(path).unwrap()).unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        events.push(event);
    }
    events
}

fn output_of(events: &[OneOf]) -> Vec<u8> {
    let data = |e: &OneOf| match &e.event {
        Some(Event::SessionPrint(p)) => p.data.clone(),
        _ => Vec::new(),
    };
    events.iter().flat_map(data).collect()
}

#[tokio::test]
async fn a_session_is_recorded_in_order_and_numbered() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let info = info();
    let writer = SessionWriter::create(&uploads, info.clone(), false).await.unwrap();
    let start = writer.record(codes::SESSION_START.event(SessionStart::default())).unwrap();
    assert_eq!(start.session().unwrap().session_id, info.session.to_string());
    assert_eq!(start.server().unwrap().server_id, "node");
    writer.output(b"hello ").await.unwrap();
    writer.record(codes::RESIZE.event(Resize { terminal_size: "100:40".into(), ..Default::default() })).unwrap();
    writer.output(b"world").await.unwrap();
    writer.output(&vec![b'x'; 300_000]).await.unwrap();
    let end = writer.record(codes::SESSION_END.event(SessionEnd::default())).unwrap();
    writer.finish().await.unwrap();

    let events = events(uploads.recording(info.session)).await;
    let indexes: Vec<_> = events.iter().map(EventExt::index).collect();
    assert_eq!(indexes, (0..i64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!((&events[0], events.last().unwrap()), (&start, &end));
    let output = output_of(&events);
    assert!(output.starts_with(b"hello worldxxx") && output.len() == 300_011);
    let (mut offset, mut chunk) = (0, 0);
    for event in &events {
        let Some(Event::SessionPrint(print)) = &event.event else { continue };
        assert_eq!((print.offset, print.chunk_index, print.bytes), (offset, chunk, print.data.len() as i64));
        assert!(event.time().is_some() && event.uid().is_empty());
        offset += print.bytes;
        chunk += 1;
    }
    assert!(fs::read_dir(uploads.multi()).unwrap().next().is_none(), "nothing is left behind");
    assert!(writer.stamp(codes::SESSION_DATA.event(Default::default())).unwrap().index() > end.index());
}

#[tokio::test]
async fn a_clock_that_steps_disturbs_neither_order_nor_pace() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let step = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    let shown = step.clone();
    let clock = Clock::from_fn(move || {
        chrono::Utc::now() + chrono::TimeDelta::seconds(shown.load(std::sync::atomic::Ordering::Relaxed))
    });
    let info = SessionInfo { clock, ..info() };
    let writer = SessionWriter::create(&uploads, info.clone(), false).await.unwrap();
    writer.record(codes::SESSION_START.event(SessionStart::default())).unwrap();
    for hours in [0, -26, 48, -1] {
        step.store(hours * 3600, std::sync::atomic::Ordering::Relaxed);
        writer.output(format!("at {hours}\n").as_bytes()).await.unwrap();
        writer.record(codes::RESIZE.event(Resize { terminal_size: "100:40".into(), ..Default::default() })).unwrap();
    }
    writer.finish().await.unwrap();
    let events = events(uploads.recording(info.session)).await;
    assert_eq!(output_of(&events), b"at 0\nat -26\nat 48\nat -1\n");
    let delays: Vec<i64> = events
        .iter()
        .filter_map(|event| match &event.event {
            Some(Event::SessionPrint(print)) => Some(print.delay_milliseconds),
            _ => None,
        })
        .collect();
    assert!(delays.is_sorted() && delays.last().is_some_and(|last| *last < 60_000), "{delays:?}");
}

#[tokio::test]
async fn output_is_in_the_file_soon_while_the_session_goes_on() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let writer = SessionWriter::create(&uploads, info(), true).await.unwrap();
    let started = std::time::Instant::now();
    writer.output(b"typed").await.unwrap();
    let live = uploads.live().into_values().next().unwrap();
    live.progress.clone().wait_for(|p| p.flushed > 0).await.unwrap();
    assert!(started.elapsed() < FLUSH_DELAY + Duration::from_secs(5));
    assert_eq!(output_of(&events(live.file).await), b"typed");
}

#[tokio::test]
async fn dropping_the_writer_completes_the_recording() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let info = info();
    let writer = SessionWriter::create(&uploads, info.clone(), false).await.unwrap();
    writer.output(b"last words").await.unwrap();
    let mut progress = writer.progress.clone();
    drop(writer);
    progress.wait_for(|p| p.finished).await.unwrap();
    assert_eq!(output_of(&events(uploads.recording(info.session)).await), b"last words");
    uploads.woken().await;
}

#[tokio::test]
async fn a_session_without_events_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let writer = SessionWriter::create(&uploads, info(), false).await.unwrap();
    writer.finish().await.unwrap();
    assert!(uploads.finished().unwrap().is_empty());
    assert!(fs::read_dir(uploads.multi()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_session_that_is_not_recorded_still_has_numbered_events() {
    let writer = SessionWriter::discard(info());
    writer.output(b"secret").await.unwrap();
    for i in 0..3 {
        assert_eq!(writer.record(codes::SESSION_END.event(SessionEnd::default())).unwrap().index(), i);
    }
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn a_recording_whose_name_is_taken_stays_where_recovery_finds_it() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let info = info();
    fs::write(uploads.recording(info.session), "another").unwrap();
    let writer = SessionWriter::create(&uploads, info.clone(), false).await.unwrap();
    writer.output(b"mine").await.unwrap();
    let failed = writer.finish().await.unwrap_err();
    assert!(failed.to_string().contains("has failed"), "{failed}");
    assert_eq!(writer.failed().await.to_string(), failed.to_string());
    assert_eq!(fs::read(uploads.recording(info.session)).unwrap(), b"another");
    assert!(fs::read_dir(uploads.multi()).unwrap().next().is_some());
    assert!(writer.output(b"more").await.is_err());
    assert!(writer.record(codes::SESSION_END.event(SessionEnd::default())).is_ok());
}
