//! The daemon's end of a worker that opens sockets: one for each connection that needs it.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketFlags, SocketType, recvmsg, sendmsg, shutdown, socketpair,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::os::account::Account;
use crate::os::login::Gate;
use crate::os::process::{Begun, Running, Streams, start_worker};
use crate::worker::Kind;
use crate::worker::protocol::{Answer, MAX_MESSAGE, Operation, Reply, Request};

/// How long an answer may take: resolving a name, then trying its addresses.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a worker may take to end after its socket was closed.
const END: Duration = Duration::from_secs(5);

/// A worker. Ends when [`Helper::close`] is called or the worker dies.
pub(crate) struct Helper {
    socket: AsyncFd<OwnedFd>,
    /// Who waits for which answer; `None` once the worker is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Opened>>>>,
    next: AtomicU64,
}

/// Somebody who waits for an answer, until they have it or want it no more.
struct Waits<'a> {
    helper: &'a Helper,
    id: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.helper.waiting.lock().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// An answer with what was opened.
pub(crate) type Opened = (Result<Answer, String>, Vec<OwnedFd>);

impl Helper {
    /// Starts a worker for an account; behind a `gate` it need not begin.
    pub fn start(
        account: &Account,
        program: &[std::ffi::OsString],
        gate: Option<&Gate>,
        tasks: &TaskTracker,
    ) -> io::Result<(Arc<Self>, impl Future<Output = Begun> + Send + use<>)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let child = start_worker(account, program, &Kind::Sockets, Streams::Socket(theirs), gate)?;
        let begun = child.begun();
        rustix::io::ioctl_fionbio(&ours, true)?;
        let helper = Arc::new(Self {
            socket: crate::os::pty::raw::watch(ours)?,
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(0),
        });
        tasks.spawn(helper.clone().listen(child));
        Ok((helper, begun))
    }

    /// Whether the worker still answers.
    pub fn is_alive(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Asks the worker for something.
    pub async fn ask(&self, operation: Operation) -> Result<(Answer, Vec<OwnedFd>), String> {
        let gone = || "the node's worker has ended".to_owned();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let text = serde_json::to_vec(&Request { id, operation }).map_err(|e| e.to_string())?;
        if text.len() > MAX_MESSAGE {
            return Err("the name is too long".into());
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().as_mut().ok_or_else(gone)?.insert(id, sender);
        let _waits = Waits { helper: self, id };
        let exchange = async {
            self.send(&text).await.map_err(|e| e.to_string())?;
            answer.await.map_err(|_| gone())
        };
        match timeout(ANSWER, exchange).await {
            Ok(opened) => opened.and_then(|(answer, descriptors)| Ok((answer?, descriptors))),
            Err(_) => Err("waited 30 s for the node's worker".into()),
        }
    }

    /// Ends the worker, which removes the files it has made.
    pub fn close(&self) {
        let _ = shutdown(self.socket.get_ref(), Shutdown::Both); // it may have ended
    }

    async fn send(&self, text: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready.try_io(|socket| {
                let mut none = SendAncillaryBuffer::default();
                sendmsg(socket.get_ref(), &[IoSlice::new(text)], &mut none, SendFlags::NOSIGNAL)
                    .map_err(io::Error::from)
            });
            if let Ok(result) = sent {
                return result.map(drop);
            }
        }
    }

    /// Hands answers to those who wait for them, until the worker ends.
    async fn listen(self: Arc<Self>, mut child: Running) {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match self.receive(&mut buffer).await {
                Ok((0, _)) => break,
                Ok((length, descriptors)) => {
                    let Ok(reply) = serde_json::from_slice::<Reply>(buffer.get(..length).unwrap_or_default()) else {
                        break;
                    };
                    let waits = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&reply.id));
                    if let Some(waits) = waits {
                        let _ = waits.send((reply.answer, descriptors)); // who waited may have given up
                    }
                }
                Err(error) => {
                    debug!(%error, "worker lost");
                    break;
                }
            }
        }
        *self.waiting.lock() = None;
        self.close();
        child.give_up();
        if timeout(END, child.wait()).await.is_err() {
            child.signal(Signal::SIGKILL);
            child.wait().await;
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut slices = [IoSliceMut::new(buffer)];
                let message = recvmsg(socket.get_ref(), &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                let mut descriptors = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = message {
                        descriptors.extend(received);
                    }
                }
                Ok((message.bytes, descriptors))
            });
            if let Ok(result) = received {
                return result;
            }
        }
    }
}
