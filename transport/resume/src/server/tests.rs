#![allow(clippy::unwrap_used, clippy::panic)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::engine::put_number;

const CLOSED: u64 = u64::MAX;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1000))
}

/// A node whose SSH sends back what it gets, and says `bye` at the end of its input.
#[derive(Clone, Default)]
struct EchoNode {
    node: Resumable,
    idle: bool,
}

impl EchoNode {
    fn accept(&self, from: SocketAddr) -> DuplexStream {
        let (ours, theirs) = duplex(1 << 20);
        let (node, node_is_idle) = (self.node.clone(), self.idle);
        tokio::spawn(async move {
            let stop = CancellationToken::new();
            let echo = |incoming: Incoming<DuplexStream>| async move {
                let mut stream = incoming.stream;
                if node_is_idle {
                    drop(incoming.interest.hold_session());
                }
                let mut buffer = vec![0; 1000];
                while let Ok(n) = stream.read(&mut buffer).await {
                    if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                    if buffer[..n].ends_with(b"quit") {
                        let _ = stream.write_all(b"bye").await;
                        break;
                    }
                }
            };
            node.serve(theirs, from, ("SSH-2.0-Teleport", "host-1"), &stop, echo).await;
        });
        ours
    }
}

/// A client after the exchange of keys: the network connection, and the hash of the secret.
async fn connect(node: &EchoNode, from: SocketAddr) -> (DuplexStream, Token) {
    let mut network = node.accept(from);
    network.write_all(b"SSH-2.0-").await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(network.read_u8().await.unwrap());
    }
    let line = String::from_utf8(line).unwrap();
    let parts: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!((parts[0], parts[1], parts[3], parts[2].len()), ("SSH-2.0-Teleport", "resume-v1", "host-1", 87));
    let theirs = STANDARD_NO_PAD.decode(parts[2]).unwrap();
    let key = Key::generate().unwrap();
    network.write_all(b"\0teleport-resume-v1").await.unwrap();
    network.write_all(&key.public).await.unwrap();
    let pad = key.derive(&theirs).unwrap();
    (network, pad)
}

async fn send(network: &mut DuplexStream, acknowledge: u64, data: &[u8]) {
    let mut frame = Vec::new();
    put_number(&mut frame, acknowledge);
    put_number(&mut frame, data.len() as u64);
    frame.extend_from_slice(data);
    network.write_all(&frame).await.unwrap();
}

/// Takes frames until so much data came; gives it with what was acknowledged.
async fn receive(network: &mut DuplexStream, length: usize) -> (u64, Vec<u8>) {
    let (mut acknowledged, mut data) = (0, Vec::new());
    while data.len() < length {
        acknowledged += get_number(network).await.unwrap();
        let mut piece = vec![0; usize::try_from(get_number(network).await.unwrap()).unwrap()];
        network.read_exact(&mut piece).await.unwrap();
        data.extend(piece);
    }
    (acknowledged, data)
}

async fn resume(node: &EchoNode, from: SocketAddr, token: Token) -> (DuplexStream, u8) {
    let (mut network, pad) = connect(node, from).await;
    network.write_all(&[RESUME]).await.unwrap();
    network.write_all(&cover(&token, &pad)).await.unwrap();
    let status = network.read_u8().await.unwrap();
    (network, status)
}

#[tokio::test]
async fn a_connection_goes_on_over_another_network_connection() {
    let node = EchoNode::default();
    let (mut network, token) = connect(&node, address(1)).await;
    network.write_all(&[NEW]).await.unwrap();
    send(&mut network, 0, b"first ").await;
    let (acknowledged, data) = receive(&mut network, 6).await;
    assert_eq!((acknowledged, data.as_slice()), (6, &b"first "[..]));
    send(&mut network, 0, b"second ").await;
    drop(network);

    assert_eq!(resume(&node, address(2), token).await.1, WRONG_ADDRESS);
    assert_eq!(resume(&node, address(1), [7; TOKEN_LENGTH]).await.1, NOT_FOUND);
    let (mut network, status) = resume(&node, address(1), token).await;
    assert_eq!(status, RESUMED);
    // Three bytes of the echo were received before the loss; none was acknowledged.
    let mut position = Vec::new();
    put_number(&mut position, 3);
    network.write_all(&position).await.unwrap();
    let theirs = get_number(&mut network).await.unwrap();
    assert!(theirs == 6 || theirs == 13, "{theirs}");
    let missing = &b"first second "[usize::try_from(theirs).unwrap()..];
    send(&mut network, 0, &[missing, b"quit"].concat()).await;
    let (_, data) = receive(&mut network, 17).await;
    assert_eq!(data, b"st second quitbye");
    // What is left is the acknowledgement, if it did not come with the data, and the end.
    loop {
        match get_number(&mut network).await.unwrap() {
            CLOSED => break,
            _ => assert_eq!(get_number(&mut network).await.unwrap(), 0),
        }
    }
    assert_eq!(resume(&node, address(1), token).await.1, NOT_FOUND);
}

#[tokio::test]
async fn a_new_network_connection_replaces_the_one_that_hangs() {
    let node = EchoNode::default();
    let (mut hanging, token) = connect(&node, address(1)).await;
    hanging.write_all(&[NEW]).await.unwrap();
    let (mut network, status) = resume(&node, address(1), token).await;
    assert_eq!(status, RESUMED);
    network.write_all(&[0]).await.unwrap();
    assert_eq!(get_number(&mut network).await.unwrap(), 0);
    let data = Bytes::from(vec![b'x'; 300_000]);
    let (mut sent, mut got) = (0, 0);
    while got < data.len() {
        let n = (data.len() - sent).min(50_000);
        send(&mut network, 0, &data[sent..sent + n]).await;
        sent += n;
        got += receive(&mut network, n.min(1)).await.1.len();
    }
    assert_eq!(hanging.read(&mut [0]).await.unwrap(), 0, "the old one is closed");
}

#[tokio::test]
async fn a_client_that_knows_nothing_of_this_speaks_ssh_at_once() {
    let node = EchoNode::default();
    let mut network = node.accept(address(1));
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(network.read_u8().await.unwrap());
    }
    // This SSH echoes. What it writes first has to be its line, which is on the wire already.
    network.write_all(&line).await.unwrap();
    network.write_all(b"and more").await.unwrap();
    let mut echoed = [0; 8];
    network.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"and more");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_is_waited_for_as_long_as_something_would_be_lost() {
    for (idle, within, longer) in [(true, 2, 4), (false, 59, 61)] {
        for (seconds, expected) in [(within, RESUMED), (longer, NOT_FOUND)] {
            let node = EchoNode { idle, ..EchoNode::default() };
            let (mut network, token) = connect(&node, address(1)).await;
            network.write_all(&[NEW]).await.unwrap();
            send(&mut network, 0, b"here").await;
            receive(&mut network, 4).await;
            drop(network);
            sleep(Duration::from_secs(seconds)).await;
            assert_eq!(resume(&node, address(1), token).await.1, expected, "after {seconds} s");
        }
    }
}

#[tokio::test]
async fn nonsense_ends_the_network_connection_and_nothing_else() {
    let node = EchoNode::default();
    let (mut network, _) = connect(&node, address(1)).await;
    network.write_all(&[9]).await.unwrap();
    assert_eq!(network.read(&mut [0]).await.unwrap(), 0);

    let (mut network, token) = connect(&node, address(1)).await;
    network.write_all(&[NEW]).await.unwrap();
    send(&mut network, 99, b"").await;
    assert_eq!(network.read(&mut [0]).await.unwrap(), 0, "more was acknowledged than was sent");
    assert_eq!(resume(&node, address(1), token).await.1, RESUMED);
}

async fn get_number(from: &mut DuplexStream) -> io::Result<u64> {
    let mut bytes = bytes::BytesMut::new();
    loop {
        bytes.extend_from_slice(&[from.read_u8().await?]);
        if let Some(number) = crate::engine::take_number(&mut bytes).unwrap() {
            return Ok(number);
        }
    }
}

#[test]
fn a_client_is_waited_for_as_long_as_it_would_miss_something() {
    let interest = Interest::default();
    assert_eq!(interest.patience(), DETACHED, "it has not begun");
    drop(interest.hold());
    assert_eq!(interest.patience(), DETACHED, "a program that forwards ports may open more");
    let session = interest.hold_session();
    let listener = interest.hold();
    assert_eq!(interest.patience(), DETACHED);
    drop(session);
    assert_eq!(interest.patience(), DETACHED, "somebody may connect to what it listens on");
    drop(listener);
    assert_eq!(interest.patience(), DETACHED_IDLE);
}
