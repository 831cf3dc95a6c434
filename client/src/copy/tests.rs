//! Copies with OpenSSH's file server, where it is installed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::*;
use crate::sftp::Sftp;

/// OpenSSH's file server.
const SERVER: &str = "/usr/lib/openssh/sftp-server";

/// A folder for this machine, one for the host, and the host.
struct World {
    _server: Child,
    place: Place,
    here: TempDir,
    there: TempDir,
}

/// What was reported.
#[derive(Default)]
struct Log {
    failures: Mutex<Vec<String>>,
    begun: Mutex<Vec<(u64, u64)>>,
}

impl Observer for Log {
    fn begin(&self, _: &Path, size: u64, there: u64) {
        self.begun.lock().push((size, there));
    }
    fn advance(&self, _: &Path, _: u64) {}
    fn end(&self, _: &Path) {}
    fn failed(&self, path: &Path, error: &PlaceError) {
        self.failures.lock().push(format!("{}: {error}", path.display()));
    }
}

impl World {
    /// `None` where there is no such server.
    async fn new() -> Option<Self> {
        let there = tempfile::tempdir().unwrap();
        if !Path::new(SERVER).exists() {
            assert!(
                std::env::var_os("TESTS_COMPLETE").is_none(),
                "{SERVER} is missing, or this is not the root account"
            );
            eprintln!("skipped: there is no {SERVER}");
            return None;
        }
        let mut server = Command::new(SERVER);
        server.current_dir(there.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut server = server.spawn().unwrap();
        let stream = tokio::io::join(server.stdout.take().unwrap(), server.stdin.take().unwrap());
        let place = Place::There(Arc::new(Sftp::start(stream).await.unwrap()));
        Some(Self { _server: server, place, here: tempfile::tempdir().unwrap(), there })
    }

    async fn up(&self, paths: &[&str], to: &str, options: Options) -> (Copied, Log) {
        let paths = paths.iter().map(|path| self.here.path().join(path)).collect();
        run(vec![Sources { place: Place::Here, paths }], &self.place, Path::new(to), options).await
    }

    async fn down(&self, paths: &[&str], to: &str, options: Options) -> (Copied, Log) {
        let paths = paths.iter().map(PathBuf::from).collect();
        let sources = vec![Sources { place: self.place.clone(), paths }];
        run(sources, &Place::Here, &self.here.path().join(to), options).await
    }
}

async fn run(sources: Vec<Sources>, target: &Place, path: &Path, options: Options) -> (Copied, Log) {
    let log = Log::default();
    let copied = copy(&sources, target, path, options, &log).await;
    (copied, log)
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn files_of_all_sizes_arrive_as_they_are() {
    let Some(world) = World::new().await else { return };
    for size in [0, 1, 255 << 10, (255 << 10) + 1, 9_000_001] {
        fs::write(world.here.path().join("a"), bytes(size)).unwrap();
        let (copied, log) = world.up(&["a"], "b", Options::default()).await;
        assert_eq!(copied, Copied { files: 1, failures: 0 }, "{:?}", log.failures.lock());
        assert!(fs::read(world.there.path().join("b")).unwrap() == bytes(size), "{size}");
        world.down(&["b"], "c", Options::default()).await;
        assert!(fs::read(world.here.path().join("c")).unwrap() == bytes(size), "{size}");
    }
}

#[tokio::test]
async fn folders_are_copied_into_a_folder_or_as_a_new_one() {
    let Some(world) = World::new().await else { return };
    let source = world.here.path().join("source");
    fs::create_dir_all(source.join("sub/deep er")).unwrap();
    for i in 0..100 {
        fs::write(source.join(format!("sub/{i}")), bytes(i * 100)).unwrap();
    }
    fs::write(source.join("sub/deep er/ü"), b"x").unwrap();
    symlink("sub/7", source.join("link")).unwrap();
    let recursive = Options { recursive: true, ..Default::default() };
    // Not there yet: the copy itself.
    assert_eq!(world.up(&["source"], "new", recursive).await.0, Copied { files: 102, failures: 0 });
    assert_eq!(fs::read(world.there.path().join("new/link")).unwrap(), bytes(700));
    // There: it goes inside.
    world.up(&["source"], "new", recursive).await;
    assert!(world.there.path().join("new/source/sub/deep er/ü").exists());
    let (copied, _) = world.down(&["new/source/sub"], ".", recursive).await;
    assert_eq!(copied, Copied { files: 101, failures: 0 });
    assert_eq!(fs::read(world.here.path().join("sub/99")).unwrap(), bytes(9900));
    // The content alone.
    fs::create_dir(world.here.path().join("content")).unwrap();
    world.down(&["new/source/."], "content", recursive).await;
    assert!(world.here.path().join("content/sub/99").exists());
}

#[tokio::test]
async fn permissions_and_times_are_kept_on_request() {
    let Some(world) = World::new().await else { return };
    let source = world.here.path().join("folder");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("x"), b"x").unwrap();
    fs::set_permissions(source.join("x"), fs::Permissions::from_mode(0o750)).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(981_173_106);
    for path in [source.join("x"), source.clone()] {
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
    fs::set_permissions(&source, fs::Permissions::from_mode(0o500)).unwrap();
    let options = Options { recursive: true, preserve: true, resume: false };
    let (copied, log) = world.up(&["folder"], "copy", options).await;
    assert_eq!(copied.failures, 0, "{:?}", log.failures.lock());
    world.down(&["copy"], "back", options).await;
    for base in [world.there.path().join("copy"), world.here.path().join("back")] {
        let (folder, file) = (fs::metadata(&base).unwrap(), fs::metadata(base.join("x")).unwrap());
        assert_eq!((file.mode() & 0o777, file.mtime()), (0o750, 981_173_106), "{}", base.display());
        assert_eq!((folder.mode() & 0o777, folder.mtime()), (0o500, 981_173_106), "{}", base.display());
    }
}

#[tokio::test]
async fn patterns_stand_for_files_of_the_host() {
    let Some(world) = World::new().await else { return };
    for folder in ["a1", "a2", "b1"] {
        fs::create_dir(world.there.path().join(folder)).unwrap();
        for file in ["x.log", "y.log", "z.txt", ".hidden.log"] {
            let file = if file.starts_with('.') { file.to_owned() } else { format!("{folder}{file}") };
            fs::write(world.there.path().join(folder).join(file), b"").unwrap();
        }
    }
    fs::write(world.there.path().join("[literal]"), b"").unwrap();
    fs::create_dir(world.here.path().join("in")).unwrap();
    let (copied, _) = world.down(&["a*/*.log", "[literal]"], "in", Options::default()).await;
    assert_eq!(copied, Copied { files: 5, failures: 0 });
    let (copied, log) = world.down(&["c*/*"], "in", Options::default()).await;
    assert_eq!(copied.failures, 1);
    assert_eq!(*log.failures.lock(), ["c*/*: no such file or directory"]);
}

#[tokio::test]
async fn a_copy_that_was_interrupted_is_gone_on_with() {
    let Some(world) = World::new().await else { return };
    let whole = bytes(3_000_000);
    fs::write(world.here.path().join("a"), &whole).unwrap();
    fs::write(world.there.path().join("b"), &whole[..1_000_001]).unwrap();
    let options = Options { resume: true, ..Default::default() };
    let (_, log) = world.up(&["a"], "b", options).await;
    assert_eq!(*log.begun.lock(), [(3_000_000, 1_000_001)]);
    assert!(fs::read(world.there.path().join("b")).unwrap() == whole);
    fs::write(world.there.path().join("b"), [&whole[..], b"more"].concat()).unwrap();
    let (copied, log) = world.up(&["a"], "b", options).await;
    assert_eq!(copied.failures, 1);
    assert!(log.failures.lock()[0].contains("larger"));
}

#[tokio::test]
async fn failures_are_named_and_leave_the_rest_alone() {
    let Some(world) = World::new().await else { return };
    fs::write(world.here.path().join("good"), b"x").unwrap();
    fs::create_dir(world.here.path().join("folder")).unwrap();
    fs::create_dir(world.there.path().join("in")).unwrap();
    let (copied, log) = world.up(&["nope", "folder", "good"], "in", Options::default()).await;
    assert_eq!(copied, Copied { files: 1, failures: 2 });
    let failures = log.failures.lock().clone();
    assert!(failures[0].ends_with("nope: no such file or directory"), "{failures:?}");
    assert!(failures[1].contains("folder: is a directory") && failures[1].contains("-r"), "{failures:?}");
    // Nothing is made for a source that is not there.
    world.up(&["nope"], "made", Options::default()).await;
    world.down(&["nope"], "made", Options::default()).await;
    assert!(!world.there.path().join("made").exists() && !world.here.path().join("made").exists());
    // Several things go into a folder only, and a folder has to be there.
    for (paths, to) in [(&["good", "good"][..], "file"), (&["good"], "nowhere/"), (&["good"], "nowhere/x")] {
        let (copied, log) = world.up(paths, to, Options::default()).await;
        assert!(copied.failures > 0 && log.failures.lock()[0].contains(to.trim_end_matches('/')), "{to}");
    }
    // What is no file is not waited for.
    nix::unistd::mkfifo(&world.there.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (copied, log) = world.down(&["pipe"], "x", Options::default()).await;
    assert_eq!((copied.failures, log.failures.lock()[0].as_str()), (1, "pipe: is not a regular file"));
}

#[tokio::test]
async fn files_of_the_kernel_are_read_to_their_end() {
    let Some(world) = World::new().await else { return };
    world.down(&["/proc/self/status"], "status", Options::default()).await;
    assert!(fs::read_to_string(world.here.path().join("status")).unwrap().contains("sftp-server"));
}

#[tokio::test]
async fn a_link_that_leads_back_ends_somewhere() {
    let Some(world) = World::new().await else { return };
    fs::create_dir(world.there.path().join("loop")).unwrap();
    symlink(".", world.there.path().join("loop/again")).unwrap();
    let recursive = Options { recursive: true, ..Default::default() };
    let (copied, log) = world.down(&["loop"], "copy", recursive).await;
    assert!(copied.failures == 1, "{:?}", log.failures.lock());
}

#[tokio::test]
async fn a_server_that_ends_or_talks_nonsense_is_an_error() {
    let cases: [&[u8]; 4] = [b"", b"\0\0\0\x05\x02\0\0\0\x04", b"\xff\xff\xff\xff", b"this is no file server"];
    for answer in cases {
        let stream = tokio::io::join(answer, tokio::io::sink());
        assert!(Sftp::start(stream).await.is_err(), "{answer:?}");
    }
    // It begins well.
    let stream = tokio::io::join(&b"\0\0\0\x05\x02\0\0\0\x03\0\0\0\x01\xff"[..], tokio::io::sink());
    let place = Place::There(Arc::new(Sftp::start(stream).await.unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let sources = vec![Sources { place, paths: vec!["x".into()] }];
    let (copied, log) = run(sources, &Place::Here, &folder.path().join("x"), Options::default()).await;
    assert_eq!(copied.failures, 1);
    assert_eq!(*log.failures.lock(), ["x: the connection was lost"]);
}

#[tokio::test]
async fn a_file_is_not_copied_onto_itself() {
    let Some(world) = World::new().await else { return };
    fs::write(world.there.path().join("one"), "content").unwrap();
    for to in ["one", "./one", "."] {
        let sources = vec![Sources { place: world.place.clone(), paths: vec!["one".into()] }];
        let (copied, log) = run(sources, &world.place, Path::new(to), Options::default()).await;
        assert_eq!((copied.files, copied.failures), (0, 1), "{to}");
        assert!(log.failures.lock()[0].contains("the same file"), "{:?}", log.failures.lock());
    }
    assert_eq!(fs::read(world.there.path().join("one")).unwrap(), b"content");
}

#[tokio::test]
async fn a_folder_among_what_fits_a_pattern_keeps_nothing_else_from_being_copied() {
    let Some(world) = World::new().await else { return };
    fs::create_dir(world.there.path().join("folder")).unwrap();
    for name in ["a", "b"] {
        fs::write(world.there.path().join(name), name).unwrap();
    }
    fs::create_dir(world.here.path().join("to")).unwrap();
    let (copied, log) = world.down(&["*"], "to", Options::default()).await;
    assert_eq!((copied.files, copied.failures), (2, 1));
    assert!(log.failures.lock()[0].starts_with("folder: "), "{:?}", log.failures.lock());
}

/// What a server answers to a request, of protocol version 3 (draft-ietf-secsh-filexfer-02), when it lies about names.
fn lie(request: &[u8]) -> Vec<u8> {
    let string = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
    let id = request.get(1..5).unwrap_or_default();
    let body = match request.first() {
        Some(1) => [&[2][..], &3_u32.to_be_bytes()].concat(),
        // OPENDIR: a handle. READDIR: one entry, with no attributes but that it is a regular file.
        Some(11) => [&[102][..], id, &string(b"h")].concat(),
        Some(12) => {
            let attributes = [4_u32.to_be_bytes(), 0o100_644_u32.to_be_bytes()].concat();
            [&[104][..], id, &1_u32.to_be_bytes(), &string(b"x/.bashrc"), &string(b""), &attributes].concat()
        }
        // CLOSE is fine; whatever else is asked for is not there.
        Some(4) => [&[101][..], id, &0_u32.to_be_bytes(), &string(b""), &string(b"")].concat(),
        _ => [&[101][..], id, &2_u32.to_be_bytes(), &string(b""), &string(b"")].concat(),
    };
    string(&body)
}

#[tokio::test]
async fn a_server_that_names_files_elsewhere_is_not_believed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, mut far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        while let Ok(length) = far.read_u32().await {
            let mut request = vec![0; length as usize];
            far.read_exact(&mut request).await.unwrap();
            far.write_all(&lie(&request)).await.unwrap();
        }
    });
    let place = Place::There(Arc::new(Sftp::start(near).await.unwrap()));
    let here = tempfile::tempdir().unwrap();
    let sources = vec![Sources { place, paths: vec!["*".into()] }];
    let (copied, log) = run(sources, &Place::Here, here.path(), Options::default()).await;
    assert_eq!((copied.files, copied.failures), (0, 1));
    assert!(log.failures.lock()[0].contains("outside of the folder"), "{:?}", log.failures.lock());
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
}
