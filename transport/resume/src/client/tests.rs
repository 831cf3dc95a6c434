#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::{Incoming, Resumable};
use crate::stream::SILENCE;

/// A node whose SSH says how many bytes it got so far, and the network before it.
#[derive(Clone, Default)]
struct World {
    node: Arc<Mutex<Resumable>>,
    /// The node knows nothing of resumption.
    plain: bool,
    dialled: Arc<AtomicUsize>,
    /// Cuts the network connections there are.
    cut: Arc<Mutex<CancellationToken>>,
    /// Nothing gets through the network any more while this is set, and nobody is told.
    stands_still: watch::Sender<bool>,
    /// How many network connections such a standstill concerns: the first ones.
    concerned: Arc<AtomicUsize>,
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
        let (number, concerned) = (self.dialled.load(Ordering::SeqCst), self.concerned.clone());
        let mut still = self.stands_still.subscribe();
        tokio::spawn(async move {
            let concerns = move || number <= concerned.load(Ordering::SeqCst);
            let carrying = async {
                let mut copying = pin!(copy_bidirectional(&mut near, &mut far));
                loop {
                    tokio::select! {
                        _ = still.wait_for(|still| *still && concerns()) => {}
                        _ = &mut copying => return,
                    }
                    let _ = still.wait_for(|still| !still).await;
                }
            };
            tokio::select! {
                () = cut.cancelled() => {}
                () = carrying => {}
            }
        });
        let (node, plain) = (self.node.lock().clone(), self.plain);
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

/// Says something, and waits until it comes back.
async fn echo(stream: &mut Stream<DuplexStream>, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, text);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_network_forgot_goes_on_over_another_within_seconds() {
    let world = World::default();
    let mut stream = connect(world.clone()).await.unwrap();
    echo(&mut stream, b"hello").await;
    for dialled in 1..4 {
        world.concerned.store(dialled, Ordering::SeqCst);
        world.stands_still.send_replace(true);
        let begin = Instant::now();
        echo(&mut stream, b"is there anybody?").await;
        let took = begin.elapsed();
        assert!((SILENCE..SILENCE + Duration::from_secs(1)).contains(&took), "took {took:?}");
        assert_eq!(world.dialled.load(Ordering::SeqCst), dialled + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_back_to_life_is_kept_however_long_that_takes_while_no_other_is_to_be_had() {
    let world = World::default();
    let mut stream = connect(world.clone()).await.unwrap();
    echo(&mut stream, b"hello").await;
    world.concerned.store(1, Ordering::SeqCst);
    world.stands_still.send_replace(true);
    world.unreachable.store(true, Ordering::SeqCst);
    stream.write_all(b"is there anybody?").await.unwrap();
    sleep(5 * LOST).await;
    let tried = world.dialled.load(Ordering::SeqCst);
    assert!((20..100).contains(&tried), "{tried} attempts");
    world.stands_still.send_replace(false);
    let mut heard = [0; 17];
    stream.read_exact(&mut heard).await.unwrap();
    // Nobody doubts it any more.
    sleep(Duration::from_secs(30)).await;
    let tried = world.dialled.load(Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert!(world.dialled.load(Ordering::SeqCst) <= tried + 1);
}

#[tokio::test(start_paused = true)]
async fn a_user_hears_soon_that_the_host_has_forgotten_the_session_as_well() {
    let world = World::default();
    let mut stream = connect(world.clone()).await.unwrap();
    echo(&mut stream, b"hello").await;
    world.concerned.store(1, Ordering::SeqCst);
    world.stands_still.send_replace(true);
    *world.node.lock() = Resumable::default();
    let begin = Instant::now();
    stream.write_all(b"is there anybody?").await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("has ended the session"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_doubts_a_peer_that_is_slow_or_a_reader_that_rests() {
    let world = World::default();
    let stream = connect(world.clone()).await.unwrap();
    // More than fits on the way there and back: it stops until somebody reads.
    let data = vec![7; 1 << 20];
    let (mut reading, mut writing) = tokio::io::split(stream);
    let sending = async {
        writing.write_all(&data).await.unwrap();
    };
    let resting = async {
        sleep(Duration::from_secs(60)).await;
        let mut got = vec![0; data.len()];
        reading.read_exact(&mut got).await.unwrap();
    };
    tokio::join!(sending, resting);
    assert_eq!(world.dialled.load(Ordering::SeqCst), 1);
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
