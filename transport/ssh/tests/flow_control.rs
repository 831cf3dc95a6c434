//! Channels of one connection do not hold up each other, and both directions go on at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{CUSTOM, connect, key, server_config, soon};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::server::Auth;
use russh::{Channel, ChannelId, ChannelMsg, Disconnect, Error, client, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const WINDOW: u32 = 256 * 1024;

struct Near;

impl client::Handler for Near {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }
}

struct Far {
    opened: mpsc::UnboundedSender<Channel<server::Msg>>,
    /// Set: channels are kept waiting, and their handles given to the test.
    waiting: Option<mpsc::UnboundedSender<server::ChannelOpenHandle>>,
    closed: mpsc::UnboundedSender<ChannelId>,
}

impl server::Handler for Far {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_extension(
        &mut self,
        channel: Channel<server::Msg>,
        _: &str,
        _: &[u8],
        reply: server::ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Error> {
        match &self.waiting {
            Some(waiting) => {
                let _ = waiting.send(reply);
            }
            None => reply.accept().await,
        }
        let _ = self.opened.send(channel);
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut server::Session) -> Result<(), Error> {
        let _ = self.closed.send(channel);
        Ok(())
    }
}

struct Pair {
    near: client::Handle<Near>,
    far: server::Handle,
    opened: mpsc::UnboundedReceiver<Channel<server::Msg>>,
    closed: mpsc::UnboundedReceiver<ChannelId>,
}

async fn pair(waiting: Option<mpsc::UnboundedSender<server::ChannelOpenHandle>>) -> Pair {
    let (opened_sender, opened) = mpsc::unbounded_channel();
    let (closed_sender, closed) = mpsc::unbounded_channel();
    let mut config = server_config(key(Algorithm::Ed25519));
    config.window_size = WINDOW;
    let near_config = client::Config { window_size: WINDOW, ..client::Config::default() };
    let handler = Far { opened: opened_sender, waiting, closed: closed_sender };
    let (mut near, far) = soon(connect(near_config, Near, config, handler)).await.unwrap();
    assert!(soon(near.authenticate_none("user")).await.unwrap().success());
    Pair { near, far, opened, closed }
}

async fn channel(pair: &mut Pair) -> (Channel<client::Msg>, Channel<server::Msg>) {
    let ours = soon(pair.near.channel_open_extension(CUSTOM, Vec::new())).await.unwrap();
    (ours, soon(pair.opened.recv()).await.unwrap())
}

#[tokio::test]
async fn a_channel_that_nobody_reads_does_not_hold_up_the_others() {
    let mut pair = pair(None).await;
    let (stuck, _unread) = channel(&mut pair).await;
    let (lively, reader) = channel(&mut pair).await;
    // Small pieces: as many messages as possible for the window.
    let stuffing = tokio::spawn(async move {
        let mut stuck = stuck.into_stream();
        while stuck.write_all(&[0; 100]).await.is_ok() {}
    });
    let (mut lively, mut reader) = (lively.into_stream(), reader.into_stream());
    for round in 0..200_u32 {
        soon(lively.write_all(&round.to_be_bytes())).await.unwrap();
        assert_eq!(soon(reader.read_u32()).await.unwrap(), round);
        soon(reader.write_all(&round.to_be_bytes())).await.unwrap();
        assert_eq!(soon(lively.read_u32()).await.unwrap(), round);
    }
    assert!(!stuffing.is_finished());
    stuffing.abort();
}

#[tokio::test]
async fn both_directions_can_be_busy_at_once() {
    const AMOUNT: usize = 8 << 20;
    let mut pair = pair(None).await;
    let (ours, theirs) = channel(&mut pair).await;
    let mut tasks = tokio::task::JoinSet::new();
    let (mut our_reader, mut our_writer) = tokio::io::split(ours.into_stream());
    let (mut their_reader, mut their_writer) = tokio::io::split(theirs.into_stream());
    tasks.spawn(async move {
        our_writer.write_all(&vec![1; AMOUNT]).await.unwrap();
        our_writer.shutdown().await.unwrap();
    });
    tasks.spawn(async move {
        their_writer.write_all(&vec![2; AMOUNT]).await.unwrap();
        their_writer.shutdown().await.unwrap();
    });
    let (mut from_near, mut from_far) = (Vec::new(), Vec::new());
    let reading =
        async { tokio::join!(their_reader.read_to_end(&mut from_near), our_reader.read_to_end(&mut from_far)) };
    let (near, far) = soon(reading).await;
    assert_eq!((near.unwrap(), far.unwrap()), (AMOUNT, AMOUNT));
    assert!(from_near.iter().all(|byte| *byte == 1) && from_far.iter().all(|byte| *byte == 2));
    while let Some(done) = soon(tasks.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_channel_carries_more_than_its_window() {
    let mut pair = pair(None).await;
    let (ours, mut theirs) = channel(&mut pair).await;
    let amount = WINDOW as usize * 3;
    let writing = tokio::spawn(async move {
        let mut ours = ours.into_stream();
        ours.write_all(&vec![7; amount]).await.unwrap();
        ours.shutdown().await.unwrap();
    });
    let mut received = 0;
    loop {
        match soon(theirs.wait()).await {
            Some(ChannelMsg::Data { data }) => received += data.len(),
            Some(ChannelMsg::Eof) => break,
            Some(_) => {}
            None => panic!("the channel ended early"),
        }
    }
    assert_eq!(received, amount);
    soon(writing).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_waits_hears_when_its_channel_is_closed() {
    let mut pair = pair(None).await;
    let (ours, theirs) = channel(&mut pair).await;
    let writing = tokio::spawn(async move {
        let mut ours = ours.into_stream();
        ours.write_all(&vec![0; WINDOW as usize * 4]).await
    });
    theirs.close().await.unwrap();
    assert!(soon(writing).await.unwrap().is_err());
    assert!(!pair.far.is_closed());
}

#[tokio::test]
async fn a_writer_that_waits_hears_when_its_connection_ends() {
    let mut pair = pair(None).await;
    let (ours, _theirs) = channel(&mut pair).await;
    let writing = tokio::spawn(async move {
        let mut ours = ours.into_stream();
        ours.write_all(&vec![0; WINDOW as usize * 4]).await
    });
    pair.far.disconnect(Disconnect::ByApplication, String::new(), String::new()).await.unwrap();
    assert!(soon(writing).await.unwrap().is_err());
}

#[tokio::test]
async fn a_channel_is_closed_if_whoever_wanted_it_is_gone_when_it_opens() {
    let (sender, mut waiting) = mpsc::unbounded_channel();
    let mut pair = pair(Some(sender)).await;
    let opening = pair.near.channel_open_extension(CUSTOM, Vec::new());
    let reply = {
        tokio::pin!(opening);
        tokio::select! {
            _ = &mut opening => panic!("nobody accepted the channel yet"),
            reply = soon(waiting.recv()) => reply.unwrap(),
        }
    };
    reply.accept().await;
    let channel = soon(pair.opened.recv()).await.unwrap();
    assert_eq!(soon(pair.closed.recv()).await, Some(channel.id()));
}
