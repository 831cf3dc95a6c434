//! Channels, channel requests and global requests of any name, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{CUSTOM, connect, key, server_config, soon};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::server::Auth;
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, Disconnect, Error, GlobalRequestReply, client, server,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// What a side was asked to do with a channel it did not open.
enum Opened<M: From<(ChannelId, ChannelMsg)>> {
    Accepted(Channel<M>, String, Vec<u8>),
}

struct Near {
    opened: mpsc::UnboundedSender<Opened<client::Msg>>,
}

struct Far {
    opened: mpsc::UnboundedSender<Opened<server::Msg>>,
}

fn global_reply(name: &str, data: &[u8]) -> GlobalRequestReply {
    match name {
        CUSTOM => GlobalRequestReply::Success([b"echo ", data].concat()),
        "keepalive@openssh.com" => GlobalRequestReply::Success(Vec::new()),
        _ => GlobalRequestReply::Failure,
    }
}

impl client::Handler for Near {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }

    async fn server_channel_open_extension(
        &mut self,
        channel: Channel<client::Msg>,
        typ: &str,
        data: &[u8],
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Error> {
        if typ == CUSTOM {
            reply.accept().await;
            let _ = self.opened.send(Opened::Accepted(channel, typ.to_owned(), data.to_vec()));
        } else {
            reply.reject_with(ChannelOpenFailure::ConnectFailed, "no such thing here").await;
        }
        Ok(())
    }

    async fn channel_request(
        &mut self,
        _: ChannelId,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut client::Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn global_request(
        &mut self,
        name: &str,
        _: bool,
        data: &[u8],
        _: &mut client::Session,
    ) -> Result<GlobalRequestReply, Error> {
        Ok(global_reply(name, data))
    }
}

impl server::Handler for Far {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Error> {
        reply.accept().await;
        let _ = self.opened.send(Opened::Accepted(channel, "session".to_owned(), Vec::new()));
        Ok(())
    }

    async fn channel_open_extension(
        &mut self,
        channel: Channel<server::Msg>,
        typ: &str,
        data: &[u8],
        reply: server::ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Error> {
        if typ == CUSTOM {
            reply.accept().await;
            let _ = self.opened.send(Opened::Accepted(channel, typ.to_owned(), data.to_vec()));
        } else {
            reply.reject_with(ChannelOpenFailure::ConnectFailed, "no such thing here").await;
        }
        Ok(())
    }

    async fn channel_request(
        &mut self,
        _: ChannelId,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut server::Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn global_request(
        &mut self,
        name: &str,
        _: bool,
        data: &[u8],
        _: &mut server::Session,
    ) -> Result<GlobalRequestReply, Error> {
        Ok(global_reply(name, data))
    }
}

struct Pair {
    near: client::Handle<Near>,
    far: server::Handle,
    opened_near: mpsc::UnboundedReceiver<Opened<client::Msg>>,
    opened_far: mpsc::UnboundedReceiver<Opened<server::Msg>>,
}

async fn pair() -> Pair {
    let (near_sender, opened_near) = mpsc::unbounded_channel();
    let (far_sender, opened_far) = mpsc::unbounded_channel();
    let (mut near, far) = soon(connect(
        client::Config::default(),
        Near { opened: near_sender },
        server_config(key(Algorithm::Ed25519)),
        Far { opened: far_sender },
    ))
    .await
    .unwrap();
    assert!(soon(near.authenticate_none("user")).await.unwrap().success());
    Pair { near, far, opened_near, opened_far }
}

/// A channel in both directions, opened by the client.
async fn channel(pair: &mut Pair) -> (Channel<client::Msg>, Channel<server::Msg>) {
    let ours = soon(pair.near.channel_open_extension(CUSTOM, *b"extra")).await.unwrap();
    let Opened::Accepted(theirs, typ, data) = soon(pair.opened_far.recv()).await.unwrap();
    assert_eq!((typ.as_str(), data.as_slice()), (CUSTOM, b"extra".as_slice()));
    (ours, theirs)
}

#[tokio::test]
async fn a_client_opens_a_channel_of_any_type_with_data() {
    let mut pair = pair().await;
    let (ours, theirs) = channel(&mut pair).await;
    let (mut ours, mut theirs) = (ours.into_stream(), theirs.into_stream());
    soon(ours.write_all(b"hello")).await.unwrap();
    let mut buffer = [0; 5];
    soon(theirs.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"hello");
}

#[tokio::test]
async fn a_server_opens_a_channel_of_any_type_with_data() {
    let mut pair = pair().await;
    let ours = soon(pair.far.channel_open_extension(CUSTOM, *b"data")).await.unwrap();
    let Opened::Accepted(theirs, typ, data) = soon(pair.opened_near.recv()).await.unwrap();
    assert_eq!((typ.as_str(), data.as_slice()), (CUSTOM, b"data".as_slice()));
    let (mut ours, mut theirs) = (ours.into_stream(), theirs.into_stream());
    soon(theirs.write_all(b"hello")).await.unwrap();
    let mut buffer = [0; 5];
    soon(ours.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"hello");
}

#[tokio::test]
async fn a_refused_channel_says_why_to_both_sides() {
    let pair = pair().await;
    for refused in [
        soon(pair.near.channel_open_extension("other", Vec::new())).await.unwrap_err(),
        soon(pair.far.channel_open_extension("other", Vec::new())).await.unwrap_err(),
    ] {
        let Error::ChannelOpenFailure(rejection) = refused else { panic!("unexpected error {refused}") };
        assert_eq!(rejection.reason, ChannelOpenFailure::ConnectFailed);
        assert_eq!(rejection.description, "no such thing here");
    }
    // The connection is as good as before.
    assert!(soon(pair.near.send_global_request(CUSTOM, b"", true)).await.is_ok());
}

#[tokio::test]
async fn a_channel_request_of_the_client_is_answered_by_the_server() {
    let mut pair = pair().await;
    let (mut ours, mut theirs) = channel(&mut pair).await;
    for wanted in [true, false] {
        ours.request("ask@example.com", true, b"payload".as_slice()).await.unwrap();
        let Some(ChannelMsg::Request { name, want_reply, data }) = soon(theirs.wait()).await else { panic!() };
        assert_eq!((name.as_str(), want_reply, data.as_ref()), ("ask@example.com", true, b"payload".as_slice()));
        theirs.reply(wanted).await.unwrap();
        let answer = soon(ours.wait()).await.unwrap();
        assert!(matches!((wanted, answer), (true, ChannelMsg::Success) | (false, ChannelMsg::Failure)));
    }
}

#[tokio::test]
async fn a_channel_request_of_the_server_is_answered_by_the_client() {
    let mut pair = pair().await;
    let (mut ours, mut theirs) = channel(&mut pair).await;
    for wanted in [true, false] {
        theirs.request("ask@example.com", true, b"payload".as_slice()).await.unwrap();
        let Some(ChannelMsg::Request { name, want_reply, data }) = soon(ours.wait()).await else { panic!() };
        assert_eq!((name.as_str(), want_reply, data.as_ref()), ("ask@example.com", true, b"payload".as_slice()));
        ours.reply(wanted).await.unwrap();
        let answer = soon(theirs.wait()).await.unwrap();
        assert!(matches!((wanted, answer), (true, ChannelMsg::Success) | (false, ChannelMsg::Failure)));
    }
}

#[tokio::test]
async fn requests_sent_before_an_answer_are_answered_in_order() {
    let mut pair = pair().await;
    let (mut ours, theirs) = channel(&mut pair).await;
    for (name, want_reply) in [("one", true), ("two", false), ("three", true)] {
        ours.request(name, want_reply, Vec::new()).await.unwrap();
    }
    let mut theirs = theirs;
    for _ in 0..3 {
        assert!(matches!(soon(theirs.wait()).await, Some(ChannelMsg::Request { .. })));
    }
    theirs.reply(true).await.unwrap();
    theirs.reply(false).await.unwrap();
    // One more than was asked for: nothing is sent.
    theirs.reply(true).await.unwrap();
    theirs.eof().await.unwrap();
    assert!(matches!(soon(ours.wait()).await, Some(ChannelMsg::Success)));
    assert!(matches!(soon(ours.wait()).await, Some(ChannelMsg::Failure)));
    assert!(matches!(soon(ours.wait()).await, Some(ChannelMsg::Eof)));
}

#[tokio::test]
async fn a_server_announces_on_a_session_channel_and_sends_the_exit_status() {
    let mut pair = pair().await;
    let mut ours = soon(pair.near.channel_open_session()).await.unwrap();
    let Opened::Accepted(theirs, ..) = soon(pair.opened_far.recv()).await.unwrap();
    theirs.request("current-session-id@goteleport.com", false, b"id".as_slice()).await.unwrap();
    theirs.exit_status(3).await.unwrap();
    theirs.close().await.unwrap();
    assert!(matches!(soon(ours.wait()).await, Some(ChannelMsg::Request { want_reply: false, .. })));
    assert!(matches!(soon(ours.wait()).await, Some(ChannelMsg::ExitStatus { exit_status: 3 })));
    assert!(matches!(soon(ours.wait()).await, Some(ChannelMsg::Close)));
}

#[tokio::test]
async fn global_requests_carry_payloads_both_ways() {
    let pair = pair().await;
    let answer = soon(pair.near.send_global_request(CUSTOM, b"near", true)).await.unwrap().unwrap();
    assert_eq!(&answer[..], b"echo near");
    let answer = soon(pair.far.send_global_request(CUSTOM, b"far", true)).await.unwrap().unwrap();
    assert_eq!(&answer[..], b"echo far");
    assert!(soon(pair.far.send_global_request(CUSTOM, b"far", false)).await.unwrap().is_none());
}

#[tokio::test]
async fn an_unknown_global_request_fails_both_ways() {
    let pair = pair().await;
    let answer = soon(pair.near.send_global_request("other@example.com", b"", true)).await;
    assert!(matches!(answer, Err(Error::RequestDenied)));
    let answer = soon(pair.far.send_global_request("other@example.com", b"", true)).await;
    assert!(matches!(answer, Err(Error::RequestDenied)));
}

#[tokio::test]
async fn keepalives_are_answered_with_success_both_ways_even_with_a_payload() {
    let pair = pair().await;
    let keepalive = "keepalive@openssh.com";
    assert!(soon(pair.near.send_global_request(keepalive, b"", true)).await.unwrap().is_some());
    assert!(soon(pair.far.send_global_request(keepalive, &[0; 8], true)).await.unwrap().is_some());
}

#[tokio::test]
async fn requests_fail_when_the_connection_ends() {
    let pair = pair().await;
    pair.near.disconnect(Disconnect::ByApplication, "", "").await.unwrap();
    soon(pair.far.closed()).await;
    assert!(pair.far.is_closed());
    assert!(soon(pair.far.channel_open_extension(CUSTOM, Vec::new())).await.is_err());
}
