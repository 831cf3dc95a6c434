//! The server's side: the connections of a node that may be resumed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::exchange::{
    CALL, KEY_LENGTH, Key, NEW, NOT_FOUND, PREFIX, RESUME, RESUMED, TOKEN_LENGTH, Token, WRONG_ADDRESS, cover,
    identification,
};
use crate::plain::Plain;
use crate::stream::{Carried, Shared, Stream, VirtualStream};

/// How long a client may take to say what it wants.
const EXCHANGE: Duration = Duration::from_secs(30);
/// How long a connection waits for a new network connection.
const DETACHED: Duration = Duration::from_secs(60);
/// The same, when nothing would be lost with it: the client has probably ended. One that lives is back sooner.
const DETACHED_IDLE: Duration = Duration::from_secs(3);
/// How long what was said last may take to reach the client after the session's end.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// Environment variable that turns resumption off.
const DISABLED: &str = "TELEPORT_UNSTABLE_DISABLE_SSH_RESUMPTION";

/// Connections by their tokens, with the address that their client came from.
type ByToken = HashMap<Token, (IpAddr, Arc<Entry>)>;

/// The connections of a node that may be resumed. Clones share them.
#[derive(Clone, Default)]
pub struct Resumable(Arc<Mutex<ByToken>>);

/// A connection that may be resumed.
struct Entry {
    shared: Arc<Shared>,
    interest: Interest,
}

/// What a client would miss if it did not come back. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interest(Arc<Stakes>);

#[derive(Debug, Default)]
struct Stakes {
    held: AtomicUsize,
    /// There was a session once.
    used: AtomicBool,
}

/// Something that the client would miss, until this is dropped.
#[derive(Debug)]
pub struct Stake(Arc<Stakes>);

impl Interest {
    /// There is something more to miss.
    #[must_use = "it counts until it is dropped"]
    pub fn hold(&self) -> Stake {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        Stake(self.0.clone())
    }

    /// There is a session to miss.
    #[must_use = "it counts until it is dropped"]
    pub fn hold_session(&self) -> Stake {
        self.0.used.store(true, Ordering::SeqCst);
        self.hold()
    }

    /// A program that was used for its sessions ends with them, and need not say so.
    fn patience(&self) -> Duration {
        let done = self.0.used.load(Ordering::SeqCst) && self.0.held.load(Ordering::SeqCst) == 0;
        if done { DETACHED_IDLE } else { DETACHED }
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What SSH runs on.
pub struct Incoming<S> {
    /// The stream.
    pub stream: Stream<S>,
    /// The server's identification line, without its end.
    pub identification: String,
    /// To be told what makes the connection worth waiting for.
    pub interest: Interest,
}

impl Resumable {
    /// Serves a connection that has just come in. `ssh` runs SSH over a stream, as the server that says the
    /// identification line it is given; `plain` is the one without an invitation to resume. When `stop` is cancelled,
    /// nothing that has ended waits for its client any more.
    pub async fn serve<S, F>(
        &self,
        mut network: S,
        client: SocketAddr,
        (plain, host_id): (&str, &str),
        stop: &CancellationToken,
        ssh: impl FnOnce(Incoming<S>) -> F,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        let disabled = std::env::var_os(DISABLED).is_some_and(|value| !value.is_empty());
        let interest = Interest::default();
        let Some(key) = (!disabled).then(Key::generate).flatten() else {
            let stream = Stream::Plain(Plain::new(network, Bytes::new(), Bytes::new()));
            return ssh(Incoming { stream, identification: plain.to_owned(), interest }).await;
        };
        let identification = identification(plain, &key, host_id);
        let line = Bytes::from(format!("{identification}\r\n"));
        let exchange = async {
            network.write_all(&line).await?;
            network.flush().await?;
            read_prelude(&mut network).await
        };
        match timeout(EXCHANGE, exchange).await {
            Ok(Ok(None)) => {
                let begin = |stream, interest| {
                    let stream = Stream::Resumable(stream);
                    ssh(Incoming { stream, identification: plain.to_owned(), interest })
                };
                if let Err(error) = self.resumable(network, client, key, stop, begin).await {
                    debug!(%client, %error, "resumable connection not served");
                }
            }
            Ok(Ok(Some(first))) => {
                let stream = Stream::Plain(Plain::new(network, first, line));
                ssh(Incoming { stream, identification, interest }).await;
            }
            Ok(Err(error)) => debug!(%client, %error, "connection ended before the handshake"),
            Err(_) => debug!(%client, "waited 30 s for the client's identification"),
        }
    }

    async fn resumable<S, F>(
        &self,
        mut network: S,
        client: SocketAddr,
        key: Key,
        stop: &CancellationToken,
        ssh: impl FnOnce(VirtualStream, Interest) -> F,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        let mut hello = [0; KEY_LENGTH + 1];
        within(network.read_exact(&mut hello)).await?;
        let (theirs, wish) = hello.split_at(KEY_LENGTH);
        let pad = key.derive(theirs).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match wish {
            [NEW] => {
                self.begin(network, client, pad, stop, ssh).await;
                Ok(())
            }
            [RESUME] => {
                let mut covered = [0; TOKEN_LENGTH];
                within(network.read_exact(&mut covered)).await?;
                self.go_on(network, client, cover(&covered, &pad)).await
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "neither a new connection nor an old one")),
        }
    }

    /// Serves a new connection until SSH has ended.
    async fn begin<S, F>(
        &self,
        network: S,
        client: SocketAddr,
        token: Token,
        stop: &CancellationToken,
        ssh: impl FnOnce(VirtualStream, Interest) -> F,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        let (shared, interest) = (Arc::new(Shared::default()), Interest::default());
        let entry = Arc::new(Entry { shared: shared.clone(), interest: interest.clone() });
        self.0.lock().insert(token, (client.ip().to_canonical(), entry.clone()));
        let registered = Registered { connections: self, token, shared: &shared, _keeper: shared.keeper() };
        let mut session = pin!(ssh(VirtualStream::new(shared.clone()), interest));
        let turn = shared.attach(false);
        let mut carried = pin!(entry.carry(network, turn));
        let carries = tokio::select! {
            () = &mut session => true,
            () = &mut carried => {
                session.await;
                false
            }
        };
        // What was said last still goes out, over this network connection or one that comes.
        let delivered = async {
            if carries {
                carried.await;
            }
            shared.over().await;
        };
        tokio::select! {
            _ = timeout(LAST_WORDS, delivered) => {}
            () = stop.cancelled() => {}
        }
        drop(registered);
    }

    /// Goes on with a connection over a new network connection.
    async fn go_on<S>(&self, mut network: S, client: SocketAddr, token: Token) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let found = self.0.lock().get(&token).cloned();
        let (status, entry) = match found {
            None => (NOT_FOUND, None),
            Some((from, _)) if from != client.ip().to_canonical() => (WRONG_ADDRESS, None),
            Some((_, entry)) => (RESUMED, Some(entry)),
        };
        within(async {
            network.write_all(&[status]).await?;
            network.flush().await
        })
        .await?;
        if let Some(entry) = entry {
            let turn = entry.shared.attach(true);
            entry.carry(network, turn).await;
        }
        Ok(())
    }
}

impl Entry {
    /// Carries until the connection is closed or another network connection takes over, waiting for one if this fails.
    async fn carry<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, mut network: S, turn: u64) {
        let error = match self.shared.carry(&mut network, turn).await {
            Carried::ToTheEnd | Carried::Replaced => return,
            Carried::Lost(error) => error,
        };
        drop(network);
        debug!(%error, "network connection of a resumable connection lost");
        tokio::select! {
            () = self.shared.replaced(turn) => {}
            () = self.shared.over() => {}
            () = sleep(self.interest.patience()) => self.shared.end(),
        }
    }
}

/// A connection's place among those that may be resumed.
struct Registered<'a> {
    connections: &'a Resumable,
    token: Token,
    shared: &'a Shared,
    _keeper: DropGuard,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.connections.0.lock().remove(&self.token);
        self.shared.end();
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(EXCHANGE, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "waited 30 s for the client")),
    }
}

/// Reads the client's first bytes: `None` when they ask for resumption, else what is to be read again.
async fn read_prelude(network: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let prelude = [PREFIX, CALL].concat();
    let mut first = vec![0; prelude.len()];
    let mut read = 0;
    loop {
        let n = network.read(first.get_mut(read..).unwrap_or_default()).await?;
        read += n;
        let seen = first.get(..read).unwrap_or_default();
        if seen == prelude {
            return Ok(None);
        }
        if n == 0 || !prelude.starts_with(seen) {
            return Ok(Some(Bytes::copy_from_slice(seen)));
        }
    }
}

#[cfg(test)]
mod tests;
