#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::{Incoming, Resumable};

/// A node whose SSH says how many bytes it got so far, and the network before it.
#[derive(Clone, Default)]
struct World {
    node: Resumable,
    /// The node knows nothing of resumption.
    plain: bool,
    dialled: Arc<AtomicUsize>,
    /// Cuts the network connections there are.
    cut: Arc<Mutex<CancellationToken>>,
    /// Nobody is let in any more.
    refuses: Arc<AtomicBool>,
    unreachable: Arc<AtomicBool>,
}

impl World {
    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }

    fn accept(&self) -> DuplexStream {
        let (ours, mut near) = duplex(100);
        let (mut far, theirs) = duplex(100);
        let cut = self.cut.lock().clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                _ = copy_bidirectional(&mut near, &mut far) => {}
            }
        });
        let (node, plain) = (self.node.clone(), self.plain);
        tokio::spawn(async move {
            let mut theirs = theirs;
            if plain {
                theirs.write_all(b"SSH-2.0-Plain\r\nhello").await.unwrap();
                let mut line = [0; 15];
                theirs.read_exact(&mut line).await.unwrap();
                assert_eq!(&line, b"SSH-2.0-Client\n");
                return theirs.write_all(b"bye").await.unwrap();
            }
            let echo = |incoming: Incoming<DuplexStream>| async move {
                let (mut stream, mut buffer) = (incoming.stream, [0; 1000]);
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                }
            };
            let from = SocketAddr::from(([10, 0, 0, 1], 1000));
            node.serve(theirs, from, ("SSH-2.0-Teleport", "host-1"), &CancellationToken::new(), echo).await;
        });
        ours
    }
}

impl Dial for World {
    type Stream = DuplexStream;

    async fn dial(&self, host_id: Option<&str>) -> io::Result<DuplexStream> {
        let before = self.dialled.fetch_add(1, Ordering::SeqCst);
        assert_eq!(host_id, (before > 0).then_some("host-1"));
        if self.refuses.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "your certificate has expired"));
        }
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(self.accept())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_its_network_connections() {
    let world = World::default();
    let mut stream = connect(world.clone()).await.unwrap();
    assert!(matches!(stream, Stream::Resumable(_)));
    let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        let end = data.len().min(sent + 20_000);
        stream.write_all(&data[sent..end]).await.unwrap();
        sent = end;
        if sent % 60_000 == 0 {
            world.cut();
        }
        let mut piece = vec![0; 7_000];
        let n = stream.read(&mut piece).await.unwrap();
        got.extend_from_slice(&piece[..n]);
    }
    assert!(got == data);
    assert!(world.dialled.load(Ordering::SeqCst) > 3);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_works_moves_now_and_then() {
    let world = World::default();
    let mut stream = connect(world.clone()).await.unwrap();
    for round in 2..5 {
        while world.dialled.load(Ordering::SeqCst) < round {
            sleep(Duration::from_secs(10)).await;
        }
        stream.write_all(b"still here").await.unwrap();
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"still here");
    }
    // One that cannot be had does no harm.
    world.unreachable.store(true, Ordering::SeqCst);
    sleep(3 * RENEWAL).await;
    stream.write_all(b"?").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'?');
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_up_after_a_minute_or_at_once_when_it_is_refused() {
    for refused in [true, false] {
        let world = World::default();
        let mut stream = connect(world.clone()).await.unwrap();
        let switch = if refused { &world.refuses } else { &world.unreachable };
        switch.store(true, Ordering::SeqCst);
        let begin = Instant::now();
        world.cut();
        let error = stream.read_u8().await.unwrap_err();
        let took = begin.elapsed();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        match refused {
            true => assert!(took < Duration::from_secs(1) && error.to_string().contains("has expired"), "{error}"),
            false => assert!(took > Duration::from_secs(40) && error.to_string().contains("60 s"), "{took:?} {error}"),
        }
        assert!(stream.write_all(b"x").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_to_the_server() {
    let world = World::default();
    let mut stream = connect(world.clone()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let closed = stream.closed().unwrap();
    drop(stream);
    timeout(Duration::from_secs(1), closed.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_knows_nothing_of_this_is_spoken_to_as_ever() {
    let mut stream = connect(World { plain: true, ..World::default() }).await.unwrap();
    assert!(matches!(stream, Stream::Plain(_)) && stream.closed().is_none());
    stream.write_all(b"SSH-2.0-Client\n").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "SSH-2.0-Plain\r\nhellobye");
}
