#![allow(clippy::unwrap_used, clippy::panic)]

use std::{io, path::Path as FilePath};

use audit::{EventExt, codes};
use object_store::memory::InMemory;
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
        let process = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().ok()?;
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
