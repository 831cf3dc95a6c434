//! Reading a TLS ClientHello without consuming it.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::{AcceptedAlert, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::Rewind;

/// Largest ClientHello that is read. Real ones stay under 4 KiB, post-quantum key shares included.
const LARGEST: usize = 64 * 1024;
/// Time for the complete ClientHello.
const DEADLINE: Duration = Duration::from_secs(15);
/// Time an alert may take to be written to a client that is turned away.
const ALERT_DEADLINE: Duration = Duration::from_secs(1);

/// What a TLS client says before any answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Server name indication in lower case; IP addresses are not names and count as none.
    pub server_name: Option<String>,
    /// Application protocols in the client's order; empty when the client offers none.
    pub alpn: Vec<Vec<u8>>,
}

/// Why a ClientHello could not be read; the connection is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The client was too slow.
    #[error("no complete TLS ClientHello within {0:?}")]
    Timeout(Duration),
    /// More bytes than any sensible ClientHello has.
    #[error("TLS ClientHello is larger than 64 KiB")]
    TooLarge,
    /// End of stream in the middle.
    #[error("connection closed within the TLS ClientHello")]
    Closed,
    /// The socket failed.
    #[error("read TLS ClientHello: {0}")]
    Io(#[from] io::Error),
    /// Not a ClientHello, or one that nobody could accept; the client was sent the alert.
    #[error("TLS ClientHello: {0}")]
    Refused(rustls::Error),
}

/// Reads the ClientHello and hands back the stream with every byte still to be read.
pub async fn client_hello<S>(mut stream: S) -> Result<(ClientHello, Rewind<S>), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(DEADLINE, read(&mut stream)).await {
        Err(_) => Err(HelloError::Timeout(DEADLINE)),
        Ok(Ok((hello, replay))) => Ok((hello, Rewind::new(replay, stream))),
        Ok(Err((error, alert))) => {
            send_alert(&mut stream, alert).await;
            Err(error)
        }
    }
}

type Failure = (HelloError, Option<AcceptedAlert>);

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(ClientHello, Bytes), Failure> {
    let mut acceptor = Acceptor::default();
    let mut received = BytesMut::with_capacity(2048);
    loop {
        if received.len() >= LARGEST {
            return Err((HelloError::TooLarge, None));
        }
        let before = received.len();
        if received.capacity() == before {
            received.reserve(before.max(2048));
        }
        if stream.read_buf(&mut received).await.map_err(|error| (error.into(), None))? == 0 {
            return Err((HelloError::Closed, None));
        }
        if let Some(hello) = feed(&mut acceptor, &received[before..])? {
            return Ok((hello, received.freeze()));
        }
    }
}

/// Gives new bytes to the acceptor, which takes them in portions of its own choice.
fn feed(acceptor: &mut Acceptor, mut fresh: &[u8]) -> Result<Option<ClientHello>, Failure> {
    while !fresh.is_empty() {
        acceptor.read_tls(&mut fresh).map_err(|error| (error.into(), None))?;
        let accepted = acceptor.accept().map_err(|(error, alert)| (HelloError::Refused(error), Some(alert)))?;
        if let Some(accepted) = accepted {
            let hello = accepted.client_hello();
            return Ok(Some(ClientHello {
                server_name: hello.server_name().map(str::to_ascii_lowercase),
                alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
            }));
        }
    }
    Ok(None)
}

async fn send_alert<S: AsyncWrite + Unpin>(stream: &mut S, alert: Option<AcceptedAlert>) {
    let mut bytes = Vec::new();
    if let Some(mut alert) = alert {
        // Writing into a Vec does not fail.
        let _ = alert.write_all(&mut bytes);
    }
    if !bytes.is_empty() {
        // The connection ends either way; the alert only helps the client to say why.
        let _ = timeout(ALERT_DEADLINE, async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn hello_bytes(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn name_and_protocols_are_read_and_nothing_is_consumed() {
        let bytes = hello_bytes("Proxy.Example.com", &["teleport-auth@x", "h2"]);
        let (near, mut far) = tokio::io::duplex(16);
        let sent = bytes.clone();
        tokio::spawn(async move { far.write_all(&sent).await });
        let (hello, mut stream) = client_hello(near).await.unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("proxy.example.com"));
        assert_eq!(hello.alpn, [b"teleport-auth@x".to_vec(), b"h2".to_vec()]);
        let mut again = Vec::new();
        stream.read_to_end(&mut again).await.unwrap();
        assert_eq!(again, bytes);
    }

    #[tokio::test]
    async fn a_client_without_name_and_protocols_is_read_too() {
        let (near, mut far) = tokio::io::duplex(1 << 14);
        far.write_all(&hello_bytes("192.0.2.1", &[])).await.unwrap();
        assert_eq!(client_hello(near).await.unwrap().0, ClientHello::default());
    }

    #[tokio::test]
    async fn garbage_is_answered_with_an_alert() {
        let (near, mut far) = tokio::io::duplex(1 << 14);
        far.write_all(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00").await.unwrap();
        assert!(matches!(client_hello(near).await, Err(HelloError::Refused(_))));
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&0x15), "an alert record");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_given_up_after_fifteen_seconds() {
        let (near, mut far) = tokio::io::duplex(1 << 14);
        far.write_all(&hello_bytes("a.example", &[])[..20]).await.unwrap();
        assert!(matches!(client_hello(near).await, Err(HelloError::Timeout(_))));
    }

    #[tokio::test]
    async fn an_endless_hello_is_cut_off() {
        let (near, mut far) = tokio::io::duplex(1 << 14);
        tokio::spawn(async move {
            // One handshake message that announces 16 MiB, in full records.
            let mut first = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
            first.resize(5 + 0x4000, 0);
            let mut next = vec![0x16, 3, 1, 0x40, 0];
            next.resize(5 + 0x4000, 0);
            far.write_all(&first).await?;
            loop {
                far.write_all(&next).await?;
            }
            #[allow(unreachable_code)]
            io::Result::Ok(())
        });
        assert!(matches!(client_hello(near).await, Err(HelloError::TooLarge | HelloError::Refused(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = hello_bytes("proxy.example.com", &["h2", "http/1.1"]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let mut acceptor = Acceptor::default();
            let _ = feed(&mut acceptor, &bytes);
        }
    }
}
