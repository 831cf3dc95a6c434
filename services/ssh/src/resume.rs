//! Connections that outlive the network connection they came in on.
//!
//! The identification line of the node carries a key. A client that knows the protocol answers with its own key before
//! it speaks SSH; both derive a token, and SSH then runs over frames with acknowledgements ([`stream`]). When the
//! network connection is lost, the client comes with a new one and the token, both say how much they have received,
//! and the rest is sent again. A client that does not know the protocol speaks SSH at once and is served as ever.

mod stream;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use tunnel::BoxedStream;

use stream::{Shared, VirtualStream};

/// Ends the identification that a client sends when it knows the protocol.
const PRELUDE: &[u8] = b"SSH-2.0-\0teleport-resume-v1";
/// A point of P-256, uncompressed.
const KEY_LENGTH: usize = 65;
const TOKEN_LENGTH: usize = 16;
/// How long a client may take to say what it wants.
const EXCHANGE: Duration = Duration::from_secs(30);
/// How long what was said last may take to reach the client after the session's end.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// Environment variable that turns resumption off.
const DISABLED: &str = "TELEPORT_UNSTABLE_DISABLE_SSH_RESUMPTION";

/// Names a connection that may be resumed; a secret of the client.
type Token = [u8; TOKEN_LENGTH];

/// What a client wants after the exchange of keys.
const NEW: u8 = 0;
const RESUME: u8 = 1;
/// Answers to a client that wants to resume.
const RESUMED: u8 = 0;
const NOT_FOUND: u8 = 1;
const WRONG_ADDRESS: u8 = 2;

/// Connections by their tokens, with the address that their client came from.
type ByToken = HashMap<Token, (IpAddr, Arc<Shared>)>;

/// The connections of a node that may be resumed. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Resumable(Arc<Mutex<ByToken>>);

impl Resumable {
    /// Serves a connection that has just come in. `ssh` runs SSH over a stream, as the server whose identification
    /// line it is given. When `stop` is cancelled, nothing that has ended waits for its client any more.
    pub async fn serve<S, F>(
        &self,
        mut network: S,
        client: SocketAddr,
        host_uuid: &str,
        stop: &CancellationToken,
        ssh: impl FnOnce(BoxedStream, String) -> F,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        let plain = tunnel::ssh::SERVER_VERSION;
        let disabled = std::env::var_os(DISABLED).is_some_and(|value| !value.is_empty());
        let Some((key, public)) = (!disabled).then(|| new_key().ok()).flatten() else {
            return ssh(Box::new(network), plain.to_owned()).await;
        };
        let identification = format!("{plain} resume-v1 {} {host_uuid}", STANDARD_NO_PAD.encode(&public));
        let line = format!("{identification}\r\n");
        let exchange = async {
            network.write_all(line.as_bytes()).await?;
            network.flush().await?;
            read_prelude(&mut network).await
        };
        match timeout(EXCHANGE, exchange).await {
            Ok(Ok(None)) => {
                if let Err(error) = self.resumable(network, client, key, stop, ssh).await {
                    debug!(%client, %error, "resumable connection not served");
                }
            }
            Ok(Ok(Some(first))) => {
                let stream = Announced { stream: network, first, taken: 0, announced: line.len() };
                ssh(Box::new(stream), identification).await;
            }
            Ok(Err(error)) => debug!(%client, %error, "connection ended before the handshake"),
            Err(_) => debug!(%client, "waited 30 s for the client's identification"),
        }
    }

    async fn resumable<S, F>(
        &self,
        mut network: S,
        client: SocketAddr,
        key: EphemeralPrivateKey,
        stop: &CancellationToken,
        ssh: impl FnOnce(BoxedStream, String) -> F,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        let mut hello = [0; KEY_LENGTH + 1];
        within(network.read_exact(&mut hello)).await?;
        let (theirs, wish) = hello.split_at(KEY_LENGTH);
        let pad = derive(key, theirs)?;
        match wish {
            [NEW] => {
                self.begin(network, client, pad, stop, ssh).await;
                Ok(())
            }
            [RESUME] => {
                let mut token = [0; TOKEN_LENGTH];
                within(network.read_exact(&mut token)).await?;
                token.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
                self.go_on(network, client, token).await
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
        ssh: impl FnOnce(BoxedStream, String) -> F,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        let shared = Arc::new(Shared::default());
        self.0.lock().insert(token, (client.ip().to_canonical(), shared.clone()));
        let stream = Box::new(VirtualStream::new(shared.clone()));
        let session = ssh(stream, tunnel::ssh::SERVER_VERSION.to_owned());
        let carried = shared.carry(network);
        tokio::pin!(session, carried);
        tokio::select! {
            () = &mut session => {
                // What was said last still goes out, over this network connection or one that comes.
                tokio::select! {
                    _ = timeout(LAST_WORDS, &mut carried) => {}
                    () = stop.cancelled() => {}
                }
            }
            () = &mut carried => session.await,
        }
        tokio::select! {
            _ = timeout(LAST_WORDS, shared.delivered()) => {}
            () = stop.cancelled() => {}
        }
        self.0.lock().remove(&token);
        shared.end();
    }

    /// Goes on with a connection over a new network connection.
    async fn go_on<S>(&self, mut network: S, client: SocketAddr, token: Token) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let found = self.0.lock().get(&token).cloned();
        let (status, shared) = match found {
            None => (NOT_FOUND, None),
            Some((from, _)) if from != client.ip().to_canonical() => (WRONG_ADDRESS, None),
            Some((_, shared)) => (RESUMED, Some(shared)),
        };
        within(async {
            network.write_all(&[status]).await?;
            network.flush().await
        })
        .await?;
        if let Some(shared) = shared {
            shared.carry_on(network).await;
        }
        Ok(())
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(EXCHANGE, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "waited 30 s for the client")),
    }
}

fn new_key() -> Result<(EphemeralPrivateKey, Vec<u8>), aws_lc_rs::error::Unspecified> {
    let key = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())?;
    let public = key.compute_public_key()?.as_ref().to_vec();
    Ok((key, public))
}

/// The first bytes of the hash of the shared secret: the token of a new connection, or what hides that of an old one.
fn derive(key: EphemeralPrivateKey, theirs: &[u8]) -> io::Result<Token> {
    let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the client's key is no point of P-256");
    agree_ephemeral(key, peer, (), |secret| Ok(digest::digest(&digest::SHA256, secret)))
        .ok()
        .and_then(|hash| hash.as_ref().get(..TOKEN_LENGTH).and_then(|bytes| bytes.try_into().ok()))
        .ok_or_else(wrong)
}

/// Reads the client's first bytes: `None` when they are the prelude, else what is to be read again.
async fn read_prelude(network: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut first = [0; PRELUDE.len()];
    let mut read = 0;
    loop {
        let n = network.read(first.get_mut(read..).unwrap_or_default()).await?;
        read += n;
        let seen = first.get(..read).unwrap_or_default();
        if seen == PRELUDE {
            return Ok(None);
        }
        if n == 0 || !PRELUDE.starts_with(seen) {
            return Ok(Some(seen.to_vec()));
        }
    }
}

/// A stream of which some bytes were read already, and on which the server's first bytes were written already.
struct Announced<S> {
    stream: S,
    first: Vec<u8>,
    /// How many of `first` were read again.
    taken: usize,
    /// How many bytes of what is written are on the wire already.
    announced: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Announced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.first.get(this.taken..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, into);
        }
        let n = rest.len().min(into.remaining());
        into.put_slice(rest.get(..n).unwrap_or_default());
        this.taken += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Announced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.announced > 0 {
            let n = this.announced.min(data.len());
            this.announced -= n;
            return Poll::Ready(Ok(n));
        }
        Pin::new(&mut this.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
