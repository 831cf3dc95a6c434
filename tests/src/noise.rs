//! What strangers and broken programs send.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

/// Bytes in one portion of noise.
const AMOUNT: usize = 64 * 1024;
/// How long to listen to what the server has to say about it.
const LIMIT: Duration = Duration::from_millis(500);

/// A way to misbehave at a port.
#[derive(Clone, Copy, Debug)]
pub enum Noise {
    /// Random bytes from the first one on.
    Random,
    /// A proper TLS handshake that asks for this protocol (none if empty), then random bytes.
    InsideTls(&'static str),
    /// An HTTP request line and headers that never make sense.
    Http,
    /// A greeting of SSH, then random bytes.
    Ssh,
}

impl Noise {
    /// All of them, with the protocols that a cluster's ports know.
    pub const ALL: [Self; 8] = [
        Self::Random,
        Self::Http,
        Self::Ssh,
        Self::InsideTls(""),
        Self::InsideTls("h2"),
        Self::InsideTls("http/1.1"),
        Self::InsideTls("teleport-proxy-ssh"),
        Self::InsideTls("teleport-reversetunnel"),
    ];
}

/// Sends 64 KiB of noise to a port of this machine. What comes back, and whether it is refused half-way, is
/// the server's business.
pub fn make_noise(port: u16, noise: Noise, seed: u64) {
    let Some(mut stream) = connect(port) else { return };
    let bytes = random_bytes(seed);
    match noise {
        Noise::Random => send_and_read(&mut stream, &bytes),
        Noise::Ssh => send_and_read(&mut stream, &[b"SSH-2.0-noise\r\n", &bytes[..]].concat()),
        Noise::Http => {
            let head = b"GET /\x00\xff/../../..//%zz HTTP/9.9\r\nHost:\r\nContent-Length: -1\r\n: \r\n";
            send_and_read(&mut stream, &[head, &bytes[..], b"\r\n\r\n"].concat());
        }
        Noise::InsideTls(protocol) => {
            if let Ok(mut stream) = tls(stream, protocol, None) {
                send_and_read(&mut stream, &bytes);
            }
        }
    }
}

/// Connections that begin something and leave it there, open for as long as they are kept.
pub fn hold_half_open(port: u16) -> Vec<TcpStream> {
    let beginnings: [&[u8]; 5] = [b"", b"\x16\x03\x01", b"GET / HTT", b"SSH-2.0-", b"PROXY TCP4 "];
    let mut held: Vec<_> = beginnings.iter().filter_map(|_| connect(port)).collect();
    for (stream, beginning) in held.iter_mut().zip(beginnings) {
        stream.write_all(beginning).ok();
    }
    // One that will say nothing more, but listens.
    if let Some(last) = held.last() {
        last.shutdown(Shutdown::Write).ok();
    }
    held
}

/// Shakes hands over TLS with a client certificate and reads: whether the server went along with it.
pub fn tls_conversation(
    port: u16,
    protocol: &str,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(), String> {
    let stream = connect(port).ok_or("no connection")?;
    let mut stream = tls(stream, protocol, Some((chain, key)))?;
    // The answer to a client certificate comes with the first bytes after the handshake.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").map_err(|e| e.to_string())?;
    let mut first = [0; 9];
    stream.read_exact(&mut first).map_err(|e| e.to_string())
}

fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.set_write_timeout(Some(LIMIT)).ok()?;
    Some(stream)
}

type Certified = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);
type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tls(mut stream: TcpStream, protocol: &str, own: Option<Certified>) -> Result<Tls, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.dangerous().with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?,
        None => builder.with_no_client_auth(),
    };
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    }
    let name = ServerName::try_from("localhost").map_err(|e| e.to_string())?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())?;
    connection.complete_io(&mut stream).map_err(|e| e.to_string())?;
    Ok(StreamOwned::new(connection, stream))
}

fn send_and_read(stream: &mut (impl Read + Write), bytes: &[u8]) {
    stream.write_all(bytes).and_then(|()| stream.flush()).ok();
    let _whatever = stream.read(&mut [0; 4096]).unwrap_or(0);
}

/// The same bytes for the same seed (splitmix64).
fn random_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..AMOUNT / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// Strangers do not check certificates.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
