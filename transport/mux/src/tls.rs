//! The TLS handshake of accepted connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::router::{Because, Router, Tls};
use crate::{ClientHello, HelloError, ReadAhead, Rewind, client_hello};

/// Time for the whole handshake after the ClientHello was read.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);
/// Encrypted bytes that may wait for a connection: more than the four packets of SSH that are written at once, with what is around
/// them, which would be sent in pieces otherwise.
pub const WRITE_BUFFER: usize = 320 * 1024;
/// How long a client may take to read that it is refused.
const REFUSAL: Duration = Duration::from_secs(5);

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Clear bytes.
    pub stream: TlsStream<ReadAhead<S>>,
    /// The negotiated application protocol.
    pub alpn: Option<Vec<u8>>,
    /// The server name the client asked for.
    pub server_name: Option<String>,
    /// The client's certificate and what it sent with it, leaf first; empty without one. Verified by the
    /// configuration's verifier as far as that verifies.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// A TLS connection on its way to a handler.
#[derive(Debug)]
pub enum Routed<S, H> {
    /// TLS ended here.
    Terminated {
        /// Who takes the connection.
        handler: H,
        /// What the client offered; holds more than what was negotiated.
        hello: ClientHello,
        /// The connection.
        accepted: Box<Accepted<Rewind<S>>>,
    },
    /// TLS is still to be ended, the ClientHello still to be read.
    Forwarded {
        /// Who takes the connection.
        handler: H,
        /// What the client offered.
        hello: ClientHello,
        /// The connection.
        stream: Rewind<S>,
    },
}

/// Why a TLS connection is closed before a handler gets it.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No acceptable ClientHello.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// No rule of the table matches.
    #[error("no route for server name {:?} and application protocols {:?}", .0.server_name, printable(&.0.alpn))]
    NoRoute(Box<ClientHello>),
    /// There is no TLS configuration for this server name.
    #[error("no certificate authority for server name {:?}", .0.server_name)]
    NoConfig(Box<ClientHello>),
    /// The handshake took too long.
    #[error("TLS handshake not complete within {0:?}")]
    Timeout(Duration),
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
}

/// Completes the server side of a handshake, within 15 s.
pub async fn accept<S>(stream: S, config: Arc<ServerConfig>) -> Result<Accepted<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(config).accept(ReadAhead::new(stream));
    let mut stream = timeout(HANDSHAKE_DEADLINE, handshake)
        .await
        .map_err(|_| AcceptError::Timeout(HANDSHAKE_DEADLINE))?
        .map_err(AcceptError::Handshake)?;
    let session = stream.get_mut().1;
    session.set_buffer_limit(Some(WRITE_BUFFER));
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    let server_name = session.server_name().map(str::to_ascii_lowercase);
    let peer_certificates = session
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    Ok(Accepted { stream, alpn, server_name, peer_certificates })
}

/// A TLS connection whose way is known, before anything costly is done for it.
#[derive(Debug)]
pub struct Chosen<S, H> {
    /// Who takes the connection.
    pub handler: H,
    hello: ClientHello,
    stream: Rewind<S>,
    /// With what TLS ends here, if it does.
    config: Option<Arc<ServerConfig>>,
}

impl<S, H> Chosen<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Completes the handshake, where the route says so.
    ///
    /// # Errors
    /// As [`accept`].
    pub async fn complete(self) -> Result<Routed<S, H>, AcceptError> {
        let Self { handler, hello, stream, config } = self;
        match config {
            None => Ok(Routed::Forwarded { handler, hello, stream }),
            Some(config) => {
                let accepted = Box::new(accept(stream, config).await?);
                Ok(Routed::Terminated { handler, hello, accepted })
            }
        }
    }
}

/// Reads the ClientHello, asks the table and, where the route says so, completes the handshake.
///
/// # Errors
/// As [`choose`] and [`Chosen::complete`].
pub async fn route<S, H>(stream: S, router: &Router<H>) -> Result<Routed<S, H>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Clone,
{
    choose(stream, router).await?.complete().await
}

/// Reads the ClientHello and asks the table; a client for whom there is no way is told so.
///
/// # Errors
/// No acceptable ClientHello, and no way.
pub async fn choose<S, H>(stream: S, router: &Router<H>) -> Result<Chosen<S, H>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Clone,
{
    let (hello, mut stream) = client_hello(stream).await?;
    let Some(choice) = router.decide(&hello) else {
        refuse(&mut stream, NO_APPLICATION_PROTOCOL).await;
        return Err(AcceptError::NoRoute(Box::new(hello)));
    };
    let handler = choice.route.handler.clone();
    log_choice(&choice.because);
    let config = match &choice.route.tls {
        Tls::Forward => None,
        Tls::Terminate(configs) => match configs.config(&hello) {
            Some(config) => Some(config),
            None => {
                refuse(&mut stream, UNRECOGNIZED_NAME).await;
                return Err(AcceptError::NoConfig(Box::new(hello)));
            }
        },
    };
    Ok(Chosen { handler, hello, stream, config })
}

/// RFC 7301, section 3.2.
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// RFC 6066, section 3.
const UNRECOGNIZED_NAME: u8 = 112;

/// Tells a client by a fatal alert (RFC 8446, section 6) that nothing here is for it, so that it can say more than that
/// the connection ended.
async fn refuse(stream: &mut (impl AsyncWrite + Unpin), alert: u8) {
    // The client may be gone, or not read; then it does not matter to it.
    let told = async {
        stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await?;
        stream.shutdown().await
    };
    let _ = timeout(REFUSAL, told).await;
}

fn log_choice(because: &Because) {
    match because {
        Because::ServerName(name) => tracing::trace!(server_name = ?name, "routed by server name"),
        Because::Protocol(name) => {
            tracing::trace!(alpn = %name.escape_ascii(), "routed by application protocol")
        }
        Because::NoProtocol => tracing::trace!("routed without application protocol"),
    }
}

fn printable(names: &[Vec<u8>]) -> Vec<String> {
    names.iter().take(8).map(|name| name.escape_ascii().to_string()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use pki::keys::{KeyAlgorithm, PrivateKey};
    use pki::tls::{ClientAuth, InsecureServerVerifier, client_config, server_config};
    use pki::x509::{Certificate, self_signed_web};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::alpn;
    use crate::router::Route;

    fn config(names: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let names_of_host = ["proxy.example.com".to_owned()];
        let lifetime = Duration::from_secs(3600);
        let der = self_signed_web(&names_of_host, &key, chrono::Utc::now(), lifetime).unwrap();
        let chain = [Certificate::from_der(&der).unwrap()];
        Arc::new(server_config(&chain, &key, names, ClientAuth::None).unwrap())
    }

    fn table() -> Router<&'static str> {
        let web = Arc::new(config(&alpn::server_preference(false)));
        Router::new()
            .protocols([alpn::HTTP_1_1, alpn::H2], Route::terminate("web", web.clone()))
            .protocols([alpn::REVERSE_TUNNEL], Route::terminate("tunnel", web))
            .protocols([alpn::PROXY_SSH], Route::terminate("other cluster", Arc::new(|_: &ClientHello| None)))
            .protocol_prefix(alpn::AUTH_PREFIX, Route::forward("auth"))
    }

    async fn client(stream: DuplexStream, names: &[&str]) -> io::Result<tokio_rustls::client::TlsStream<DuplexStream>> {
        let config = client_config(InsecureServerVerifier::new(), None, names).unwrap();
        let name = ServerName::try_from("Proxy.example.com").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    #[tokio::test]
    async fn the_way_is_known_before_anything_is_answered() {
        let (near, far) = duplex(1 << 14);
        let dialled = tokio::spawn(client(far, &[alpn::REVERSE_TUNNEL]));
        let chosen = choose(near, &table()).await.unwrap();
        assert_eq!(chosen.handler, "tunnel");
        drop(chosen);
        let refused = dialled.await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof, "no part of a handshake: {refused}");
    }

    #[tokio::test]
    async fn a_terminated_route_hands_over_clear_bytes() {
        let (near, far) = duplex(1 << 14);
        let dialled = tokio::spawn(async move {
            let mut stream = client(far, &["teleport-reversetunnelv2", alpn::REVERSE_TUNNEL]).await.unwrap();
            stream.write_all(b"SSH-2.0-").await.unwrap();
            stream
        });
        let Ok(Routed::Terminated { handler, hello, mut accepted }) = route(near, &table()).await else { panic!() };
        assert_eq!((handler, hello.alpn.len()), ("tunnel", 2));
        assert_eq!(accepted.alpn.as_deref(), Some(alpn::REVERSE_TUNNEL.as_bytes()));
        assert_eq!(accepted.server_name.as_deref(), Some("proxy.example.com"));
        assert!(accepted.peer_certificates.is_empty());
        let mut first = [0; 8];
        accepted.stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"SSH-2.0-");
        drop(dialled.await.unwrap());
    }

    #[tokio::test]
    async fn a_client_without_protocols_gets_the_web_and_no_protocol() {
        let (near, far) = duplex(1 << 14);
        let dialled = tokio::spawn(client(far, &[]));
        let Ok(Routed::Terminated { handler, accepted, .. }) = route(near, &table()).await else { panic!() };
        assert_eq!((handler, accepted.alpn), ("web", None));
        dialled.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_forwarded_route_keeps_the_client_hello() {
        let (near, far) = duplex(1 << 14);
        let dialled = tokio::spawn(async move { client(far, &[&alpn::auth("root"), "h2"]).await });
        let Ok(Routed::Forwarded { handler, hello, stream }) = route(near, &table()).await else { panic!() };
        assert_eq!((handler, alpn::auth_cluster(&hello.alpn[0]).as_deref()), ("auth", Some("root")));
        let accepted = accept(stream, config(&["h2"])).await.unwrap();
        assert_eq!(accepted.alpn.as_deref(), Some(&b"h2"[..]));
        dialled.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn connections_without_route_or_configuration_are_refused_with_an_alert() {
        for (names, expected, alert) in [
            (&["teleport-unheard-of"][..], "no route", "NoApplicationProtocol"),
            (&[alpn::PROXY_SSH], "no certificate authority", "UnrecognisedName"),
        ] {
            let (near, far) = duplex(1 << 14);
            let dialled = tokio::spawn(client(far, names));
            let Err(refused) = route(near, &table()).await else { panic!() };
            assert!(refused.to_string().starts_with(expected), "{refused}");
            let told = dialled.await.unwrap().unwrap_err();
            assert!(told.to_string().contains(alert), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_in_the_handshake_is_given_up() {
        let (near, _far) = duplex(1 << 14);
        assert!(matches!(accept(near, config(&["h2"])).await, Err(AcceptError::Timeout(_))));
    }
}
