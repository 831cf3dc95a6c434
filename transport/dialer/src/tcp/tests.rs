#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::environment::Credentials;

/// What a proxy of these tests does after it was asked.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Connects, and sends the first bytes of the target together with its answer.
    Greet,
    AskPassword,
    Answer(&'static [u8]),
    Hang,
}

/// Serves one connection of a proxy at a time; returns where, and what it was asked.
async fn http_proxy(behaviour: Behaviour) -> (HostPort, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().into();
    let (heads, asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve_connect(stream, behaviour, &heads).await;
        }
    });
    (address, asked)
}

async fn serve_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    behaviour: Behaviour,
    heads: &tokio::sync::mpsc::UnboundedSender<String>,
) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap() == 0 {
            return;
        }
    }
    let authorised = head.contains("Proxy-Authorization: Basic YW5uOnNlY3JldA==");
    heads.send(head).unwrap();
    let answer: &[u8] = match behaviour {
        Behaviour::AskPassword if !authorised => {
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
        }
        Behaviour::Greet | Behaviour::AskPassword => b"HTTP/1.0 200 OK\r\nVia: here\r\n\r\nhello from the target\n",
        Behaviour::Answer(bytes) => bytes,
        Behaviour::Hang => return std::future::pending().await,
    };
    stream.write_all(answer).await.unwrap();
    stream.flush().await.unwrap();
    let mut echo = String::new();
    if stream.read_line(&mut echo).await.unwrap_or(0) > 0 {
        stream.write_all(echo.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
}

fn dialer(scheme: ProxyScheme, address: HostPort, credentials: Option<(&str, &str)>) -> Dialer {
    let credentials = credentials.map(|(user, password)| Credentials::new(user, password));
    let variable = "HTTPS_PROXY".to_owned();
    Dialer::new(ProxyEnvironment::with_proxy(ProxyServer { scheme, address, credentials, variable }))
}

fn target() -> HostPort {
    "far.test:3024".parse().unwrap()
}

async fn converse(stream: BoxStream) -> String {
    let mut stream = BufReader::new(stream);
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await.unwrap();
    stream.write_all(b"ping\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut echo = String::new();
    stream.read_line(&mut echo).await.unwrap();
    format!("{greeting}{echo}")
}

async fn failure(behaviour: Behaviour) -> String {
    let (address, _asked) = http_proxy(behaviour).await;
    let dialer = dialer(ProxyScheme::Http, address, None).with_timeout(Duration::from_millis(400));
    dialer.tcp(&target(), Traffic::Raw).await.err().unwrap().to_string()
}

#[tokio::test]
async fn a_connection_through_a_proxy_keeps_bytes_that_came_with_the_answer() {
    let (address, mut asked) = http_proxy(Behaviour::Greet).await;
    let stream = dialer(ProxyScheme::Http, address, None).tcp(&target(), Traffic::Web).await.unwrap();
    assert_eq!(converse(stream).await, "hello from the target\nping\n");
    assert_eq!(asked.recv().await.unwrap(), "CONNECT far.test:3024 HTTP/1.1\r\nHost: far.test:3024\r\n\r\n");
}

#[tokio::test]
async fn a_password_is_sent_and_a_missing_one_is_named() {
    let (address, _asked) = http_proxy(Behaviour::AskPassword).await;
    let with = dialer(ProxyScheme::Http, address.clone(), Some(("ann", "secret")));
    assert!(with.tcp(&target(), Traffic::Raw).await.is_ok());
    let without = dialer(ProxyScheme::Http, address.clone(), Some(("ann", "wrong")));
    let error = without.tcp(&target(), Traffic::Raw).await.err().unwrap().to_string();
    let expected = format!(
        "connect to far.test:3024 through http proxy {address} (HTTPS_PROXY): unable to proxy connection: 407 Proxy Authentication Required"
    );
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_talks_nonsense_is_named_with_what_it_did() {
    let refused = failure(Behaviour::Answer(b"HTTP/1.1 403 Forbidden by policy\r\nContent-Length: 0\r\n\r\n")).await;
    assert!(refused.contains("(HTTPS_PROXY)") && refused.ends_with("403 Forbidden by policy"), "{refused}");
    let garbage = failure(Behaviour::Answer(&[0x15, 3, 1, 0, 2, 2, 70])).await;
    assert!(garbage.ends_with("answered with something that is not HTTP"), "{garbage}");
    let other_success = failure(Behaviour::Answer(b"HTTP/1.1 204 No Content\r\n\r\n")).await;
    assert!(other_success.ends_with("204 No Content"), "{other_success}");
    let closed = failure(Behaviour::Answer(b"")).await;
    assert!(closed.contains("HTTPS_PROXY"), "{closed}");
}

#[tokio::test]
async fn a_proxy_that_hangs_is_given_up_with_the_step_that_hung() {
    let text = failure(Behaviour::Hang).await;
    assert!(
        text.starts_with("connect to far.test:3024: timed out after 400ms waiting for http proxy 127.0.0.1:"),
        "{text}"
    );
    assert!(text.ends_with("(HTTPS_PROXY) to answer CONNECT far.test:3024"), "{text}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dialer = dialer(ProxyScheme::Http, closed.into(), None);
    let error = dialer.tcp(&target(), Traffic::Raw).await.err().unwrap();
    assert!(matches!(error, DialError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
}

#[tokio::test]
async fn an_https_proxy_is_spoken_to_over_tls_and_verified() {
    use pki::keys::{KeyAlgorithm, PrivateKey};
    use pki::x509::Certificate;
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let lifetime = Duration::from_secs(600);
    let now = std::time::SystemTime::now().into();
    let der = pki::x509::self_signed_web(&["gate.test".to_owned()], &key, now, lifetime).unwrap();
    let chain = [Certificate::from_der(&der).unwrap()];
    let config = pki::tls::server_config(&chain, &key, &[], pki::tls::ClientAuth::None).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, mut asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_connect(stream, Behaviour::Greet, &heads).await;
            }
        }
    });
    let dialer = dialer(ProxyScheme::Https, address.into(), Some(("ann", "secret")));
    let unverified = dialer.clone().with_proxy_verify(Verify::SystemAnd(chain.to_vec()));
    let error = unverified.tcp(&target(), Traffic::Raw).await.err().unwrap();
    assert!(matches!(error, DialError::Tls { .. }), "the name does not fit: {error}");
    let trusting = dialer.with_proxy_verify(Verify::Insecure);
    let stream = trusting.tcp(&target(), Traffic::Raw).await.unwrap();
    assert_eq!(converse(stream).await, "hello from the target\nping\n");
    assert!(asked.recv().await.unwrap().contains("Basic YW5uOnNlY3JldA=="));
}

#[tokio::test]
async fn a_socks_proxy_is_asked_by_name_and_its_refusal_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = dialer(ProxyScheme::Socks5, listener.local_addr().unwrap().into(), Some(("ann", "secret")));
    tokio::spawn(async move {
        for reply in [0, 5] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 4];
            stream.read_exact(&mut hello).await.unwrap();
            assert_eq!(hello, [5, 2, 0, 2]);
            stream.write_all(&[5, 2]).await.unwrap();
            let mut login = [0; 12];
            stream.read_exact(&mut login).await.unwrap();
            assert_eq!(&login, b"\x01\x03ann\x06secret");
            stream.write_all(&[1, 0]).await.unwrap();
            let mut request = [0; 15];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"\x05\x01\x00\x03\x08far.test\x0b\xd0");
            stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            stream.write_all(b"x").await.unwrap();
        }
    });
    let mut stream = dialer.tcp(&target(), Traffic::Raw).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let error = dialer.tcp(&target(), Traffic::Raw).await.err().unwrap().to_string();
    assert!(error.contains("socks5 proxy") && error.ends_with("connection refused"), "{error}");
}

#[tokio::test]
async fn this_machine_is_dialled_directly_whatever_the_environment_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = dialer(ProxyScheme::Http, "192.0.2.1:1".parse().unwrap(), None);
    let here: HostPort = listener.local_addr().unwrap().into();
    assert!(dialer.tcp(&here, Traffic::Raw).await.is_ok());
    let by_name = HostPort::new("localhost", here.port);
    assert!(dialer.tcp(&by_name, Traffic::Raw).await.is_ok(), "one of its addresses answers");
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: HostPort = listener.local_addr().unwrap().into();
    let setup = TlsSetup::new("proxy.test", &["h2"], &Verify::Insecure, None).unwrap();
    let dialer = Dialer::direct().with_timeout(Duration::from_millis(100));
    let error = dialer.tls(&address, Traffic::Raw, &setup).await.err().unwrap().to_string();
    assert!(error.ends_with(&format!("waiting for the TLS handshake with {address}")), "{error}");
}

#[test]
fn addresses_of_both_families_are_tried_in_turn() {
    let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"].map(|text| text.parse::<SocketAddr>().unwrap());
    let order: Vec<_> = interleaved(addresses.to_vec()).into_iter().map(|a| a.ip().to_string()).collect();
    assert_eq!(order, ["::1", "127.0.0.1", "::2", "::3"]);
}
