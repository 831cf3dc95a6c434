//! Copying between a channel and a socket.

use std::sync::Arc;

use bytes::BytesMut;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::connection::Connection;

/// One read of the socket: whole packets, as many as a connection writes at once.
const READ_SIZE: usize = 4 * tunnel::ssh::CHANNEL_PACKET as usize;

/// Copies both ways until both sides have ended, or the channel is closed.
pub(super) async fn run<S>(channel: Channel<Msg>, stream: S, connection: &Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut read, write) = channel.split();
    let (from, to) = tokio::io::split(stream);
    {
        let incoming = to_socket(&mut read, to, connection);
        let outgoing = to_channel(from, &write, connection);
        tokio::pin!(incoming, outgoing);
        tokio::select! {
            // A client that closed the channel, or a socket that takes nothing more, ends the other direction.
            () = &mut incoming => {}
            () = &mut outgoing => {
                tokio::select! {
                    () = &mut incoming => {}
                    () = connection.over() => {}
                }
            }
            () = connection.over() => {}
        }
    }
    let _ = write.close().await; // the client may have closed it
}

/// Returns when the client has closed the channel, or nothing more can pass: a client that sends no more may still read.
async fn to_socket<S>(read: &mut ChannelReadHalf, mut to: WriteHalf<S>, connection: &Connection)
where
    S: AsyncWrite + Unpin,
{
    loop {
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => {
                connection.activity.touch();
                if to.write_all(&data).await.is_err() {
                    return;
                }
            }
            Some(ChannelMsg::Eof) => {
                let _ = to.shutdown().await; // the other end may be gone, which reading shows
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
}

async fn to_channel<S>(mut from: ReadHalf<S>, write: &ChannelWriteHalf<Msg>, connection: &Connection)
where
    S: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => connection.activity.touch(),
        }
        if write.data_bytes(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
    let _ = write.eof().await; // the channel may be closed
}
