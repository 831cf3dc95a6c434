#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::{Command, ExitStatus};

use super::*;
use crate::What;

const PAGES: PerKind<u32> = PerKind { command: 8, disk: 128, network: 8 };

/// Control groups of the test's own: all mounts show the same ones.
fn settings(folder: &tempfile::TempDir, pages: PerKind<u32>) -> Settings {
    Settings { pages, cgroup_path: folder.path().join("groups"), root_path: root(folder) }
}

fn root(folder: &tempfile::TempDir) -> std::path::PathBuf {
    format!("teleport-tests{}", folder.path().file_name().unwrap().display()).into()
}

/// Not hidden with the output of tests that pass: a machine that does not allow a test has not run it.
fn skipped(why: &Error) {
    let built = !matches!(why, Error::NotBuilt(_));
    assert!(built || std::env::var_os("TESTS_COMPLETE").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: the kernel is not asked to watch anything here: {why}");
}

#[test]
fn releases_of_kernels_are_read() {
    assert_eq!(kernel_version("6.18.44-fc-v669"), Some((6, 18)));
    assert_eq!(kernel_version("5.8+debian"), Some((5, 8)));
    assert_eq!(kernel_version("unknown"), None);
    assert!(kernel_version("5.10.0").unwrap() > OLDEST_KERNEL);
}

#[test]
fn buffers_are_powers_of_two_whatever_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let asked = settings(&folder, PerKind { command: 0, disk: 5, network: u32::MAX });
    let page = u32::try_from(rustix::param::page_size()).unwrap();
    assert_eq!(ring_size(Kind::Command, &asked), page);
    assert_eq!(ring_size(Kind::Disk, &asked), 8 * page);
    assert_eq!(ring_size(Kind::Network, &asked), MAX_BUFFER);
}

/// A monitor with control groups of its own; `None`, and said aloud, where the machine does not allow one.
fn monitor() -> Option<(tempfile::TempDir, Monitor)> {
    let folder = tempfile::tempdir().unwrap();
    match Monitor::start(&settings(&folder, PAGES)) {
        Ok(monitor) => Some((folder, monitor)),
        Err(error) => {
            skipped(&error);
            None
        }
    }
}

/// Unmounts the groups before their folder is removed.
fn end(folder: tempfile::TempDir, monitor: Monitor) {
    drop(monitor);
    let mounted = folder.path().join("groups");
    std::fs::remove_dir(mounted.join(root(&folder))).unwrap();
    rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::empty()).unwrap();
}

/// Runs a shell's line in the group.
fn run(watched: &Watched, line: &str) -> ExitStatus {
    let entrance = watched.entrance().unwrap();
    let script = format!("echo 0 > /proc/{}/fd/{}; {line}", std::process::id(), entrance.as_raw_fd());
    Command::new("/bin/sh").args(["-c", &script]).env("PATH", "/usr/bin:/bin").status().unwrap()
}

async fn events_of(line: &str, kinds: PerKind<bool>) -> Option<Vec<Event>> {
    let (folder, monitor) = monitor()?;
    let (watched, mut receiver) = monitor.watch(&Uuid::new_v4().to_string(), kinds).unwrap();
    run(&watched, line);
    assert_eq!(watched.end().await, PerKind::default(), "nothing is lost");
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    end(folder, monitor);
    Some(events)
}

const ALL: PerKind<bool> = PerKind { command: true, disk: true, network: true };

fn path_of(event: &Event) -> &str {
    match &event.what {
        What::Ran { path, .. } | What::Opened { path, .. } => path,
        What::Connected { .. } => "",
    }
}

#[tokio::test]
async fn programs_are_told_with_their_arguments_parents_and_results() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh -u\nexec /bin/true from-script\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let line = format!(
        "/bin/echo one 'two three' '' >/dev/null; {} x; /no/such/program y; /etc/passwd z; true",
        script.display()
    );
    let Some(events) = events_of(&line, PerKind { command: true, ..PerKind::default() }).await else { return };
    let ran: Vec<_> = events
        .iter()
        .map(|event| match &event.what {
            What::Ran { path, arguments, result } => (path.as_str(), arguments.join("|"), *result),
            other => panic!("{other:?}"),
        })
        .collect();
    let own = script.display().to_string();
    let expected = [
        ("/bin/echo", "one|two three|".to_owned(), 0),
        (own.as_str(), "x".to_owned(), 0),
        ("/bin/true", "from-script".to_owned(), 0),
        ("/no/such/program", "y".to_owned(), -2),
        ("/etc/passwd", "z".to_owned(), -13),
    ];
    assert_eq!(ran, expected);
    assert_eq!(events[0].process.program, "echo");
    assert_eq!(events[0].process.parent, events[1].process.parent);
    assert_eq!(events[1].process.id, events[2].process.id, "exec keeps the process");
    let age = SystemTime::now().duration_since(events[0].at).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
}

#[tokio::test]
async fn files_are_told_with_flags_and_results() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made").display().to_string();
    let line = format!("echo x >{made}; read l <{made}; cat {made} /no/such/file >/dev/null 2>&1; true");
    let Some(events) = events_of(&line, PerKind { disk: true, ..PerKind::default() }).await else { return };
    let opened: Vec<_> = events
        .iter()
        .filter(|event| [made.as_str(), "/no/such/file"].contains(&path_of(event)))
        .map(|event| match &event.what {
            What::Opened { flags, result, .. } => (event.process.program.as_str(), *flags, (*result).min(0)),
            other => panic!("{other:?}"),
        })
        .collect();
    let (write, read) = (0o1101, 0);
    assert_eq!(opened, [("sh", write, 0), ("sh", read, 0), ("cat", read, 0), ("cat", read, -2)]);
}

/// Opens its argument through io_uring; says so when the kernel has none.
const THROUGH_IO_URING: &str = r#"
import ctypes, mmap, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
parameters = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 2, parameters)
if ring < 0: sys.exit(42)
_, tail, _, _, _, _, array = struct.unpack_from("<7I", parameters.raw, 40)
submissions = mmap.mmap(ring, 4096, offset=0)
entries = mmap.mmap(ring, 4096, offset=0x10000000)
path = ctypes.create_string_buffer(sys.argv[1].encode())
entries[:40] = struct.pack("<BBHiQQIIQ", 18, 0, 0, -100, 0, ctypes.addressof(path), 0, 0, 1)
submissions[array:array + 4] = struct.pack("<I", 0)
submissions[tail:tail + 4] = struct.pack("<I", 1)
sys.exit(0 if libc.syscall(426, ring, 1, 1, 1, None, 0) == 1 else 1)
"#;

#[tokio::test]
async fn files_opened_through_io_uring_are_told() {
    let Some((folder, monitor)) = monitor() else { return };
    let program = folder.path().join("ring.py");
    std::fs::write(&program, THROUGH_IO_URING).unwrap();
    let (watched, mut receiver) =
        monitor.watch(&Uuid::new_v4().to_string(), PerKind { disk: true, ..PerKind::default() }).unwrap();
    let status = run(&watched, &format!("exec python3 {} /etc/hostname", program.display()));
    watched.end().await;
    let mut opened = Vec::new();
    while let Some(event) = receiver.recv().await {
        opened.extend((path_of(&event) == "/etc/hostname").then_some(event.what));
    }
    let types = Btf::from_sys_fs().unwrap();
    let is_told = types.id_by_type_name_kind("btf_trace_io_uring_submit_req", BtfKind::Typedef).is_ok();
    if status.code() == Some(42) || !is_told {
        let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel has no io_uring, or does not tell of it");
    } else {
        assert!(status.success(), "{status}");
        assert_eq!(opened, [What::Opened { path: "/etc/hostname".into(), flags: 0x8000, result: 0 }]);
    }
    end(folder, monitor);
}

#[tokio::test]
async fn connections_are_told_with_both_ends() {
    let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let line = format!(
        "python3 -c 'import socket; [socket.create_connection((h, p)).close() for h, p in ((\"127.0.0.1\", {}), (\"::1\", {}))]'",
        ports[0], ports[1]
    );
    let Some(events) = events_of(&line, PerKind { network: true, ..PerKind::default() }).await else { return };
    let connected: Vec<_> = events.into_iter().map(|event| event.what).collect();
    let between = |address: &str, port| {
        let address: std::net::IpAddr = address.parse().unwrap();
        What::Connected { source: address, destination: std::net::SocketAddr::new(address, port) }
    };
    assert_eq!(connected, [between("127.0.0.1", ports[0]), between("::1", ports[1])]);
}

#[tokio::test]
async fn what_others_do_and_what_is_not_wanted_is_not_told() {
    let Some((folder, monitor)) = monitor() else { return };
    let (watched, mut receiver) =
        monitor.watch(&Uuid::new_v4().to_string(), PerKind { disk: true, ..PerKind::default() }).unwrap();
    Command::new("/bin/cat").arg("/etc/hostname").output().unwrap();
    run(&watched, "/bin/true");
    watched.end().await;
    while let Some(event) = receiver.recv().await {
        assert!(matches!(event.what, What::Opened { .. }), "{event:?}");
        assert_ne!(path_of(&event), "/etc/hostname");
    }
    end(folder, monitor);
}

#[tokio::test]
async fn processes_of_a_group_within_the_session_and_children_of_children_are_told() {
    let Some((folder, monitor)) = monitor() else { return };
    let (watched, mut receiver) = monitor.watch(&Uuid::new_v4().to_string(), ALL).unwrap();
    let group = watched.group.as_ref().unwrap().folder.clone();
    let inner = group.join("inner");
    let line = format!(
        "mkdir {0}; echo 0 > {0}/cgroup.procs; (/bin/sh -c '/bin/echo deep >/dev/null; exit 0')",
        inner.display()
    );
    run(&watched, &line);
    watched.end().await;
    let mut paths = Vec::new();
    while let Some(event) = receiver.recv().await {
        paths.push(path_of(&event).to_owned());
    }
    assert!(paths.iter().any(|path| path == "/bin/echo"), "{paths:?}");
    assert!(!inner.exists(), "groups made within the session's are removed");
    end(folder, monitor);
}

#[tokio::test]
async fn what_does_not_fit_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let pages = PerKind { command: 1, disk: 1, network: 1 };
    let monitor = match Monitor::start(&settings(&folder, pages)) {
        Ok(monitor) => monitor,
        Err(error) => return skipped(&error),
    };
    let (watched, mut receiver) = monitor.watch(&Uuid::new_v4().to_string(), ALL).unwrap();
    // Nobody reads the buffers meanwhile.
    let held = monitor.shared.rings.lock();
    run(&watched, "for i in 1 2 3 4 5 6 7 8 9; do for j in 1 2 3 4 5 6 7 8 9; do : </etc/passwd; done; done");
    drop(held);
    let lost = watched.end().await;
    let mut told = 0;
    while let Some(event) = receiver.recv().await {
        told += u64::from(path_of(&event) == "/etc/passwd");
    }
    assert!(lost.disk > 0 && told > 0, "{lost:?}, {told}");
    assert_eq!(lost.disk + told, 81);
    assert_eq!(monitor.losses().count().disk, lost.disk);
    end(folder, monitor);
}

#[tokio::test]
async fn groups_of_a_run_that_is_over_are_removed_and_their_processes_go_on() {
    let Some((folder, monitor)) = monitor() else { return };
    let base = folder.path().join("groups").join(root(&folder));
    let crashed = base.join(Uuid::new_v4().to_string());
    let session = crashed.join(Uuid::new_v4().to_string());
    std::fs::create_dir_all(&session).unwrap();
    let mut process = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    std::fs::write(session.join("cgroup.procs"), process.id().to_string()).unwrap();
    let running = std::fs::read_dir(&base).unwrap().count();
    let next = Monitor::start(&settings(&folder, PAGES)).unwrap();
    assert!(!crashed.exists());
    assert!(process.try_wait().unwrap().is_none(), "it goes on");
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), running, "that of the other one that runs is left alone");
    process.kill().unwrap();
    process.wait().unwrap();
    drop(next);
    end(folder, monitor);
}

#[test]
fn a_folder_with_something_else_in_it_is_not_mounted_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let settings = Settings { cgroup_path: folder.path().to_owned(), ..settings(&folder, PAGES) };
    match Monitor::start(&settings) {
        Err(Error::NotGroups(named)) => assert_eq!(named, folder.path()),
        Err(error) => skipped(&error),
        Ok(_) => panic!("a folder that is in use was taken"),
    }
}
