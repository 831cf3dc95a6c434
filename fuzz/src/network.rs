//! The first bytes of connections, and framings inside them.

use std::cell::RefCell;
use std::future::Future;
use std::io::Cursor;
use std::net::SocketAddr;

use bytes::BytesMut;
use mux::proxy_protocol::{self, Header, Parsed};
use mux::upgrade::{Content, Form, Side, Upgraded};
use mux::{Arrival, DetectConfig, ProxyProtocolMode};
use resume::engine::{Engine, SEND_LIMIT};
use resume::exchange::{Invitation, LONGEST_LINE};
use tokio::io::{AsyncReadExt, Join, join, sink};
use tokio::runtime::{Builder, Runtime};
use tunnel::{DialRequest, discovery};

pub(crate) const NAMES: &[&str] = &[
    "h2",
    "http/1.1",
    "teleport-auth@",
    "teleport-reversetunnelv2",
    "-ping",
    "teleport-mysql",
    "kube-teleport-proxy-alpn.",
];
pub(crate) const FIRST_BYTES: &[&str] = &[
    "SSH-2.0-",
    "PROXY TCP4 ",
    "PROXY TCP6 ",
    "PROXY UNKNOWN",
    "127.0.0.1 ",
    "::ffff:1.2.3.4 ",
    "65535\r\n",
    "\r\n\r\n\0\r\nQUIT\n",
    "GET / HTTP/1.1\r\n",
];
pub(crate) const REQUESTS: &[&str] = &[
    "{\"address\":",
    "\"server_id\":",
    "\"conn_type\":",
    "\"windows_desktop\"",
    "\"client_src_addr\":",
    "\"proxies\":[",
    "\"metadata\":{\"name\":",
    "\"ggen\":",
    "@local-node",
    "18446744073709551615",
];

/// A stream that holds the bytes and then ends; what is written to it is forgotten.
type Bytes<'b> = Join<Cursor<&'b [u8]>, tokio::io::Sink>;

fn stream(data: &[u8]) -> Bytes<'_> {
    join(Cursor::new(data), sink())
}

/// Runs what never waits: the streams here are always ready.
fn now<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().enable_time().build().expect("runtime"));
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(future))
}

async fn rest<S: tokio::io::AsyncRead + Unpin>(mut stream: S) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("the bytes in memory can be read");
    bytes
}

/// PROXY protocol headers of both versions.
pub fn proxy_header(data: &[u8]) {
    match proxy_protocol::parse(data) {
        Ok(Parsed::Complete { header, length }) => {
            assert!(length <= data.len(), "a header of {length} bytes in {}", data.len());
            let again = proxy_protocol::parse(&data[..length]);
            assert_eq!(again, Ok(Parsed::Complete { header: header.clone(), length }), "what follows has no influence");
            // Any prefix may become this header, so none of them is refused.
            for cut in [length / 2, length - 1] {
                let prefix = proxy_protocol::parse(&data[..cut]);
                assert!(matches!(prefix, Ok(Parsed::Incomplete { .. })), "{prefix:?} after {cut} of {length} bytes");
            }
            let _ = header.signature();
            if let Some(addresses) = &header.addresses {
                let written = Header::unsigned(addresses);
                match proxy_protocol::parse(&written) {
                    Ok(Parsed::Complete { header, length }) => {
                        assert_eq!((header.addresses.as_ref(), length), (Some(addresses), written.len()));
                    }
                    other => panic!("{addresses:?} reads back as {other:?}"),
                }
            }
        }
        Ok(Parsed::Incomplete { missing }) => assert_ne!(missing, 0),
        Ok(Parsed::NotAHeader) | Err(_) => {}
    }
}

/// Protocol detection, with PROXY headers in every mode.
pub fn detect(data: &[u8]) {
    let peer = SocketAddr::from(([192, 0, 2, 1], 40_000));
    let local = SocketAddr::from(([192, 0, 2, 2], 443));
    let arrival = Arrival { peer, local, handed_on: false };
    for proxy_protocol in [ProxyProtocolMode::On, ProxyProtocolMode::Off, ProxyProtocolMode::Unspecified] {
        let config = DetectConfig { proxy_protocol, ..DetectConfig::default() };
        let Ok(detected) = now(mux::detect(stream(data), arrival, &config)) else { continue };
        let left = now(rest(detected.stream));
        assert!(data.ends_with(&left), "every byte after the headers is read again");
        if proxy_protocol == ProxyProtocolMode::Off {
            assert_eq!(detected.client_addr, peer, "strangers do not choose their address");
        }
    }
}

/// TLS ClientHello.
pub fn client_hello(data: &[u8]) {
    let Ok((hello, stream)) = now(mux::client_hello(stream(data))) else { return };
    assert_eq!(now(rest(stream)), data, "nothing is consumed");
    if let Some(name) = &hello.server_name {
        let _ = mux::server_name::from_server_name(name);
    }
    for name in &hello.alpn {
        alpn(name);
    }
    let _ = mux::alpn::mysql_server_version(&hello.alpn);
}

/// Names inside a ClientHello.
pub fn alpn(data: &[u8]) {
    if let Some(cluster) = mux::alpn::auth_cluster(data) {
        let name = mux::alpn::auth(&cluster);
        assert_eq!(mux::alpn::auth_cluster(name.as_bytes()), Some(cluster), "{name}");
    }
    let _ = mux::alpn::is_ping(data);
    let _ = mux::alpn::mysql_server_version(&[data.to_vec()]);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(cluster) = mux::server_name::from_server_name(text) {
        let name = mux::server_name::to_server_name(&cluster);
        assert_eq!(mux::server_name::from_server_name(&name).ok(), Some(cluster), "{name}");
    }
    let _ = Form::choose([text], [text]);
}

/// The framings of upgraded connections; the first byte chooses one.
pub fn framing(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let (form, side) = match choice % 5 {
        0 => (Form::WebSocket(Content::Alpn), Side::Server),
        1 => (Form::WebSocket(Content::AlpnPing), Side::Server),
        2 => (Form::WebSocket(Content::Alpn), Side::Client),
        3 => (Form::Legacy(Content::AlpnPing), Side::Server),
        _ => (Form::Legacy(Content::AlpnPing), Side::Client),
    };
    let mut inside = Vec::new();
    let _ = now(async {
        // Broken frames are errors; what came before them has been read.
        Upgraded::new(form, side, stream(data)).read_to_end(&mut inside).await
    });
    assert!(inside.len() <= data.len(), "frames hold no more than there is");
}

/// What the peer of a resumable connection sends: its identification line, and frames. The first byte chooses whether
/// the connection is new and in what pieces the rest arrives.
pub fn resumption(data: &[u8]) {
    if let Some(invitation) = Invitation::parse(data) {
        assert!(data.len() <= LONGEST_LINE + invitation.host_id.len());
    }
    let Some((choice, data)) = data.split_first() else { return };
    let mut engine = Engine::default();
    engine.attach(false);
    assert_eq!(engine.write(b"kept until it is acknowledged"), 29);
    while engine.transmit(false).is_some() {}
    if choice % 2 == 1 {
        engine.attach(true);
    }
    let mut input = BytesMut::new();
    let (mut given, mut read) = (0, 0);
    for piece in data.chunks(usize::from(choice / 2) + 1) {
        input.extend_from_slice(piece);
        given += piece.len();
        if engine.receive(&mut input).is_err() {
            return;
        }
        while let Some(bytes) = engine.read(1000) {
            read += bytes.len();
        }
        let mut frames = 0;
        while engine.transmit(true).is_some() {
            frames += 1;
            assert!(frames < 10, "there is not that much to say");
        }
        assert!(engine.is_over() || input.len() < 10, "what is read leaves room");
        assert!(read <= given && engine.room_to_write() <= SEND_LIMIT);
    }
}

/// Requests on the channels of reverse tunnels.
pub fn tunnel_request(data: &[u8]) {
    if let Ok(request) = DialRequest::from_payload(data) {
        assert!(request.tunnel_type().is_ok());
        let _ = (request.client_source(), request.client_destination());
        let again = DialRequest::from_payload(&request.to_payload());
        assert_eq!(again.as_ref(), Ok(&request));
    }
    if let Ok(proxies) = discovery::from_payload(data) {
        assert_eq!(discovery::from_payload(&discovery::to_payload(&proxies)).ok(), Some(proxies));
    }
}
