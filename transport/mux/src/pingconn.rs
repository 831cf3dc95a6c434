//! Framing with pings: inside TLS, every write is a big-endian `u32` length and as many bytes; length 0 is a ping,
//! which readers drop.
//!
//! Balancers in front of a proxy cut connections they find idle. The server therefore pings every 30 s; a client
//! never needs to. Used when a name with the suffix `-ping` was negotiated ([`alpn::is_ping`](crate::alpn::is_ping)).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::framed::{Framed, Framing, Head, Replies, Step, framed_stream};

/// Time between the pings of a server.
pub const PING_EVERY: Duration = Duration::from_secs(30);

/// A stream inside the framing.
#[derive(Debug)]
pub struct PingStream<S>(Framed<S, LengthPrefix>);

impl<S> PingStream<S> {
    /// The server's side: pings every [`PING_EVERY`] for as long as the stream is read.
    pub fn server(stream: S) -> Self {
        Self(Framed::new(stream, LengthPrefix, Some(PING_EVERY)))
    }

    /// The client's side: sends no pings.
    pub fn client(stream: S) -> Self {
        Self(Framed::new(stream, LengthPrefix, None))
    }

    /// The stream below; reading from it breaks the framing.
    pub fn get_ref(&self) -> &S {
        self.0.get_ref()
    }
}

#[derive(Debug)]
struct LengthPrefix;

impl Framing for LengthPrefix {
    fn decode(&mut self, input: &mut BytesMut, _: &mut Replies<'_>) -> io::Result<Step> {
        if input.len() < 4 {
            return Ok(Step::More);
        }
        Ok(Step::Data { length: input.get_u32().into(), mask: [0; 4] })
    }

    fn head(&self, length: usize) -> Head {
        // The engine's frames are far below 4 GiB.
        Head::new(&[&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()])
    }

    fn ping(&self, out: &mut BytesMut) {
        out.extend_from_slice(&[0; 4]);
    }

    fn close(&self, _: &mut BytesMut) {}

    fn close_ends_transport(&self) -> bool {
        true
    }
}

framed_stream!(PingStream);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn writes_are_framed_and_pings_are_dropped() {
        let (near, mut far) = duplex(1 << 10);
        let mut stream = PingStream::client(near);
        stream.write_all(b"question").await.unwrap();
        assert_eq!(stream.write(b"").await.unwrap(), 0, "an empty write sends nothing");
        let mut sent = [0; 12];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"\0\0\0\x08question");

        far.write_all(b"\0\0\0\0\0\0\0\x03ans\0\0\0\0\0\0\0\x03wer").await.unwrap();
        drop(far);
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }

    #[tokio::test]
    async fn large_data_passes_through_a_narrow_transport() {
        let (near, far) = duplex(100);
        let (mut server, mut client) = (PingStream::server(near), PingStream::client(far));
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == data);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_reads_pings_every_thirty_seconds() {
        let (near, mut far) = duplex(1 << 10);
        let reader = tokio::spawn(async move { PingStream::server(near).read_u8().await });
        let started = Instant::now();
        for nth in 1..=3 {
            assert_eq!(far.read_u32().await.unwrap(), 0);
            assert_eq!(started.elapsed().as_secs(), nth * 30);
        }
        drop(far);
        assert!(reader.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_does_not_lose_a_writer_that_waits_in_another_task() {
        let (near, mut far) = duplex(8);
        let (mut reading, mut writing) = tokio::io::split(PingStream::server(near));
        let reader = tokio::spawn(async move { reading.read_u8().await });
        let writer = tokio::spawn(async move {
            writing.write_all(&[7; 400]).await.unwrap();
            writing.flush().await.unwrap();
            writing
        });
        tokio::time::advance(PING_EVERY * 3).await;
        let mut payload = 0;
        while payload < 400 {
            let length = far.read_u32().await.unwrap();
            for _ in 0..length {
                assert_eq!(far.read_u8().await.unwrap(), 7);
            }
            payload += length;
        }
        writer.await.unwrap();
        reader.abort();
    }

    #[tokio::test]
    async fn a_stream_cut_off_inside_a_frame_is_an_error() {
        for cut in [&b"\0\0"[..], b"\0\0\0\x08hal"] {
            let (near, mut far) = duplex(64);
            far.write_all(cut).await.unwrap();
            drop(far);
            let mut rest = Vec::new();
            let outcome = PingStream::client(near).read_to_end(&mut rest).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
