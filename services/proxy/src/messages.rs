//! Messages of gRPC calls that carry whole sessions, as they lie in the bodies of HTTP.
//!
//! The general machinery copies every message once on its way in and once on its way out. Here what a frame carries stays in
//! the memory that it came in.
//!
//! Format: a byte that is 1 for a compressed message, the length in four bytes, and the message
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Length-Prefixed-Message").

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;

/// Bytes before a message.
const PREFIX: usize = 5;
/// The largest message that is taken; clients send a few dozen KiB at once.
const LARGEST: usize = 4 << 20;
/// Number of the field of a `Frame` that is what it carries.
const PAYLOAD: u32 = 1;

/// The messages of a request. One that comes in one piece is read where it lies.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Body,
    /// What came last and is not read yet.
    piece: Bytes,
    /// The beginning of a message that came in several pieces.
    begun: BytesMut,
}

impl Messages {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, piece: Bytes::new(), begun: BytesMut::new() }
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// When there is something else, or the connection is lost.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.read()? {
                let read = M::decode(message);
                return read.map(Some).map_err(|error| Status::internal(format!("a message of the call: {error}")));
            }
            let Some(frame) = self.body.frame().await else {
                let is_whole = self.begun.is_empty();
                return if is_whole { Ok(None) } else { Err(Status::internal("the call ended within a message")) };
            };
            let frame = frame.map_err(|error| Status::cancelled(format!("the client has gone: {error}")))?;
            // Trailers of a request say nothing.
            self.piece = frame.into_data().unwrap_or_default();
        }
    }

    /// The next message of what is there.
    fn read(&mut self) -> Result<Option<Bytes>, Status> {
        if self.begun.is_empty()
            && let Some(length) = length(&self.piece)?
            && self.piece.len() - PREFIX >= length
        {
            self.piece.advance(PREFIX);
            return Ok(Some(self.piece.split_to(length)));
        }
        // A message in several pieces is put together, and nothing of the one after it.
        while self.piece.has_remaining() {
            let whole = length(&self.begun)?.map_or(PREFIX, |length| PREFIX + length);
            self.begun.reserve(whole - self.begun.len());
            let missing = (whole - self.begun.len()).min(self.piece.len());
            self.begun.put(self.piece.split_to(missing));
            if length(&self.begun)?.is_some_and(|length| self.begun.len() == PREFIX + length) {
                let mut message = self.begun.split().freeze();
                message.advance(PREFIX);
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

/// The length of the message that begins here, once its prefix is there.
fn length(mut data: &[u8]) -> Result<Option<usize>, Status> {
    if data.len() < PREFIX {
        return Ok(None);
    }
    if data.get_u8() != 0 {
        return Err(Status::unimplemented("compressed messages are not taken here"));
    }
    match usize::try_from(data.get_u32()) {
        Ok(length) if length <= LARGEST => Ok(Some(length)),
        _ => Err(Status::resource_exhausted(format!("a message of a call is larger than {LARGEST} bytes"))),
    }
}

/// A whole message with its prefix.
pub(crate) fn whole(message: &impl Message) -> Bytes {
    let mut data = BytesMut::with_capacity(PREFIX + message.encoded_len());
    prefix(message.encoded_len(), &mut data);
    data.put(message.encode_to_vec().as_slice());
    data.freeze()
}

/// Everything before the payload of a message that is a frame, which is the field with this number.
pub(crate) fn before_payload(field: u32, payload: usize) -> Bytes {
    let varint = |length: usize| encoded_len_varint(length as u64);
    let frame = key_len(PAYLOAD) + varint(payload) + payload;
    let mut data = BytesMut::with_capacity(32);
    prefix(key_len(field) + varint(frame) + frame, &mut data);
    encode_key(field, WireType::LengthDelimited, &mut data);
    encode_varint(frame as u64, &mut data);
    encode_key(PAYLOAD, WireType::LengthDelimited, &mut data);
    encode_varint(payload as u64, &mut data);
    data.freeze()
}

fn prefix(length: usize, data: &mut BytesMut) {
    data.put_u8(0);
    // No message is nearly as long as this can say.
    data.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// The end of an answer.
pub(crate) fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A text that does not fit a header; the code does.
        let _ = Status::new(status.code(), "").add_header(&mut trailers);
    }
    Frame::trailers(trailers)
}

/// An answer whose messages are in `body`.
pub(crate) fn answer(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::stream;
    use tonic::Code;
    use wire::transport::{ProxySshResponse, proxy_ssh_response};

    use super::*;

    fn message(payload: Bytes) -> ProxySshResponse {
        let frame = proxy_ssh_response::Frame::Ssh(wire::transport::Frame { payload });
        ProxySshResponse { details: None, frame: Some(frame) }
    }

    fn body(data: &[u8], pieces: usize) -> Body {
        let pieces: Vec<_> = data.chunks(pieces).map(Bytes::copy_from_slice).map(Ok::<_, axum::Error>).collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let sent: Vec<_> = [0, 1, 5, 200, 40_000].map(|length| message(vec![7; length].into())).into();
        let data: Vec<u8> = sent.iter().flat_map(|message| whole(message).to_vec()).collect();
        for pieces in [1, 2, 4, 5, 6, 7, 64, 4_096, 40_050, data.len()] {
            let mut messages = Messages::new(body(&data, pieces));
            for expected in &sent {
                assert_eq!(messages.next::<ProxySshResponse>().await.unwrap().as_ref(), Some(expected), "{pieces}");
            }
            assert_eq!(messages.next::<ProxySshResponse>().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let refused = async |data: &[u8]| Messages::new(body(data, 3)).next::<ProxySshResponse>().await.unwrap_err();
        assert_eq!(refused(&[1, 0, 0, 0, 0]).await.code(), Code::Unimplemented);
        assert_eq!(refused(&[0, 255, 255, 255, 255]).await.code(), Code::ResourceExhausted);
        assert_eq!(refused(&[0, 0, 0, 0, 2, 8]).await.code(), Code::Internal);
        assert_eq!(refused(&[0, 0, 0]).await.code(), Code::Internal);
        assert_eq!(refused(&[0, 0, 0, 0, 1, 0xff]).await.code(), Code::Internal);
    }

    #[test]
    fn a_payload_is_sent_as_it_would_be_encoded() {
        for length in [1, 127, 128, 16_383, 65_536] {
            let payload = Bytes::from(vec![3; length]);
            let sent = [before_payload(crate::transport::SSH_FRAME, length), payload.clone()].concat();
            assert_eq!(sent, whole(&message(payload)));
        }
    }
}
