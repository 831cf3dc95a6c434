//! Naming the protocol of a connection from its first bytes, and unwrapping PROXY headers on the way.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::Rewind;
use crate::proxy_protocol::{self, Addresses, Header, ParseError, Parsed, Signature, VerifyError, VerifySignedHeader};

/// Bytes that decide; every protocol we serve sends more than this in its first message.
const DECISIVE: usize = 8;
/// Time for everything from the first byte to a known protocol, PROXY headers included.
const DEADLINE: Duration = Duration::from_secs(10);

const HTTP_METHODS: [&[u8]; 9] =
    [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// Postgres messages that may come first (PostgreSQL manual, "Message Formats"): SSLRequest, CancelRequest, GSSENCRequest.
const POSTGRES_FIRST: [[u8; 8]; 3] =
    [[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], [0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e], [0, 0, 0, 8, 4, 0xd2, 0x16, 0x30]];

/// A protocol that can be told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// An SSH identification string.
    Ssh,
    /// A TLS handshake record.
    Tls,
    /// A plain HTTP/1 request line.
    Http,
    /// A Postgres start-up packet that asks for encryption or cancels a query.
    Postgres,
}

/// What a listener does with unsigned PROXY headers. Signed ones are accepted in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocolMode {
    /// A header is required, except from this very machine and from other listeners of this process.
    On,
    /// A header is refused.
    Off,
    /// Not configured: a header is believed but cannot be trusted, so the client's port becomes 0, which makes
    /// IP pinning refuse the connection later.
    #[default]
    Unspecified,
}

/// How connections of a listener are looked at.
#[derive(Clone)]
pub struct DetectConfig {
    /// Time for the whole of detection; 10 s unless changed.
    pub deadline: Duration,
    /// What unsigned PROXY headers are good for.
    pub proxy_protocol: ProxyProtocolMode,
    /// Checks signed PROXY headers. Without it they count as unsigned.
    pub verifier: Option<Arc<dyn VerifySignedHeader>>,
    /// Take a client that has sent nothing for this long for an SSH client that waits for the server to speak first.
    pub silence_means_ssh: Option<Duration>,
}

/// Where a connection came from.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// Another listener of this process has looked at the connection before and handed it on.
    pub handed_on: bool,
}

/// Which PROXY header decided about the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderSeen {
    /// No header: the address is the socket's.
    None,
    /// Only an unsigned header.
    Unsigned,
    /// A header with a verified signature of a Proxy of this cluster.
    Signed,
}

/// A connection whose protocol is known.
#[derive(Debug)]
pub struct Detected<S> {
    /// What the client speaks.
    pub protocol: Protocol,
    /// Where the client is; port 0 means that the address must not be used for IP pinning.
    pub client_addr: SocketAddr,
    /// For which address counts what the client asks for. Where nobody is configured to send headers, what one says about
    /// the client is its own word: a stranger may name any address, to have what it asks for counted for others.
    pub counted: IpAddr,
    /// What the client dialled, as far as a header tells, else our end of the socket.
    pub server_addr: SocketAddr,
    /// What the two addresses rest on.
    pub header: HeaderSeen,
    /// The stream; PROXY headers are consumed, everything else is read again.
    pub stream: Rewind<S>,
}

/// Why a connection is closed during detection.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// Not enough bytes in time.
    #[error("no recognisable protocol within {0:?}")]
    Timeout(Duration),
    /// End of stream before the protocol was known.
    #[error("connection closed after {0} bytes, before its protocol was known")]
    Closed(usize),
    /// The socket failed.
    #[error("read first bytes: {0}")]
    Io(#[from] io::Error),
    /// The first bytes belong to no protocol that is served.
    #[error("first bytes {} belong to no known protocol", hex::encode(.0))]
    Unknown([u8; DECISIVE]),
    /// A PROXY header that breaks its grammar.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// An unsigned header where none is allowed.
    #[error("external PROXY protocol support is disabled")]
    Disabled,
    /// No header where one is required.
    #[error("PROXY protocol header is required, but the connection has none")]
    Required,
    /// More headers than one unsigned and one signed, or an unsigned one after a signed one.
    #[error("{0} PROXY header where none is allowed any more")]
    Unexpected(&'static str),
    /// The signature of a header is wrong.
    #[error(transparent)]
    Refused(VerifyError),
}

/// Names the protocol of a fresh connection.
///
/// Reads at most one unsigned and one signed PROXY header and then peeks 8 bytes. The caller closes the connection
/// on any error, without an answer, and also when it does not serve the protocol found.
pub async fn detect<S>(stream: S, arrival: Arrival, config: &DetectConfig) -> Result<Detected<S>, DetectError>
where
    S: AsyncRead + Unpin,
{
    let deadline = Instant::now() + config.deadline;
    let mut detection =
        Detection { stream, buffer: BytesMut::new(), arrival, config, unsigned: None, signed: Signed::No };
    let found = timeout_at(deadline, detection.run()).await;
    let protocol = found.map_err(|_| DetectError::Timeout(config.deadline))??;
    Ok(detection.finish(protocol))
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            proxy_protocol: ProxyProtocolMode::default(),
            verifier: None,
            silence_means_ssh: None,
        }
    }
}

impl std::fmt::Debug for DetectConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DetectConfig")
            .field("deadline", &self.deadline)
            .field("proxy_protocol", &self.proxy_protocol)
            .field("verifier", &self.verifier.is_some())
            .field("silence_means_ssh", &self.silence_means_ssh)
            .finish()
    }
}

/// What 8 bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstBytes {
    ProxyHeader,
    Protocol(Protocol),
    Unknown,
}

/// The unsigned header of a connection.
enum Unsigned {
    Local,
    Proxied(Addresses),
}

/// The signed header of a connection.
enum Signed {
    No,
    /// Seen, but nobody could check it now.
    Skipped,
    Verified(Addresses, Option<IpAddr>),
}

struct Detection<'c, S> {
    stream: S,
    buffer: BytesMut,
    arrival: Arrival,
    config: &'c DetectConfig,
    unsigned: Option<Unsigned>,
    signed: Signed,
}

impl<S: AsyncRead + Unpin> Detection<'_, S> {
    async fn run(&mut self) -> Result<Protocol, DetectError> {
        loop {
            if self.fill(DECISIVE).await? == Filled::Silent {
                return Ok(Protocol::Ssh);
            }
            match first_bytes(&self.buffer) {
                FirstBytes::ProxyHeader => {
                    let header = self.read_header().await?;
                    self.take_header(header).await?;
                }
                FirstBytes::Protocol(protocol) => {
                    self.check_header_present()?;
                    return Ok(protocol);
                }
                FirstBytes::Unknown => return Err(self.unknown()),
            }
        }
    }

    /// Reads until the buffer holds `wanted` bytes.
    async fn fill(&mut self, wanted: usize) -> Result<Filled, DetectError> {
        while self.buffer.len() < wanted {
            self.buffer.reserve(wanted.max(1024) - self.buffer.len());
            let may_wait_for_us = self.buffer.is_empty() && self.check_header_present().is_ok();
            let read = self.stream.read_buf(&mut self.buffer);
            let received = match self.config.silence_means_ssh.filter(|_| may_wait_for_us) {
                Some(patience) => match tokio::time::timeout(patience, read).await {
                    Ok(received) => received?,
                    Err(_) => return Ok(Filled::Silent),
                },
                None => read.await?,
            };
            if received == 0 {
                return Err(DetectError::Closed(self.buffer.len()));
            }
        }
        Ok(Filled::Enough)
    }

    async fn read_header(&mut self) -> Result<Header, DetectError> {
        loop {
            match proxy_protocol::parse(&self.buffer)? {
                Parsed::NotAHeader => return Err(self.unknown()),
                Parsed::Incomplete { missing } => {
                    self.fill(self.buffer.len() + missing).await?;
                }
                Parsed::Complete { header, length } => {
                    self.buffer.advance(length);
                    return Ok(header);
                }
            }
        }
    }

    async fn take_header(&mut self, header: Header) -> Result<(), DetectError> {
        match (&self.config.verifier, header.signature(), header.addresses) {
            (Some(verifier), Some(signature), Some(addresses)) => {
                let verifier = verifier.clone();
                self.take_signed(verifier.as_ref(), &addresses, signature).await
            }
            (Some(_), Some(_), None) => Err(DetectError::Unexpected("signed LOCAL")),
            (_, _, addresses) => self.take_unsigned(addresses),
        }
    }

    async fn take_signed(
        &mut self,
        verifier: &dyn VerifySignedHeader,
        addresses: &Addresses,
        signature: Signature<'_>,
    ) -> Result<(), DetectError> {
        if !matches!(self.signed, Signed::No) {
            return Err(DetectError::Unexpected("second signed"));
        }
        self.signed = match verifier.verify(addresses, signature).await {
            Ok(counted) => Signed::Verified(*addresses, counted),
            Err(VerifyError::Unavailable(reason)) => {
                tracing::debug!(peer = %self.arrival.peer, reason, "signed PROXY header skipped");
                Signed::Skipped
            }
            Err(refused) => return Err(DetectError::Refused(refused)),
        };
        Ok(())
    }

    fn take_unsigned(&mut self, addresses: Option<Addresses>) -> Result<(), DetectError> {
        if self.config.proxy_protocol == ProxyProtocolMode::Off {
            return Err(DetectError::Disabled);
        }
        if matches!(self.signed, Signed::Verified(..)) {
            return Err(DetectError::Unexpected("unsigned"));
        }
        if self.unsigned.is_some() {
            return Err(DetectError::Unexpected("second unsigned"));
        }
        self.unsigned = Some(addresses.map_or(Unsigned::Local, Unsigned::Proxied));
        Ok(())
    }

    fn check_header_present(&self) -> Result<(), DetectError> {
        let Arrival { peer, local, handed_on } = self.arrival;
        let required = self.config.proxy_protocol == ProxyProtocolMode::On
            && !handed_on
            && peer.ip().to_canonical() != local.ip().to_canonical();
        let present = self.unsigned.is_some() || matches!(self.signed, Signed::Verified(..));
        if required && !present { Err(DetectError::Required) } else { Ok(()) }
    }

    fn unknown(&self) -> DetectError {
        let mut first = [0; DECISIVE];
        let length = self.buffer.len().min(DECISIVE);
        first[..length].copy_from_slice(&self.buffer[..length]);
        DetectError::Unknown(first)
    }

    fn finish(self, protocol: Protocol) -> Detected<S> {
        let (client_addr, server_addr, header) = match (&self.signed, &self.unsigned) {
            (Signed::Verified(pair, _), _) => (pair.source(), pair.destination(), HeaderSeen::Signed),
            (_, Some(Unsigned::Proxied(pair))) => {
                let mut client = pair.source();
                if self.config.proxy_protocol == ProxyProtocolMode::Unspecified {
                    warn_about_unspecified_mode(self.arrival.peer);
                    client.set_port(0);
                }
                (client, pair.destination(), HeaderSeen::Unsigned)
            }
            (_, Some(Unsigned::Local)) => (self.arrival.peer, self.arrival.local, HeaderSeen::Unsigned),
            (_, None) => (self.arrival.peer, self.arrival.local, HeaderSeen::None),
        };
        let counted = match (self.signed, header) {
            (Signed::Verified(pair, counted), _) => counted.unwrap_or(pair.source().ip()),
            (_, HeaderSeen::Unsigned) if self.config.proxy_protocol != ProxyProtocolMode::On => self.arrival.peer.ip(),
            _ => client_addr.ip(),
        };
        let stream = Rewind::new(self.buffer.freeze(), self.stream);
        Detected { protocol, client_addr, counted, server_addr, header, stream }
    }
}

/// Outcome of waiting for bytes.
#[derive(PartialEq, Eq)]
enum Filled {
    Enough,
    Silent,
}

/// Names what begins with these (at least 8) bytes.
fn first_bytes(bytes: &[u8]) -> FirstBytes {
    if bytes.starts_with(b"PROXY") || bytes.starts_with(&proxy_protocol::V2_SIGNATURE[..DECISIVE]) {
        FirstBytes::ProxyHeader
    } else if bytes.starts_with(b"SSH") {
        FirstBytes::Protocol(Protocol::Ssh)
    } else if bytes.first() == Some(&0x16) {
        FirstBytes::Protocol(Protocol::Tls)
    } else if HTTP_METHODS.iter().any(|method| bytes.starts_with(method)) {
        FirstBytes::Protocol(Protocol::Http)
    } else if POSTGRES_FIRST.iter().any(|first| bytes.starts_with(first)) {
        FirstBytes::Protocol(Protocol::Postgres)
    } else {
        FirstBytes::Unknown
    }
}

/// Says once per process what an unconfigured mode means; per connection it would flood the log.
fn warn_about_unspecified_mode(peer: SocketAddr) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            %peer,
            "unsigned PROXY header received, but proxy_protocol is not set: IP pinning will refuse such connections; \
             set proxy_protocol to \"on\" behind a load balancer that sends headers, else to \"off\""
        );
    });
}

#[cfg(test)]
mod tests;
