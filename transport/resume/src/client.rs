//! The client's side: a connection that finds its way back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::exchange::{
    CALL, Invitation, KEY_LENGTH, Key, LONGEST_LINE, NEW, NOT_FOUND, PREFIX, RESUME, RESUMED, Token, WRONG_ADDRESS,
    cover,
};
use crate::plain::Plain;
use crate::stream::{Carried, Shared, Stream, VirtualStream};

/// How long a server may take to be reached and to say who it is.
const EXCHANGE: Duration = Duration::from_secs(30);
/// How long a lost connection is tried to be resumed.
const LOST: Duration = Duration::from_secs(60);
/// How long a server may take to hang up.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a connection that works moves to a new network connection, so that nothing on the way, such as a proxy
/// that is to be replaced, has to keep one for as long as a session lasts. One that seems not to work moves at once.
const RENEWAL: Duration = Duration::from_secs(180);

/// Makes network connections to one host.
pub trait Dial: Send + Sync + 'static {
    /// A network connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Dials the host: as the user called it, or by its id when a connection to it goes on. What was used for an earlier
    /// network connection may be what is broken: such a dial begins from scratch.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] when there is no use in another attempt.
    fn dial(&self, host_id: Option<&str>) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Connects to a host. The connection goes on over new network connections when the server knows how.
///
/// # Errors
/// When the first network connection fails before the server has said who it is.
pub async fn connect<D: Dial>(dial: D) -> io::Result<Stream<D::Stream>> {
    let begin = async {
        let mut network = dial.dial(None).await?;
        let line = introduce(&mut network).await?;
        let Some(invitation) = Invitation::parse(&line) else { return Ok((network, Err(line))) };
        let token = call(&mut network, &invitation, |_| vec![NEW]).await?;
        Ok((network, Ok((invitation.host_id, token))))
    };
    let (network, found) = within(begin).await?;
    let (host_id, token) = match found {
        Ok(found) => found,
        Err(line) => return Ok(Stream::Plain(Plain::new(network, line, Bytes::from_static(PREFIX)))),
    };
    let shared = Arc::new(Shared::default());
    let link = Link { dial, shared: shared.clone(), host_id, token };
    tokio::spawn(link.keep(network));
    Ok(Stream::Resumable(VirtualStream::new(shared)))
}

/// Says the beginning of an identification line, and reads that of the server. What comes after it is returned too.
async fn introduce(network: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Bytes> {
    network.write_all(PREFIX).await?;
    network.flush().await?;
    let mut line = BytesMut::with_capacity(LONGEST_LINE);
    while !line.contains(&b'\n') && line.len() < LONGEST_LINE {
        if network.read_buf(&mut line).await? == 0 {
            break; // SSH finds out what is missing
        }
    }
    Ok(line.freeze())
}

/// Answers the server's invitation. `wish` gets the pad of this network connection, which is returned.
async fn call(
    network: &mut (impl AsyncRead + AsyncWrite + Unpin),
    invitation: &Invitation,
    wish: impl FnOnce(&Token) -> Vec<u8>,
) -> io::Result<Token> {
    let key = Key::generate().ok_or_else(|| io::Error::other("no randomness for a key"))?;
    let mut words = Vec::with_capacity(CALL.len() + KEY_LENGTH + 17);
    words.extend_from_slice(CALL);
    words.extend_from_slice(&key.public);
    let pad = key.derive(&invitation.key).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    words.extend(wish(&pad));
    network.write_all(&words).await?;
    network.flush().await?;
    Ok(pad)
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(EXCHANGE, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "waited 30 s for the host's identification")),
    }
}

/// What keeps a connection going.
struct Link<D> {
    dial: D,
    shared: Arc<Shared>,
    host_id: String,
    token: Token,
}

/// Why there is no new network connection.
enum NotResumed {
    /// There may be one later.
    NotNow(io::Error),
    /// There will be none.
    Never(String),
    /// The host does not know the connection any more.
    Ended,
}

impl NotResumed {
    /// In words.
    fn into_reason(self) -> String {
        match self {
            Self::NotNow(error) => error.to_string(),
            Self::Never(reason) => reason,
            Self::Ended => "the host has ended the session".to_owned(),
        }
    }
}

impl From<io::Error> for NotResumed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Never(error.to_string()),
            _ => Self::NotNow(error),
        }
    }
}

impl<D: Dial> Link<D> {
    /// Carries the connection to its end.
    async fn keep(self, mut network: D::Stream) {
        let _keeper = self.shared.keeper();
        let mut turn = self.shared.attach(false);
        loop {
            let carried = tokio::select! {
                carried = self.shared.carry(&mut network, turn) => carried,
                renewed = self.renewed() => match renewed {
                    Ok(renewed) => {
                        (network, turn) = (renewed, self.shared.attach(true));
                        continue;
                    }
                    Err(reason) => return self.shared.fail(reason),
                }
            };
            let Carried::Lost(error) = carried else {
                // The server hangs up when it has heard of the end: until then, some of that is still to be sent.
                let mut rest = [0; 1024];
                let hung_up = async { while matches!(network.read(&mut rest).await, Ok(1..)) {} };
                let _ = timeout(FAREWELL, hung_up).await;
                return;
            };
            debug!(%error, "network connection lost");
            let again = tokio::select! {
                again = self.again(&error) => again,
                // Whoever wants nothing more need not come back to say so.
                () = self.shared.finished() => return self.shared.end(),
            };
            match again {
                Ok(new) => (network, turn) = (new, self.shared.attach(true)),
                Err(reason) => return self.shared.fail(reason),
            }
        }
    }

    /// Another network connection, after a while, or at once when the present one seems not to work. One that cannot be had
    /// is no loss: the present one works, or may do so again.
    async fn renewed(&self) -> Result<D::Stream, String> {
        let mut pause = FIRST_PAUSE;
        loop {
            let doubted = tokio::select! {
                () = sleep(RENEWAL.mul_f64(rand::random_range(0.8..1.2))) => false,
                () = self.shared.doubted() => true,
            };
            match within_resumed(self.resumed()).await {
                Ok(network) => return Ok(network),
                Err(NotResumed::Ended) => return Err(NotResumed::Ended.into_reason()),
                Err(other) => debug!(doubted, reason = other.into_reason(), "connection not renewed"),
            }
            if doubted {
                sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            }
            pause = if doubted { (2 * pause).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        }
    }

    /// Another network connection in place of one that was lost.
    async fn again(&self, lost: &io::Error) -> Result<D::Stream, String> {
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let rest = LOST.saturating_sub(begin.elapsed());
            let error = match timeout(rest, within_resumed(self.resumed())).await {
                Ok(Ok(network)) => return Ok(network),
                Ok(Err(NotResumed::NotNow(error))) => error,
                Ok(Err(never)) => return Err(format!("{lost}, and cannot be resumed: {}", never.into_reason())),
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
            };
            debug!(%error, "connection not resumed yet");
            if begin.elapsed() + pause >= LOST {
                return Err(format!("{lost}, and could not be resumed within 60 s: {error}"));
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// One attempt to go on over a new network connection.
    async fn resumed(&self) -> Result<D::Stream, NotResumed> {
        let mut network = self.dial.dial(Some(&self.host_id)).await?;
        let line = introduce(&mut network).await?;
        let invitation = Invitation::parse(&line).filter(|invitation| invitation.host_id == self.host_id);
        let Some(invitation) = invitation else {
            return Err(NotResumed::NotNow(io::Error::other("another host answered, or none")));
        };
        call(&mut network, &invitation, |pad| {
            let mut wish = vec![RESUME];
            wish.extend(cover(&self.token, pad));
            wish
        })
        .await?;
        match network.read_u8().await? {
            RESUMED => Ok(network),
            NOT_FOUND => Err(NotResumed::Ended),
            WRONG_ADDRESS => Err(NotResumed::Never("the host wants it from the address it began at".to_owned())),
            other => Err(NotResumed::Never(format!("the host answered with {other}"))),
        }
    }
}

async fn within_resumed<T>(work: impl Future<Output = Result<T, NotResumed>>) -> Result<T, NotResumed> {
    match timeout(EXCHANGE, work).await {
        Ok(result) => result,
        Err(_) => Err(NotResumed::NotNow(io::Error::new(io::ErrorKind::TimedOut, "waited 30 s for the host"))),
    }
}

#[cfg(test)]
mod tests;
