#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PEER: &str = "203.0.113.5:40000";
const LOCAL: &str = "198.51.100.1:443";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n";
const SSH: &[u8] = b"SSH-2.0-client\r\n";

struct Judge(Result<Option<IpAddr>, VerifyError>);

#[async_trait]
impl VerifySignedHeader for Judge {
    async fn verify(&self, _: &Addresses, _: Signature<'_>) -> Result<Option<IpAddr>, VerifyError> {
        self.0.clone()
    }
}

fn arrival() -> Arrival {
    Arrival { peer: PEER.parse().unwrap(), local: LOCAL.parse().unwrap(), handed_on: false }
}

fn mode(proxy_protocol: ProxyProtocolMode) -> DetectConfig {
    DetectConfig { proxy_protocol, ..DetectConfig::default() }
}

fn judged(proxy_protocol: ProxyProtocolMode, verdict: Result<Option<IpAddr>, VerifyError>) -> DetectConfig {
    DetectConfig { verifier: Some(Arc::new(Judge(verdict))), ..mode(proxy_protocol) }
}

fn signed_header() -> Vec<u8> {
    let pair = Addresses::new("10.0.0.9:999".parse().unwrap(), "10.0.0.8:3025".parse().unwrap()).unwrap();
    Header::signed(&pair, b"certificate", "token").unwrap()
}

async fn run(
    bytes: &[u8],
    arrival: Arrival,
    config: &DetectConfig,
) -> Result<Detected<tokio::io::DuplexStream>, DetectError> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    far.write_all(bytes).await.unwrap();
    drop(far);
    detect(near, arrival, config).await
}

#[tokio::test]
async fn protocols_are_told_by_their_first_bytes() {
    let cases: [(&[u8], Protocol); 8] = [
        (b"SSH-2.0-OpenSSH_10", Protocol::Ssh),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1", Protocol::Tls),
        (b"GET / HTTP/1.1\r\n", Protocol::Http),
        (b"OPTIONS * HTTP/1.1\r\n", Protocol::Http),
        (b"PATCH / HTTP/1.1\r\n", Protocol::Http),
        (&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], Protocol::Postgres),
        (&[0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e, 1, 2, 3, 4, 5, 6, 7, 8], Protocol::Postgres),
        (&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x30], Protocol::Postgres),
    ];
    for (bytes, protocol) in cases {
        let mut detected = run(bytes, arrival(), &DetectConfig::default()).await.unwrap();
        assert_eq!(detected.protocol, protocol, "{bytes:?}");
        let mut all = Vec::new();
        detected.stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes, "nothing is consumed");
    }
}

#[tokio::test]
async fn other_first_bytes_close_the_connection() {
    for bytes in [&b"EHLO example.org"[..], b"\r\n\r\n\0\r\nQuit?", &[0; 8], b"get / http/1.1"] {
        assert!(
            matches!(run(bytes, arrival(), &DetectConfig::default()).await, Err(DetectError::Unknown(_))),
            "{bytes:?}"
        );
    }
    assert!(matches!(run(b"SSH", arrival(), &DetectConfig::default()).await, Err(DetectError::Closed(3))));
}

#[tokio::test]
async fn the_mode_decides_about_unsigned_headers() {
    use ProxyProtocolMode::{Off, On, Unspecified};
    let with_header = [LINE, SSH].concat();
    let client =
        |found: Result<Detected<_>, DetectError>| found.map(|d| d.client_addr.to_string()).map_err(|e| e.to_string());
    for (mode_, bytes, expected) in [
        (On, &with_header[..], Ok("192.0.2.1:51234")),
        (On, SSH, Err("PROXY protocol header is required, but the connection has none")),
        (Off, &with_header, Err("external PROXY protocol support is disabled")),
        (Off, SSH, Ok(PEER)),
        (Unspecified, &with_header, Ok("192.0.2.1:0")),
        (Unspecified, SSH, Ok(PEER)),
    ] {
        let found = client(run(bytes, arrival(), &mode(mode_)).await);
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{mode_:?}");
    }
}

#[tokio::test]
async fn a_header_that_nobody_configured_names_nobody_for_whom_things_count() {
    use ProxyProtocolMode::{On, Unspecified};
    let unsigned = [LINE, SSH].concat();
    for (mode_, bytes, counted) in
        [(On, &unsigned[..], "192.0.2.1"), (Unspecified, &unsigned, "203.0.113.5"), (Unspecified, SSH, "203.0.113.5")]
    {
        let detected = run(bytes, arrival(), &mode(mode_)).await.unwrap();
        assert_eq!(detected.counted.to_string(), counted, "{mode_:?}");
    }
}

#[tokio::test]
async fn a_required_header_may_be_missing_on_connections_of_our_own() {
    let config = mode(ProxyProtocolMode::On);
    let own = Arrival { peer: "198.51.100.1:5".parse().unwrap(), ..arrival() };
    let mapped = Arrival { peer: "[::ffff:198.51.100.1]:5".parse().unwrap(), ..arrival() };
    let handed_on = Arrival { handed_on: true, ..arrival() };
    for arrival in [own, mapped, handed_on] {
        assert_eq!(run(SSH, arrival, &config).await.unwrap().protocol, Protocol::Ssh);
    }
}

#[tokio::test]
async fn a_local_header_changes_no_address_and_counts_as_the_one_header() {
    let local = proxy_protocol::encode_v2(None, &[]);
    let config = mode(ProxyProtocolMode::On);
    let detected = run(&[&local, SSH].concat(), arrival(), &config).await.unwrap();
    assert_eq!((detected.client_addr.to_string().as_str(), detected.header), (PEER, HeaderSeen::Unsigned));
    assert!(matches!(run(&[&local, LINE, SSH].concat(), arrival(), &config).await, Err(DetectError::Unexpected(_))));
}

#[tokio::test]
async fn a_verified_signed_header_wins_in_every_mode() {
    use ProxyProtocolMode::{Off, On, Unspecified};
    for mode_ in [On, Off, Unspecified] {
        let detected = run(&[&signed_header(), SSH].concat(), arrival(), &judged(mode_, Ok(None))).await.unwrap();
        assert_eq!(detected.client_addr, "10.0.0.9:999".parse().unwrap());
        assert_eq!((detected.header, detected.counted.to_string().as_str()), (HeaderSeen::Signed, "10.0.0.9"));
        let counted = Some("203.0.113.77".parse().unwrap());
        let detected = run(&[&signed_header(), SSH].concat(), arrival(), &judged(mode_, Ok(counted))).await.unwrap();
        assert_eq!((detected.client_addr.port(), Some(detected.counted)), (999, counted));
    }
    let both = [LINE, &signed_header(), SSH].concat();
    assert_eq!(run(&both, arrival(), &judged(On, Ok(None))).await.unwrap().client_addr.port(), 999);
}

#[tokio::test]
async fn signed_headers_are_refused_skipped_or_demoted() {
    use ProxyProtocolMode::{Off, On, Unspecified};
    let bytes = [&signed_header()[..], SSH].concat();
    let refused = judged(Unspecified, Err(VerifyError::Refused("wrong issuer".into())));
    assert!(matches!(run(&bytes, arrival(), &refused).await, Err(DetectError::Refused(_))));
    let unavailable = |mode_| judged(mode_, Err(VerifyError::Unavailable("no connection".into())));
    assert_eq!(run(&bytes, arrival(), &unavailable(Off)).await.unwrap().client_addr.to_string(), PEER);
    assert!(matches!(run(&bytes, arrival(), &unavailable(On)).await, Err(DetectError::Required)));
    assert!(matches!(run(&bytes, arrival(), &mode(Off)).await, Err(DetectError::Disabled)));
    assert_eq!(run(&bytes, arrival(), &mode(On)).await.unwrap().header, HeaderSeen::Unsigned);
}

#[tokio::test]
async fn more_headers_than_one_of_each_kind_close_the_connection() {
    let config = judged(ProxyProtocolMode::On, Ok(None));
    let signed = signed_header();
    for bytes in [[LINE, LINE, SSH].concat(), [&signed, &signed[..], SSH].concat(), [&signed, LINE, SSH].concat()] {
        assert!(matches!(run(&bytes, arrival(), &config).await, Err(DetectError::Unexpected(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_too_little_is_given_up_after_the_deadline() {
    for bytes in [&b""[..], b"SSH-2.0", b"PROXY TCP4 192.0.2.1", &proxy_protocol::V2_SIGNATURE] {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(bytes).await.unwrap();
        let started = Instant::now();
        let found = detect(near, arrival(), &DetectConfig::default()).await;
        assert!(matches!(found, Err(DetectError::Timeout(_))), "{bytes:?}");
        assert_eq!(started.elapsed().as_secs(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_taken_for_ssh_where_that_is_wanted() {
    let config = DetectConfig { silence_means_ssh: Some(Duration::from_secs(1)), ..mode(ProxyProtocolMode::On) };
    let silent = |arrival| {
        let config = config.clone();
        async move {
            let (near, _far) = tokio::io::duplex(64);
            detect(near, arrival, &config).await.map(|detected| detected.protocol)
        }
    };
    assert_eq!(silent(Arrival { handed_on: true, ..arrival() }).await.unwrap(), Protocol::Ssh);
    assert!(silent(arrival()).await.is_err(), "not before a required header");
}
