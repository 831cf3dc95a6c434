//! A client of the SSH File Transfer Protocol.
//!
//! Requests may be under way side by side: [`Sftp::begin_read`] and [`Sftp::begin_write`] return as soon as they are
//! sent, in the order of the calls, and their answers are waited for later.

mod packet;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use packet::{Answer, Request, kind};
pub use packet::{Attributes, open};

/// Largest message that is read.
const LARGEST_MESSAGE: usize = 512 << 10;
/// Bytes in one read or write, unless the server says that it takes more.
const SMALL_CHUNK: u32 = 32 << 10;
/// Most bytes in one read or write.
const LARGE_CHUNK: u32 = 255 << 10;
/// Requests that wait to be sent.
const QUEUE: usize = 16;
/// Time for an answer: the server may wait for a slow disk, and its answer behind others on a slow line.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Extension that tells how large messages may be (OpenSSH's PROTOCOL, 4.8).
const LIMITS: &str = "limits@openssh.com";

/// Codes of answers.
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const EOF: u32 = 1;
    pub(super) const NO_SUCH_FILE: u32 = 2;
    pub(super) const PERMISSION_DENIED: u32 = 3;
    pub(super) const UNSUPPORTED: u32 = 8;
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SftpError {
    /// There is no such file.
    #[error("no such file or directory")]
    NotFound,
    /// The account may not do it.
    #[error("permission denied")]
    Denied,
    /// The server does not know how.
    #[error("the server cannot do this")]
    Unsupported,
    /// Anything else that the server says.
    #[error("{}", crate::text::lines(.0))]
    Failed(String),
    /// The server does not speak the protocol as it should.
    #[error("the server's answer is not understood: {0}")]
    Protocol(&'static str),
    /// The connection has ended.
    #[error("the connection was lost")]
    Lost,
    /// There was no answer.
    #[error("no answer within 120 s")]
    Timeout,
}

/// Most entries of one folder that are taken from a server.
const MOST_ENTRIES: usize = 1_000_000;

/// Whether this can be the name of a file in a folder.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'/') && !name.contains(&0)
}

/// The result of a request.
pub type Result<T, E = SftpError> = std::result::Result<T, E>;

/// An open file or folder.
#[derive(Clone, Debug)]
pub struct Handle(Bytes);

/// A request under way.
pub struct Pending(oneshot::Receiver<Answer>);

/// A connection with a file server. Its tasks end when it is dropped.
pub struct Sftp {
    outgoing: mpsc::Sender<Bytes>,
    waiting: Waiting,
    next: AtomicU32,
    read_chunk: u32,
    write_chunk: u32,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// Who waits for which answer; `None` when the connection has ended.
type Waiting = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Answer>>>>>;

impl Sftp {
    /// Begins to speak to a server.
    pub async fn start<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Result<Self> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let hello = async {
            writer.write_all(&Request::init()).await.map_err(|_| SftpError::Lost)?;
            let mut buffer = BytesMut::new();
            let answer = read_message(&mut reader, &mut buffer).await?.ok_or(SftpError::Lost)?;
            Ok((packet::version(answer).ok_or(SftpError::Protocol("expected its version"))?, buffer))
        };
        let ((version, extensions), buffer) = timeout(TIMEOUT, hello).await.map_err(|_| SftpError::Timeout)??;
        if version != packet::VERSION {
            return Err(SftpError::Protocol("it speaks another version than 3"));
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(receive(reader, buffer, waiting.clone()))),
            AbortOnDropHandle::new(tokio::spawn(send(writer, queue))),
        ];
        let mut sftp = Self {
            outgoing,
            waiting,
            next: AtomicU32::new(0),
            read_chunk: SMALL_CHUNK,
            write_chunk: SMALL_CHUNK,
            _tasks: tasks,
        };
        if extensions.iter().any(|name| *name == LIMITS) {
            sftp.ask_limits().await?;
        }
        Ok(sftp)
    }

    async fn ask_limits(&mut self) -> Result<()> {
        let Answer::Extended(mut limits) = self.ask(Request::new(kind::EXTENDED, 0).string(LIMITS.as_bytes())).await?
        else {
            return Err(SftpError::Protocol("expected its limits"));
        };
        let mut next = || limits.try_get_u64().map_err(|_| SftpError::Protocol("expected its limits"));
        let (_, read, write) = (next()?, next()?, next()?);
        // Zero means that there is no limit.
        let chunk = |limit: u64| match u32::try_from(limit) {
            Ok(0) | Err(_) => LARGE_CHUNK,
            Ok(limit) => limit.min(LARGE_CHUNK),
        };
        (self.read_chunk, self.write_chunk) = (chunk(read), chunk(write));
        Ok(())
    }

    /// The most bytes that one read brings.
    pub fn read_chunk(&self) -> u32 {
        self.read_chunk
    }

    /// The most bytes that one write takes.
    pub fn write_chunk(&self) -> u32 {
        self.write_chunk
    }

    /// What is known about a file; links are followed.
    pub async fn stat(&self, path: &Path) -> Result<Attributes> {
        match self.ask(request(kind::STAT, path)).await? {
            Answer::Attributes(attributes) => Ok(attributes),
            other => Err(unexpected(other)),
        }
    }

    /// The absolute form of a path; that of `.` is where the server begins.
    pub async fn real_path(&self, path: &Path) -> Result<PathBuf> {
        match self.ask(request(kind::REALPATH, path)).await? {
            Answer::Names(names) if names.len() == 1 => Ok(PathBuf::from(OsString::from_vec(names[0].name.to_vec()))),
            other => Err(unexpected(other)),
        }
    }

    /// Makes a folder.
    pub async fn make_folder(&self, path: &Path, attributes: &Attributes) -> Result<()> {
        self.done(request(kind::MKDIR, path).attributes(attributes)).await
    }

    /// Changes what a file has besides its content.
    pub async fn set_attributes(&self, path: &Path, attributes: &Attributes) -> Result<()> {
        self.done(request(kind::SETSTAT, path).attributes(attributes)).await
    }

    /// The same for an open file.
    pub async fn set_attributes_of(&self, handle: &Handle, attributes: &Attributes) -> Result<()> {
        self.done(Request::new(kind::FSETSTAT, 0).string(&handle.0).attributes(attributes)).await
    }

    /// Opens a file in the ways of [`open`].
    pub async fn open(&self, path: &Path, how: u32, attributes: &Attributes) -> Result<Handle> {
        self.handle(request(kind::OPEN, path).u32(how).attributes(attributes)).await
    }

    /// Closes a file. Servers may notice only now that the disk is full.
    pub async fn close(&self, handle: &Handle) -> Result<()> {
        self.done(Request::new(kind::CLOSE, 0).string(&handle.0)).await
    }

    /// Asks for bytes of a file: [`Pending::data`].
    pub async fn begin_read(&self, handle: &Handle, offset: u64, length: u32) -> Result<Pending> {
        self.begin(Request::new(kind::READ, 0).string(&handle.0).u64(offset).u32(length)).await
    }

    /// Hands over bytes for a file: [`Pending::done`].
    pub async fn begin_write(&self, handle: &Handle, offset: u64, bytes: &[u8]) -> Result<Pending> {
        self.begin(Request::new(kind::WRITE, bytes.len()).string(&handle.0).u64(offset).string(bytes)).await
    }

    /// Names and attributes of what is in a folder, without `.` and `..`. Each is one name and no path, whatever the server says.
    pub async fn read_folder(&self, path: &Path) -> Result<Vec<(OsString, Attributes)>> {
        let handle = self.handle(request(kind::OPENDIR, path)).await?;
        let mut found = Vec::new();
        let listed = loop {
            match self.ask(Request::new(kind::READDIR, 0).string(&handle.0)).await {
                Ok(Answer::Names(entries)) if entries.is_empty() => {
                    break Err(SftpError::Protocol("a part of a folder's content was empty"));
                }
                Ok(Answer::Names(entries)) if found.len() + entries.len() > MOST_ENTRIES => {
                    break Err(SftpError::Failed(format!("the folder has more than {MOST_ENTRIES} entries")));
                }
                Ok(Answer::Names(entries)) => {
                    let entries = entries.into_iter().filter(|entry| !matches!(&entry.name[..], b"." | b".."));
                    let before = found.len();
                    found.extend(entries.map(|entry| (OsString::from_vec(entry.name.to_vec()), entry.attributes)));
                    // Names become paths on this machine.
                    if !found[before..].iter().all(|(name, _)| is_name(name.as_bytes())) {
                        break Err(SftpError::Protocol("it named a file outside of the folder"));
                    }
                }
                Ok(Answer::Status { code: code::EOF, .. }) => break Ok(()),
                Ok(other) => break Err(unexpected(other)),
                Err(error) => break Err(error),
            }
        };
        let closed = self.close(&handle).await;
        listed.and(closed).map(|()| found)
    }

    async fn handle(&self, request: Request) -> Result<Handle> {
        match self.ask(request).await? {
            Answer::Handle(handle) => Ok(Handle(handle)),
            other => Err(unexpected(other)),
        }
    }

    async fn done(&self, request: Request) -> Result<()> {
        self.begin(request).await?.done().await
    }

    async fn ask(&self, request: Request) -> Result<Answer> {
        self.begin(request).await?.answer().await
    }

    async fn begin(&self, request: Request) -> Result<Pending> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().as_mut().ok_or(SftpError::Lost)?.insert(id, sender);
        let sent = timeout(TIMEOUT, self.outgoing.send(request.finish(id))).await;
        sent.map_err(|_| SftpError::Timeout)?.map_err(|_| SftpError::Lost)?;
        Ok(Pending(receiver))
    }
}

impl Pending {
    /// The bytes that were read; `None` at the end of the file.
    pub async fn data(self) -> Result<Option<Bytes>> {
        match self.answer().await? {
            Answer::Data(bytes) => Ok(Some(bytes)),
            Answer::Status { code: code::EOF, .. } => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until it is done.
    pub async fn done(self) -> Result<()> {
        match self.answer().await? {
            Answer::Status { code: code::OK, .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn answer(self) -> Result<Answer> {
        timeout(TIMEOUT, self.0).await.map_err(|_| SftpError::Timeout)?.map_err(|_| SftpError::Lost)
    }
}

fn request(kind: u8, path: &Path) -> Request {
    // What is relative to the account's home may be nothing at all.
    let path = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
    Request::new(kind, path.len()).string(path.as_bytes())
}

/// The error of an answer that is not the one hoped for.
fn unexpected(answer: Answer) -> SftpError {
    match answer {
        Answer::Status { code: code::NO_SUCH_FILE, .. } => SftpError::NotFound,
        Answer::Status { code: code::PERMISSION_DENIED, .. } => SftpError::Denied,
        Answer::Status { code: code::UNSUPPORTED, .. } => SftpError::Unsupported,
        Answer::Status { code: code::OK | code::EOF, .. } => SftpError::Protocol("it ended too early"),
        Answer::Status { message, .. } if message.is_empty() => SftpError::Failed("failure".to_owned()),
        Answer::Status { message, .. } => SftpError::Failed(message),
        _ => SftpError::Protocol("it is for another request"),
    }
}

/// Writes requests until nobody makes any.
async fn send<S: AsyncWrite>(mut writer: WriteHalf<S>, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.recv().await {
        if let Err(error) = writer.write_all(&message).await {
            tracing::debug!(%error, "file server");
            return; // the reader learns of it as well
        }
    }
}

/// Hands answers to those who wait for them.
async fn receive<S: AsyncRead>(mut reader: ReadHalf<S>, mut buffer: BytesMut, waiting: Waiting) {
    loop {
        let message = match read_message(&mut reader, &mut buffer).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "file server");
                break;
            }
        };
        let Some((id, answer)) = Answer::read(message) else {
            tracing::debug!("file server: an answer is not understood");
            break;
        };
        let asked = waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
        // Whoever asked may have given up.
        let _ = asked.map(|asked| asked.send(answer));
    }
    // Whoever still waits learns that nothing comes any more.
    waiting.lock().take();
}

/// Reads a message without its length; `None` at the end.
async fn read_message<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut) -> Result<Option<Bytes>> {
    loop {
        if let Some(length) = buffer.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) {
            if length > LARGEST_MESSAGE {
                return Err(SftpError::Protocol("a message is too large"));
            }
            if buffer.len() >= length + 4 {
                buffer.advance(4);
                return Ok(Some(buffer.split_to(length).freeze()));
            }
            buffer.reserve(length + 4 - buffer.len());
        }
        buffer.reserve(SMALL_CHUNK as usize);
        if reader.read_buf(buffer).await.map_err(|_| SftpError::Lost)? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(SftpError::Lost) };
        }
    }
}
