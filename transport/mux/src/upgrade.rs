//! What a connection carries after `GET /webapi/connectionupgrade`.
//!
//! Balancers that end TLS themselves strip application protocol names. Behind one, a client asks for an upgrade over
//! plain HTTPS and starts its real TLS connection inside the stream that follows. The stream comes in three forms:
//!
//! * `websocket`: binary WebSocket frames (RFC 6455). Existing clients set the mask bit with a key of zeros and take
//!   payloads as they come; so does this client. The server writes unmasked frames, and both sides honour masks.
//! * `alpn-ping` (legacy): framed as in [`pingconn`](crate::pingconn).
//! * `alpn` (legacy): bytes as they are.
//!
//! The HTTP part belongs to the proxy (server) and the dialler (client); what both need of it is here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::framed::{Framed, Framing, Head, Replies, Step, framed_stream};
use crate::pingconn::{PING_EVERY, PingStream};

/// Path of the endpoint.
pub const PATH: &str = "/webapi/connectionupgrade";
/// Header with the legacy type; the standard `Upgrade` header carries `websocket` and the legacy type.
pub const HEADER: &str = "X-Teleport-Upgrade";

/// Payload of a server's WebSocket pings.
const PING_PAYLOAD: &[u8] = b"teleport";
/// Appended to a client's key before hashing (RFC 6455 §1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest payload of a control frame (RFC 6455 §5.5).
const LARGEST_CONTROL: u64 = 125;

/// What is carried: the WebSocket sub-protocol and, for the legacy forms, the type of the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// TLS that needs no pings.
    Alpn,
    /// TLS on a connection that the server keeps busy with pings.
    AlpnPing,
}

/// The form of an upgraded stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// WebSocket frames.
    WebSocket(Content),
    /// The legacy form for the content.
    Legacy(Content),
}

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Asked for the upgrade.
    Client,
    /// Granted it.
    Server,
}

/// An upgraded stream of any form.
#[derive(Debug)]
pub enum Upgraded<S> {
    /// WebSocket frames.
    WebSocket(WebSocketStream<S>),
    /// Length-prefixed frames.
    Ping(PingStream<S>),
    /// Bytes as they are.
    Raw(S),
}

/// A stream inside WebSocket frames.
#[derive(Debug)]
pub struct WebSocketStream<S>(Framed<S, WebSocket>);

impl Content {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpn => "alpn",
            Self::AlpnPing => "alpn-ping",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Alpn, Self::AlpnPing].into_iter().find(|content| content.name() == name)
    }
}

impl Form {
    /// The server's choice. `upgrades` are all values of the headers `X-Teleport-Upgrade` and `Upgrade`,
    /// `sub_protocols` those of `Sec-WebSocket-Protocol`. `None` is answered with 404.
    pub fn choose<'a>(
        upgrades: impl IntoIterator<Item = &'a str>,
        sub_protocols: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let upgrades: Vec<&str> = words(upgrades).collect();
        let content = |name: &str| upgrades.iter().any(|value| value.eq_ignore_ascii_case(name));
        if content("websocket") {
            let named = words(sub_protocols).find_map(Content::from_name);
            return named.map(Self::WebSocket);
        }
        [Content::AlpnPing, Content::Alpn].into_iter().find(|kind| content(kind.name())).map(Self::Legacy)
    }
}

impl<S> Upgraded<S> {
    /// Wraps what follows the answer `101 Switching Protocols`.
    pub fn new(form: Form, side: Side, stream: S) -> Self {
        match (form, side) {
            (Form::WebSocket(_), Side::Client) => Self::WebSocket(WebSocketStream::client(stream)),
            (Form::WebSocket(content), Side::Server) => Self::WebSocket(WebSocketStream::server(stream, content)),
            (Form::Legacy(Content::AlpnPing), Side::Client) => Self::Ping(PingStream::client(stream)),
            (Form::Legacy(Content::AlpnPing), Side::Server) => Self::Ping(PingStream::server(stream)),
            (Form::Legacy(Content::Alpn), _) => Self::Raw(stream),
        }
    }
}

impl<S> WebSocketStream<S> {
    /// The client's side: writes masked frames with a key of zeros, answers pings.
    pub fn client(stream: S) -> Self {
        Self(Framed::new(stream, WebSocket { side: Side::Client, binary: true }, None))
    }

    /// The server's side: writes unmasked frames and, for [`Content::AlpnPing`], a ping every 30 s.
    pub fn server(stream: S, content: Content) -> Self {
        let pings: Option<Duration> = (content == Content::AlpnPing).then_some(PING_EVERY);
        Self(Framed::new(stream, WebSocket { side: Side::Server, binary: true }, pings))
    }

    /// The stream below; reading from it breaks the framing.
    pub fn get_ref(&self) -> &S {
        self.0.get_ref()
    }
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub fn accept_key(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{}{ACCEPT_GUID}", key.trim()).as_bytes());
    STANDARD.encode(hash)
}

/// The comma-separated words of header values.
fn words<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    values.into_iter().flat_map(|value| value.split(',')).map(str::trim)
}

#[derive(Debug)]
struct WebSocket {
    side: Side,
    /// Whether continuation frames belong to a binary message.
    binary: bool,
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

impl WebSocket {
    fn frame_head(&self, opcode: u8, length: usize) -> Head {
        let (mask_bit, mask): (u8, &[u8]) = match self.side {
            Side::Client => (MASKED, &[0; 4]),
            Side::Server => (0, &[]),
        };
        let first = [FIN | opcode];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..=125), _) => Head::new(&[&first, &[mask_bit | short], mask]),
            (_, Ok(medium)) => Head::new(&[&first, &[mask_bit | 126], &medium.to_be_bytes(), mask]),
            _ => Head::new(&[&first, &[mask_bit | 127], &(length as u64).to_be_bytes(), mask]),
        }
    }

    fn control(&self, opcode: u8, payload: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(self.frame_head(opcode, payload.len()).as_slice());
        out.extend_from_slice(payload);
    }
}

/// A parsed frame head.
struct FrameHead {
    first: u8,
    length: u64,
    mask: [u8; 4],
    /// Bytes of the head itself.
    size: usize,
}

impl FrameHead {
    fn parse(input: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = input.split_first_chunk::<2>()?;
        let (length, rest) = match second & !MASKED {
            126 => rest.split_first_chunk::<2>().map(|(raw, rest)| (u16::from_be_bytes(*raw).into(), rest))?,
            127 => rest.split_first_chunk::<8>().map(|(raw, rest)| (u64::from_be_bytes(*raw), rest))?,
            short => (short.into(), rest),
        };
        let (mask, rest) = if second & MASKED == 0 {
            ([0; 4], rest)
        } else {
            rest.split_first_chunk::<4>().map(|(raw, rest)| (*raw, rest))?
        };
        Some(Self { first, length, mask, size: input.len() - rest.len() })
    }
}

impl Framing for WebSocket {
    fn decode(&mut self, input: &mut BytesMut, replies: &mut Replies<'_>) -> io::Result<Step> {
        let Some(FrameHead { first, length, mask, size }) = FrameHead::parse(input) else {
            return Ok(Step::More);
        };
        let opcode = first & 0x0f;
        if first & 0x70 != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "websocket frame with reserved bits"));
        }
        if opcode >= CLOSE && (length > LARGEST_CONTROL || first & FIN == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "websocket control frame too long or fragmented"));
        }
        match opcode {
            CLOSE => return Ok(Step::End),
            PING => {
                let end = size + length as usize;
                if input.len() < end {
                    return Ok(Step::More);
                }
                let mut payload = input[size..end].to_vec();
                payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
                replies.push(&[self.frame_head(PING + 1, payload.len()).as_slice(), &payload]);
                input.advance(end);
                return Ok(Step::Skip { length: 0 });
            }
            CONTINUATION => {}
            data => self.binary = if data < CLOSE { data == BINARY } else { self.binary },
        }
        input.advance(size);
        let carries_data = opcode == BINARY || (opcode == CONTINUATION && self.binary);
        Ok(if carries_data { Step::Data { length, mask } } else { Step::Skip { length } })
    }

    fn head(&self, length: usize) -> Head {
        self.frame_head(BINARY, length)
    }

    fn ping(&self, out: &mut BytesMut) {
        self.control(PING, PING_PAYLOAD, out);
    }

    fn close(&self, out: &mut BytesMut) {
        const NORMAL_CLOSURE: [u8; 2] = 1000_u16.to_be_bytes();
        self.control(CLOSE, &NORMAL_CLOSURE, out);
    }

    /// A balancer may drop a connection whose client has stopped sending, and with it what is still on its way to
    /// the client; so the server ends the transport (RFC 6455 §7.1.1).
    fn close_ends_transport(&self) -> bool {
        self.side == Side::Server
    }
}

framed_stream!(WebSocketStream);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Upgraded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::WebSocket(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Ping(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Raw(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Upgraded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::WebSocket(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Ping(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Raw(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::WebSocket(stream) => Pin::new(stream).poll_flush(cx),
            Self::Ping(stream) => Pin::new(stream).poll_flush(cx),
            Self::Raw(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::WebSocket(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Ping(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Raw(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
