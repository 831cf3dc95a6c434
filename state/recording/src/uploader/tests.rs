#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs::{self, File},
    sync::atomic::{AtomicUsize, Ordering},
};

use audit::{Clock, EventExt, codes};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use wire::events::{SessionEnd, SessionStart};

use super::*;
use crate::{DiskStore, EventStream, Recording, SessionInfo, SessionWriter, Store, receive};

/// An Auth Service in this process, that can be told to misbehave.
struct Auth {
    store: DiskStore,
    recordings: Mutex<Vec<Recording>>,
    ends: Mutex<Vec<OneOf>>,
    streams: AtomicUsize,
    /// How many events a stream takes before it breaks; consumed one per stream.
    breaks: Mutex<Vec<usize>>,
    changed: tokio::sync::Notify,
}

impl Auth {
    fn new(dir: &TempDir, breaks: &[usize]) -> Arc<Self> {
        Arc::new(Self {
            store: DiskStore::in_data_dir(&dir.path().join("auth")).unwrap(),
            recordings: Mutex::default(),
            ends: Mutex::default(),
            streams: AtomicUsize::new(0),
            breaks: Mutex::new(breaks.to_vec()),
            changed: tokio::sync::Notify::new(),
        })
    }

    async fn received(&self, session: SessionId) -> Vec<OneOf> {
        let there = async {
            while !self.recordings.lock().iter().any(|r| r.session == session) {
                self.changed.notified().await;
            }
        };
        timeout(Duration::from_secs(20), there).await.unwrap();
        let mut stream = self.store.open(session).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.next().await.unwrap() {
            events.push(event);
        }
        events
    }
}

struct Client(Arc<Auth>);

#[async_trait]
impl UploadTarget for Client {
    async fn stream(&self, requests: mpsc::Receiver<AuditStreamRequest>) -> Result<StatusStream, wire::error::Error> {
        let auth = self.0.clone();
        auth.streams.fetch_add(1, Ordering::Relaxed);
        let most = auth.breaks.lock().pop().unwrap_or(usize::MAX);
        let (statuses, answers) = mpsc::channel(4);
        tokio::spawn(async move {
            let requests = ReceiverStream::new(requests).map(Ok).take(most);
            let outcome = receive(&auth.store, requests, &statuses, |_, _| Ok(())).await;
            match outcome {
                Ok(Some(recording)) => {
                    auth.recordings.lock().push(recording);
                    auth.changed.notify_one();
                }
                Ok(None) => {
                    let lost = wire::error::Error::connection_problem("connection lost");
                    statuses.send(Err(lost)).await.ok();
                }
                Err(e) => drop(statuses.send(Err(e)).await),
            }
        });
        Ok(Box::pin(ReceiverStream::new(answers)))
    }

    async fn session_ended(&self, event: OneOf) -> Result<(), wire::error::Error> {
        self.0.ends.lock().push(event);
        Ok(())
    }
}

use futures::StreamExt;

/// Scans so seldom that only being woken, or a retry, can be what makes an upload happen.
fn config() -> UploaderConfig {
    UploaderConfig {
        scan_interval: Duration::from_secs(3600),
        first_retry: Duration::from_millis(5),
        longest_retry: Duration::from_millis(20),
        ..UploaderConfig::default()
    }
}

fn start(uploads: &Uploads, auth: &Arc<Auth>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(Uploader::new(uploads.clone(), Arc::new(Client(auth.clone())), config()).run())
}

fn info(session: SessionId) -> SessionInfo {
    SessionInfo { session, server_id: "node".into(), cluster: "one".into(), clock: Clock::system() }
}

/// Records a session of a few hundred events.
async fn record(uploads: &Uploads, session: SessionId, follow: bool) -> SessionWriter {
    let writer = SessionWriter::create(uploads, info(session), follow).await.unwrap();
    let mut start = SessionStart::default();
    start.user.get_or_insert_default().user = "alice".into();
    writer.record(codes::SESSION_START.event(start)).unwrap();
    for i in 0..300 {
        writer.output(format!("line {i}\r\n").as_bytes()).await.unwrap();
        writer.record(codes::RESIZE.event(Default::default())).unwrap();
    }
    writer
}

async fn end(writer: &SessionWriter) {
    writer.record(codes::SESSION_END.event(SessionEnd::default())).unwrap();
    writer.finish().await.unwrap();
}

async fn until(what: impl Fn() -> bool) {
    let poll = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), poll).await.unwrap();
}

fn is_empty(uploads: &Uploads) -> bool {
    let folder = uploads.multi();
    let pending = folder.parent().unwrap();
    fs::read_dir(pending).unwrap().flatten().all(|e| e.file_name() == "multi")
        && fs::read_dir(folder).map_or(true, |mut d| d.next().is_none())
}

async fn all(path: &std::path::Path) -> Vec<OneOf> {
    let mut stream = EventStream::from_file(File::open(path).unwrap()).unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn a_finished_session_is_uploaded_at_once_and_removed() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[]));
    let uploader = start(&uploads, &auth);
    let session = SessionId::random();
    end(&record(&uploads, session, false).await).await;
    let events = auth.received(session).await;
    assert_eq!(events.last().unwrap().name(), "session.end");
    assert!(events.windows(2).all(|w| w[0].index() + 1 == w[1].index()));
    until(|| is_empty(&uploads)).await;
    assert!(auth.ends.lock().is_empty());
    uploader.abort();
}

#[tokio::test]
async fn broken_connections_are_resumed_without_loss_or_repetition() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[1, 2, 3, 50, 0, 120]));
    let session = SessionId::random();
    end(&record(&uploads, session, false).await).await;
    let recorded = all(&uploads.recording(session)).await;
    let uploader = start(&uploads, &auth);
    assert_eq!(auth.received(session).await, recorded);
    assert!(auth.streams.load(Ordering::Relaxed) >= 7);
    until(|| is_empty(&uploads)).await;
    uploader.abort();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_reads_no_answers_is_given_up() {
    use wire::proto::{CreateStream, audit_stream_request::Request};
    let (dir, session) = (TempDir::new().unwrap(), SessionId::random());
    let store = DiskStore::open(dir.path()).unwrap();
    let requests = futures::stream::unfold(0, |index| async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let request = match index {
            0 => Request::CreateStream(CreateStream { session_id: session.to_string() }),
            index => {
                let mut event = codes::SESSION_END.event(SessionEnd::default());
                event.metadata_mut().unwrap().index = index;
                Request::Event(event)
            }
        };
        Some((Ok::<_, wire::error::Error>(AuditStreamRequest { request: Some(request) }), index + 1))
    });
    let (statuses, _unread) = mpsc::channel(1);
    let outcome = receive(&store, Box::pin(requests), &statuses, |_, _| Ok(())).await;
    assert!(outcome.unwrap_err().to_string().contains("does not read"));
}

#[tokio::test]
async fn an_upload_the_other_end_has_forgotten_starts_anew() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[]));
    let session = SessionId::random();
    end(&record(&uploads, session, false).await).await;
    for upload_id in [crate::UploadId::random().to_string(), "not-an-id".into()] {
        let status = StreamStatus { upload_id, last_event_index: 100, last_upload_time: None };
        uploads.set_checkpoint(session, &status).unwrap();
    }
    let uploader = start(&uploads, &auth);
    assert_eq!(auth.received(session).await[0].name(), "session.start");
    uploader.abort();
}

#[tokio::test]
async fn a_followed_session_reaches_the_other_end_while_it_goes_on() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[40, 100]));
    let uploader = start(&uploads, &auth);
    let session = SessionId::random();
    let writer = record(&uploads, session, true).await;
    let stored = async || {
        for unfinished in auth.store.unfinished().await.unwrap() {
            // The uploader may be resuming it at this moment, which only one can.
            let resumed = auth.store.resume(session, unfinished.upload).await;
            if resumed.is_ok_and(|upload| upload.status().last_event_index > 100) {
                return true;
            }
        }
        false
    };
    let poll = async {
        while !stored().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), poll).await.unwrap();
    writer.output(b"the end").await.unwrap();
    end(&writer).await;
    let events = auth.received(session).await;
    assert_eq!(events.last().unwrap().name(), "session.end");
    assert!(events.windows(2).all(|w| w[0].index() + 1 == w[1].index()));
    until(|| is_empty(&uploads)).await;
    uploader.abort();
}

#[tokio::test]
async fn what_a_killed_process_has_left_is_recovered_at_any_cut_and_ended() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    let session = SessionId::random();
    let writer = record(&uploads, session, true).await;
    let live = uploads.live().remove(&session).unwrap();
    live.progress.clone().wait_for(|p| p.flushed > 0).await.unwrap();
    let bytes = fs::read(&live.file).unwrap();
    for cut in [1, 23, 24, 60, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let dir = TempDir::new().unwrap();
        let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[]));
        let folder = uploads.multi().join(crate::UploadId::random().to_string()).join(session.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("1.part"), &bytes[..cut]).unwrap();
        fs::write(folder.join("2.reservation"), [0; 100]).unwrap();
        let uploader = start(&uploads, &auth);
        if cut == bytes.len() {
            let events = auth.received(session).await;
            let end = events.last().unwrap();
            assert_eq!((end.name(), end.code()), ("session.end", "T2004I"));
            assert_eq!(end.session().unwrap().session_id, session.to_string());
            assert_eq!(auth.ends.lock().as_slice(), std::slice::from_ref(end));
        }
        until(|| is_empty(&uploads)).await;
        uploader.abort();
    }
    drop(writer);
}

#[tokio::test]
async fn a_running_session_is_not_taken_for_an_abandoned_one() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[]));
    let session = SessionId::random();
    let writer = record(&uploads, session, false).await;
    assert!(recover::abandoned(&uploads).unwrap().is_empty());
    let uploader = start(&uploads, &auth);
    end(&writer).await;
    let events = auth.received(session).await;
    assert_eq!(events.iter().filter(|e| e.name() == "session.end").count(), 1);
    assert!(auth.ends.lock().is_empty());
    uploader.abort();
}

#[tokio::test]
async fn a_damaged_recording_is_uploaded_as_far_as_it_goes_and_set_aside() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[]));
    let (session, noise) = (SessionId::random(), SessionId::random());
    end(&record(&uploads, session, false).await).await;
    let path = uploads.recording(session);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [bytes.as_slice(), b"something that is not a part"].concat()).unwrap();
    fs::write(uploads.recording(noise), "noise noise noise noise noise").unwrap();
    let uploader = start(&uploads, &auth);
    assert_eq!(auth.received(session).await.last().unwrap().name(), "session.end");
    until(|| is_empty(&uploads)).await;
    let aside = dir.path().join("log/upload/corrupted/default");
    for session in [session, noise] {
        assert!(aside.join(format!("{session}.tar")).exists() && aside.join(format!("{session}.error")).exists());
    }
    assert!(auth.store.open(noise).await.is_err());
    uploader.abort();
}

#[tokio::test]
async fn a_recording_that_conflicts_is_kept_on_the_agent() {
    let dir = TempDir::new().unwrap();
    let (uploads, auth) = (Uploads::open(dir.path()).unwrap(), Auth::new(&dir, &[]));
    let session = SessionId::random();
    let mut other = auth.store.create(session).await.unwrap();
    other.write(&codes::SESSION_START.event(SessionStart::default())).await.unwrap();
    other.complete().await.unwrap();
    end(&record(&uploads, session, false).await).await;
    let uploader = start(&uploads, &auth);
    let aside = dir.path().join(format!("log/upload/corrupted/default/{session}.tar"));
    until(|| aside.exists()).await;
    uploader.abort();
}

#[tokio::test]
async fn an_agent_cannot_put_events_of_other_sessions_into_a_recording() {
    let dir = TempDir::new().unwrap();
    let auth = Auth::new(&dir, &[]);
    let mut event = codes::SESSION_END.event(SessionEnd::default());
    event.session_mut().unwrap().session_id = SessionId::random().to_string();
    let stream = |requests: Vec<proto::audit_stream_request::Request>| {
        let requests =
            requests.into_iter().map(|r| Ok::<_, wire::error::Error>(AuditStreamRequest { request: Some(r) }));
        let auth = auth.clone();
        async move {
            let (statuses, _answers) = mpsc::channel(16);
            let requests = futures::stream::iter(requests.collect::<Vec<_>>());
            receive(&auth.store, requests, &statuses, |_, _| Ok(())).await
        }
    };
    use proto::audit_stream_request::Request;
    use wire::proto;
    let create = |id: &str| Request::CreateStream(proto::CreateStream { session_id: id.into() });
    let id = SessionId::random().to_string();
    let kind = async |requests| stream(requests).await.map(|r| r.is_some()).map_err(|e| e.kind);
    assert_eq!(kind(vec![create(&id), Request::Event(event)]).await, Err(ErrorKind::BadParameter));
    assert_eq!(kind(vec![create(&id), create(&id)]).await, Err(ErrorKind::BadParameter));
    assert_eq!(kind(vec![create("../../x")]).await, Err(ErrorKind::BadParameter));
    assert_eq!(kind(vec![Request::CompleteStream(proto::CompleteStream {})]).await, Err(ErrorKind::BadParameter));
    let resume = Request::ResumeStream(proto::ResumeStream { session_id: id.clone(), upload_id: "..".into() });
    assert_eq!(kind(vec![resume]).await, Err(ErrorKind::NotFound));
    assert_eq!(kind(vec![]).await, Ok(false));
    assert_eq!(kind(vec![create(&id), Request::CompleteStream(proto::CompleteStream {})]).await, Ok(true));
}

#[tokio::test]
async fn a_followed_session_does_without_the_disk() {
    let dir = TempDir::new().unwrap();
    let uploads = Uploads::open(dir.path()).unwrap();
    // Folders for recordings cannot be made.
    fs::write(uploads.multi(), b"").unwrap();
    let (session, auth) = (SessionId::random(), Auth::new(&dir, &[7, 60]));
    assert!(SessionWriter::create(&uploads, info(session), false).await.is_err());
    let uploader = start(&uploads, &auth);
    let writer = record(&uploads, session, true).await;
    let end = writer.record(codes::SESSION_END.event(SessionEnd::default())).unwrap();
    writer.finish().await.unwrap();
    let events = auth.received(session).await;
    assert_eq!(events.last(), Some(&end));
    let indexes: Vec<_> = events.iter().map(EventExt::index).collect();
    assert_eq!(indexes, (0..=end.index()).collect::<Vec<_>>());
    assert!(uploads.live().is_empty() && uploads.checkpoint(session).is_none());
    uploader.abort();
}
