//! The worker that opens sockets with the user's rights.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

use super::protocol::{Answer, MAX_MESSAGE, Operation, Reply, Request};

/// How long connecting to one address may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a Unix socket whose queue is full is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long what is being opened is waited for when the client is gone.
const LAST_WORK: Duration = Duration::from_secs(1);
/// Requests that may be under way at once.
const MAX_UNDER_WAY: usize = 128;
/// The most that is read of the user's environment file.
const MAX_ENVIRONMENT: u64 = 64 * 1024;
/// Where displays have their sockets.
const DISPLAYS: &str = "/tmp/.X11-unix";

/// What was opened.
type Opened = (Answer, Vec<OwnedFd>);

/// Files that end with the worker.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<Vec<PathBuf>>>);

/// Serves requests on the standard input until it ends.
pub(super) fn serve_standard_input() -> io::Result<()> {
    let input = io::stdin();
    serve(input.as_fd())
}

pub(super) fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    let socket = Arc::new(socket.try_clone_to_owned()?);
    let files = Files::default();
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut buffer = vec![0; MAX_MESSAGE];
    let result = loop {
        let mut none = RecvAncillaryBuffer::default();
        let received = recvmsg(&*socket, &mut [IoSliceMut::new(&mut buffer)], &mut none, RecvFlags::empty());
        let length = match received {
            Ok(message) if message.bytes == 0 => break Ok(()),
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => break Err(error.into()),
        };
        let request: Request = match serde_json::from_slice(buffer.get(..length).unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => break Err(io::Error::other(error)),
        };
        let Request { id, operation } = request;
        // Names take time to resolve, hosts to answer and file systems to open: others do not wait for that.
        if under_way.fetch_add(1, Ordering::SeqCst) >= MAX_UNDER_WAY {
            under_way.fetch_sub(1, Ordering::SeqCst);
            answer(&socket, id, Err(io::Error::other("too many connections are being made at once")));
            continue;
        }
        let work = {
            let (socket, under_way, files) = (socket.clone(), under_way.clone(), files.clone());
            move || {
                answer(&socket, id, open(operation, &files));
                under_way.fetch_sub(1, Ordering::SeqCst);
            }
        };
        if let Err(error) = std::thread::Builder::new().spawn(work) {
            under_way.fetch_sub(1, Ordering::SeqCst);
            answer(&socket, id, Err(error));
        }
    };
    // What is being opened at this moment may have made a file.
    for _ in 0..LAST_WORK.as_millis() / PAUSE.as_millis() {
        if under_way.load(Ordering::SeqCst) == 0 {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    files.remove_all();
    result
}

/// Sends what was opened. A daemon that is gone needs no answer.
fn answer(socket: &OwnedFd, id: u64, opened: io::Result<Opened>) {
    let (answer, descriptors) = match opened {
        Ok((answer, descriptors)) => (Ok(answer), descriptors),
        Err(error) => (Err(describe(&error)), Vec::new()),
    };
    let Ok(text) = serde_json::to_vec(&Reply { id, answer }) else { return };
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&borrowed));
    }
    let _ = sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL);
}

/// An error in words, without the number that Rust adds.
pub(super) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

fn open(operation: Operation, files: &Files) -> io::Result<Opened> {
    match operation {
        Operation::Connect { host, port } => connect(&host, port),
        Operation::Listen { host, port } => listen(&host, port),
        Operation::ConnectUnix { path } => connect_unix(&path),
        Operation::ListenUnix { path } => {
            let listener = UnixListener::bind(&path)?;
            files.add(Path::new(&path));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok((Answer { path, ..Answer::default() }, vec![listener.into()]))
        }
        Operation::ListenAgent => listen_agent(files),
        Operation::ListenDisplay { first, last } => listen_display(first, last, files),
        Operation::Remove { path } => {
            files.remove(Path::new(&path));
            Ok(Opened::default())
        }
        Operation::Environment => {
            let mut text = String::new();
            // What is no file, such as a pipe that nobody writes to, would keep the session from beginning.
            let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
            let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(".tsh/environment")?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("not a file"));
            }
            file.take(MAX_ENVIRONMENT).read_to_string(&mut text)?;
            Ok((Answer { text, ..Answer::default() }, Vec::new()))
        }
    }
}

/// Tries the addresses of a host in turn.
fn connect(host: &str, port: u16) -> io::Result<Opened> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true); // a slower socket is still one
                return Ok((Answer::default(), vec![stream.into()]));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to a Unix socket. Waiting for one whose queue is full would have no end by itself.
fn connect_unix(path: &str) -> io::Result<Opened> {
    let address = SocketAddrUnix::new(path)?;
    let tries = CONNECT.as_millis() / PAUSE.as_millis();
    for _ in 0..tries {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok((Answer::default(), vec![socket])),
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited 10 s for {path} to accept a connection")))
}

/// Listens as RFC 4254 §7.1 names addresses: empty and `*` are all, `localhost` is loopback.
fn listen(host: &str, port: u16) -> io::Result<Opened> {
    let listener = match host {
        "" | "*" => TcpListener::bind(SocketAddr::from(([0u16; 8], port)))
            .or_else(|_| TcpListener::bind(SocketAddr::from(([0u8; 4], port))))?,
        "localhost" => TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?,
        host => TcpListener::bind((host, port))?,
    };
    let port = listener.local_addr()?.port();
    Ok((Answer { port, ..Answer::default() }, vec![listener.into()]))
}

fn listen_agent(files: &Files) -> io::Result<Opened> {
    let process = std::process::id();
    let folder = (0u32..100).find_map(|attempt| {
        let folder = std::env::temp_dir().join(format!("teleport-{process}-{attempt}"));
        // Only a folder that is new is the user's own.
        fs::DirBuilder::new().mode(0o700).create(&folder).is_ok().then_some(folder)
    });
    let folder = folder.ok_or_else(|| io::Error::other("no folder for the agent's socket could be made"))?;
    let path = folder.join(format!("teleport-{process}.socket"));
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    files.add(&folder);
    files.add(&path);
    Ok((Answer { path: path.display().to_string(), ..Answer::default() }, vec![listener.into()]))
}

fn listen_display(first: u32, last: u32, files: &Files) -> io::Result<Opened> {
    // Where no program with a display ever ran, the folder is missing; all users share it.
    if fs::DirBuilder::new().mode(0o1777).create(DISPLAYS).is_ok() {
        fs::set_permissions(DISPLAYS, fs::Permissions::from_mode(0o1777))?;
    }
    for display in first..=last {
        let path = PathBuf::from(format!("{DISPLAYS}/X{display}"));
        // Clients try the abstract name first: one that somebody else holds would get what is meant for us.
        let name = std::os::unix::net::SocketAddr::from_abstract_name(path.as_os_str().as_encoded_bytes())?;
        let Ok(abstract_listener) = UnixListener::bind_addr(&name) else { continue };
        let Ok(listener) = UnixListener::bind(&path) else { continue };
        files.add(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let answer = Answer { display, path: path.display().to_string(), ..Answer::default() };
        return Ok((answer, vec![listener.into(), abstract_listener.into()]));
    }
    Err(io::Error::other("The server cannot support any more X11 forwarding sessions at this time"))
}

impl Files {
    fn add(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }

    /// Removes a file that was made here.
    fn remove(&self, path: &Path) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = files.iter().position(|p| p == path) {
            files.swap_remove(index);
            let _ = fs::remove_file(path); // somebody may have removed it already
        }
    }

    /// Removes what is left, files before the folders they are in.
    fn remove_all(&self) {
        for path in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).rev() {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)); // it may be gone
        }
    }
}
