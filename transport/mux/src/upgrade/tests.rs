#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const ALL_FORMS: [Form; 4] = [
    Form::WebSocket(Content::Alpn),
    Form::WebSocket(Content::AlpnPing),
    Form::Legacy(Content::Alpn),
    Form::Legacy(Content::AlpnPing),
];

#[test]
fn the_server_prefers_websocket_then_pings() {
    let choose = |upgrades: &[&'static str], protocols: &[&'static str]| {
        Form::choose(upgrades.iter().copied(), protocols.iter().copied())
    };
    assert_eq!(choose(&["alpn-ping", "websocket", "alpn-ping"], &["alpn-ping"]), Some(ALL_FORMS[1]));
    assert_eq!(choose(&["alpn", "alpn, WebSocket"], &["alpn"]), Some(ALL_FORMS[0]));
    assert_eq!(choose(&["alpn", "alpn-ping"], &[]), Some(ALL_FORMS[3]));
    assert_eq!(choose(&["alpn"], &[]), Some(ALL_FORMS[2]));
    assert_eq!(choose(&["websocket"], &["chat"]), None);
    assert_eq!(choose(&["h2c"], &["alpn"]), None);
    assert_eq!(choose(&[], &[]), None);
}

#[test]
fn accept_key_follows_the_example_of_the_standard() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn every_form_carries_large_data_both_ways() {
    for form in ALL_FORMS {
        let (near, far) = duplex(300);
        let client = Upgraded::new(form, Side::Client, near);
        let server = Upgraded::new(form, Side::Server, far);
        let data: Vec<u8> = (0..400_000_u32).map(|n| (n % 253) as u8).collect();
        let (sent, echoed) = (data.clone(), data.len());
        let echo = tokio::spawn(async move {
            let (mut reading, mut writing) = tokio::io::split(server);
            tokio::io::copy(&mut reading, &mut writing).await.unwrap();
            writing.shutdown().await.unwrap();
        });
        let (mut reading, mut writing) = tokio::io::split(client);
        let writer = tokio::spawn(async move {
            writing.write_all(&sent).await.unwrap();
            writing.flush().await.unwrap();
            writing
        });
        let mut received = vec![0; echoed];
        reading.read_exact(&mut received).await.unwrap();
        assert!(received == data, "{form:?}");
        writer.await.unwrap().shutdown().await.unwrap();
        assert_eq!(reading.read(&mut [0; 8]).await.unwrap(), 0, "{form:?}: the end is passed on");
        echo.await.unwrap();
    }
}

#[tokio::test]
async fn client_frames_are_masked_with_zeros_and_server_frames_are_not() {
    let (near, mut far) = duplex(64);
    let mut client = WebSocketStream::client(near);
    client.write_all(b"abc").await.unwrap();
    let mut frame = [0; 9];
    far.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x82\x83\0\0\0\0abc");

    let (near, mut far) = duplex(64);
    let mut server = WebSocketStream::server(near, Content::Alpn);
    server.write_all(b"abc").await.unwrap();
    let mut frame = [0; 5];
    far.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x82\x03abc");
}

#[tokio::test]
async fn masks_fragments_text_and_pongs_are_understood() {
    let (near, mut far) = duplex(1 << 10);
    let masked: Vec<u8> = b"hello".iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, k)| b ^ k).collect();
    let frames: [&[u8]; 7] = [
        &[&[0x82, 0x85, 1, 2, 3, 4][..], &masked].concat(),
        b"\x8a\x00",
        b"\x81\x04text",
        b"\x02\x02 w",
        b"\x89\x80\x09\x09\x09\x09",
        b"\x80\x03orl",
        b"\x82\x7e\x00\x01d\x88\x02\x03\xe8trailing",
    ];
    for frame in frames {
        far.write_all(frame).await.unwrap();
    }
    let mut server = WebSocketStream::server(near, Content::Alpn);
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello world");
    let mut pong = [0; 2];
    far.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x8a, 0]);
}

#[tokio::test(start_paused = true)]
async fn server_pings_reach_the_client_and_are_answered() {
    let (near, mut watched) = duplex(1 << 10);
    let mut server = WebSocketStream::server(near, Content::AlpnPing);
    let reader = tokio::spawn(async move { server.read_u8().await });
    let mut ping = [0; 10];
    watched.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"\x89\x08teleport");

    let (near, mut far) = duplex(1 << 10);
    let mut client = WebSocketStream::client(near);
    let client = tokio::spawn(async move { client.read_u8().await });
    far.write_all(&ping).await.unwrap();
    let mut pong = [0; 14];
    far.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8a\x88\0\0\0\0teleport");
    reader.abort();
    client.abort();
}

#[tokio::test]
async fn broken_frames_end_the_stream_with_an_error() {
    for frame in [&b"\xc2\x01a"[..], b"\x89\x7e\x00\x80", b"\x09\x00", b"\x82\x05ab"] {
        let (near, mut far) = duplex(64);
        far.write_all(frame).await.unwrap();
        drop(far);
        let mut rest = Vec::new();
        assert!(WebSocketStream::server(near, Content::Alpn).read_to_end(&mut rest).await.is_err(), "{frame:?}");
    }
}

proptest! {
    #[test]
    fn heads_are_parsed_as_written(length in prop_oneof![0_usize..200, 60_000_usize..70_000, any::<u32>().prop_map(|n| n as usize)], client in any::<bool>()) {
        let side = if client { Side::Client } else { Side::Server };
        let head = WebSocket { side, binary: true }.head(length);
        let parsed = FrameHead::parse(head.as_slice()).unwrap();
        prop_assert_eq!((parsed.length, parsed.size), (length as u64, head.as_slice().len()));
        for cut in 0..head.as_slice().len() {
            prop_assert!(FrameHead::parse(&head.as_slice()[..cut]).is_none());
        }
    }

    #[test]
    fn strangers_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = duplex(1 << 12);
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = WebSocketStream::server(near, Content::AlpnPing).read_to_end(&mut rest).await;
            prop_assert!(rest.len() <= bytes.len());
            Ok(())
        })?;
    }
}
