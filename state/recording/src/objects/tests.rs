#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::HashSet,
    io,
    path::Path as FilePath,
    sync::atomic::{AtomicUsize, Ordering},
};

use audit::{EventExt, codes};
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, ObjectMeta, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    UploadPart, memory::InMemory, path::Path,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use wire::events::{SessionEnd, SessionPrint, SessionStart};

use super::*;
use crate::SealingKey;

fn numbered(mut event: OneOf, index: i64) -> OneOf {
    event.metadata_mut().unwrap().index = index;
    event
}

fn story(prints: i64) -> Vec<OneOf> {
    let start = numbered(codes::SESSION_START.event(SessionStart::default()), 0);
    let print =
        |i| numbered(codes::SESSION_PRINT.event(SessionPrint { data: vec![b'x'; 1000], ..Default::default() }), i);
    let end = numbered(codes::SESSION_END.event(SessionEnd::default()), prints + 1);
    std::iter::once(start).chain((1..=prints).map(print)).chain([end]).collect()
}

struct Fixture {
    dir: TempDir,
    remote: Arc<InMemory>,
    keys: Keyring,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), remote: Arc::new(InMemory::new()), keys: Keyring::default() }
    }

    fn store(&self) -> ObjectRecordings {
        let staging = DiskStore::open(self.dir.path()).unwrap();
        let location = ObjectLocation::parse("s3://bucket/recordings").unwrap();
        ObjectRecordings::with(self.remote.clone(), location, staging, self.keys.clone())
    }

    fn staged(&self) -> Vec<String> {
        crate::part_file::names_in(self.dir.path()).unwrap().into_iter().filter(|name| name != "multi").collect()
    }
}

async fn upload(store: &dyn Store, session: SessionId, events: &[OneOf]) -> Result<Recording> {
    let mut upload = store.create(session).await?;
    for event in events {
        upload.write(event).await?;
    }
    upload.complete().await
}

async fn read(store: &dyn Store, session: SessionId) -> Vec<OneOf> {
    let mut stream = store.open(session).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn a_recording_becomes_one_object_and_leaves_the_folder() {
    let fixture = Fixture::new();
    let (store, session) = (fixture.store(), SessionId::random());
    let recording = upload(&store, session, &story(20)).await.unwrap();
    assert_eq!(recording.url, format!("s3://bucket/recordings/{session}"));
    assert!(fixture.staged().is_empty());
    assert_eq!(read(&store, session).await, story(20));
    assert!(matches!(store.open(SessionId::random()).await, Err(Error::NotFound(_))));
    // The same again, a longer version, and a different story.
    upload(&store, session, &story(20)[..5]).await.unwrap();
    assert_eq!(read(&store, session).await.len(), 22);
    let different = vec![numbered(codes::SESSION_START.event(SessionStart::default()), 0), story(3)[4].clone()];
    assert!(matches!(upload(&store, session, &different).await, Err(Error::Conflict(_))));
    assert!(fixture.staged().is_empty());
}

#[tokio::test]
async fn sealed_recordings_are_sealed_in_the_store_as_well() {
    let fixture = Fixture::new();
    fixture.keys.set(vec![SealingKey::generate().unwrap()], true);
    let (store, session) = (fixture.store(), SessionId::random());
    upload(&store, session, &story(3)).await.unwrap();
    assert_eq!(read(&store, session).await, story(3));
    let name = object_store::path::Path::from(format!("recordings/{session}.tar"));
    let bytes = fixture.remote.get(&name).await.unwrap().bytes().await.unwrap();
    assert!(bytes.starts_with(b"tp-seal"));
}

#[tokio::test]
async fn what_an_outage_has_left_in_the_folder_is_delivered_later() {
    let fixture = Fixture::new();
    let (store, session) = (fixture.store(), SessionId::random());
    let staging = DiskStore::open(fixture.dir.path()).unwrap();
    upload(&staging, session, &story(2)).await.unwrap();
    assert_eq!(read(&store, session).await, story(2));
    assert!(store.settle().await.unwrap().is_empty(), "its agent may still be trying");
    let old = SystemTime::now() - 2 * LEFT_BEHIND;
    let path: &FilePath = &staging.recording(session);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    let settled = store.settle().await.unwrap();
    assert_eq!((settled.len(), settled[0].summary.events), (1, 4));
    assert!(fixture.staged().is_empty());
    assert_eq!(read(&store, session).await, story(2));
}

/// A store that refuses to complete some objects.
#[derive(Debug, Default)]
struct Refusing {
    inner: InMemory,
    refused: Arc<Mutex<HashSet<Path>>>,
    aborted: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct RefusedUpload {
    inner: Box<dyn MultipartUpload>,
    name: Path,
    refused: Arc<Mutex<HashSet<Path>>>,
    aborted: Arc<AtomicUsize>,
}

#[async_trait]
impl MultipartUpload for RefusedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        if self.refused.lock().contains(&self.name) {
            return Err(object_store::Error::Generic { store: "test", source: "full".into() });
        }
        self.inner.complete().await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.aborted.fetch_add(1, Ordering::Relaxed);
        self.inner.abort().await
    }
}

impl std::fmt::Display for Refusing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refusing")
    }
}

#[async_trait]
impl ObjectStore for Refusing {
    async fn put_opts(&self, at: &Path, data: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(at, data, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(RefusedUpload {
            inner: self.inner.put_multipart_opts(at, options).await?,
            name: at.clone(),
            refused: self.refused.clone(),
            aborted: self.aborted.clone(),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_recording_that_cannot_be_delivered_keeps_no_other_from_it_and_leaves_no_parts() {
    let (dir, remote) = (TempDir::new().unwrap(), Arc::new(Refusing::default()));
    let staging = DiskStore::open(dir.path()).unwrap();
    let location = ObjectLocation::parse("s3://bucket/recordings").unwrap();
    let sessions: [SessionId; 3] = std::array::from_fn(|_| SessionId::random());
    for session in sessions {
        upload(&staging, session, &story(2)).await.unwrap();
        let file = File::options().write(true).open(staging.recording(session)).unwrap();
        file.set_modified(SystemTime::now() - 2 * LEFT_BEHIND).unwrap();
    }
    remote.refused.lock().insert(location.object(sessions[1]));
    let store = ObjectRecordings::with(remote.clone(), location, staging, Keyring::default());
    let settled = |recordings: Vec<Recording>| recordings.into_iter().map(|r| r.session).collect::<HashSet<_>>();
    assert_eq!(settled(store.settle().await.unwrap()), HashSet::from([sessions[0], sessions[2]]));
    assert_eq!(remote.aborted.load(Ordering::Relaxed), 1);
    assert_eq!(settled(store.settle().await.unwrap()), HashSet::new());
    remote.refused.lock().clear();
    assert_eq!(settled(store.settle().await.unwrap()), HashSet::from([sessions[1]]));
    assert_eq!(read(&store, sessions[1]).await, story(2));
}

/// A server that speaks S3, as `pip install 'moto[server]'` brings it; ends with the test.
struct S3Server {
    process: std::process::Child,
    address: String,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl S3Server {
    /// Starts the program that `MOTO_SERVER` names, or that of the path; `None` where there is none.
    async fn start() -> Option<Self> {
        let program = std::env::var_os("MOTO_SERVER").unwrap_or_else(|| "moto_server".into());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = std::process::Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let Ok(process) = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()
        else {
            assert!(
                std::env::var_os("TESTS_COMPLETE").is_none(),
                "moto_server is missing: tests/setup --all installs it"
            );
            return None;
        };
        let server = Self { process, address: format!("127.0.0.1:{port}") };
        for _ in 0..600 {
            if server.make_bucket("recordings").await.is_ok_and(|answer| answer.contains("200 OK")) {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the S3 server does not answer");
    }

    async fn make_bucket(&self, name: &str) -> io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await?;
        let host = &self.address;
        let request = format!("PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

#[tokio::test]
async fn a_recording_of_many_parts_goes_to_an_s3_server_and_comes_back() {
    let Some(server) = S3Server::start().await else { return };
    let (dir, keys) = (TempDir::new().unwrap(), Keyring::default());
    let address = format!("s3://recordings/teleport?endpoint={}&insecure=true&disablesse=true", server.address);
    let location = ObjectLocation::parse(&address).unwrap();
    let remote = location.s3().unwrap().with_access_key_id("test").with_secret_access_key("test").build().unwrap();
    let store = ObjectRecordings::with(Arc::new(remote), location, DiskStore::open(dir.path()).unwrap(), keys);
    // Nothing compresses this: it takes several parts of an upload.
    let noise: Vec<u8> =
        (0..60_000_u32).flat_map(|n| uuid::Uuid::new_v5(&uuid::Uuid::nil(), &n.to_le_bytes()).into_bytes()).collect();
    let mut events = story(0);
    for (index, data) in noise.repeat(20).chunks(30_000).enumerate() {
        let event = codes::SESSION_PRINT.event(SessionPrint { data: data.to_vec(), ..Default::default() });
        events.push(numbered(event, 2 + i64::try_from(index).unwrap()));
    }
    let session = SessionId::random();
    upload(&store, session, &events).await.unwrap();
    assert!(crate::part_file::names_in(dir.path()).unwrap().iter().all(|name| name == "multi"));
    assert_eq!(read(&store, session).await, events);
    assert!(matches!(store.open(SessionId::random()).await, Err(Error::NotFound(_))));
}
