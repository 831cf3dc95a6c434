//! Reading the head of an HTTP/1 answer from a stream that stops being HTTP after it.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head that is read.
const LARGEST: usize = 16 * 1024;
const MOST_HEADERS: usize = 100;

/// Status line and headers of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("closed the connection instead of answering")]
    Closed,
    #[error("answered with something that is not HTTP")]
    NotHttp,
    #[error("answered with a head of more than 16 KiB")]
    TooLarge,
    #[error("read the answer: {0}")]
    Io(#[from] io::Error),
}

impl Head {
    /// All values of a header.
    pub(crate) fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// `403 Forbidden`.
    pub(crate) fn status_text(&self) -> String {
        format!("{} {}", self.status, self.reason).trim_end().to_owned()
    }
}

/// Reads a head; also returns what came after it on the stream.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Head, Bytes), HeadError> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        if buffer.len() >= LARGEST {
            return Err(HeadError::TooLarge);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(if buffer.is_empty() { HeadError::Closed } else { HeadError::NotHttp });
        }
        if let Some((head, length)) = parse(&buffer)? {
            return Ok((head, buffer.split_off(length).freeze()));
        }
    }
}

/// The head at the start of `input` and its length; `None` while it is not complete.
fn parse(input: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(input).map_err(|_| HeadError::NotHttp)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let head = Head {
        status: response.code.ok_or(HeadError::NotHttp)?,
        reason: response.reason.unwrap_or_default().to_owned(),
        headers: response.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
    };
    Ok(Some((head, length)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn what_follows_the_head_is_handed_back() {
        let mut stream = &b"HTTP/1.1 200 Connection established\r\nVia: a\r\nvia: b\r\n\r\nSSH-2.0"[..];
        let (head, rest) = read(&mut stream).await.unwrap();
        assert_eq!((head.status_text().as_str(), &rest[..]), ("200 Connection established", &b"SSH-2.0"[..]));
        assert_eq!(head.values("VIA").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[tokio::test]
    async fn silence_garbage_and_endless_heads_are_told_apart() {
        assert!(matches!(read(&mut &b""[..]).await, Err(HeadError::Closed)));
        assert!(matches!(read(&mut &b"\x00\x01\x02"[..]).await, Err(HeadError::NotHttp)));
        assert!(matches!(read(&mut &b"HTTP/1.1 200"[..]).await, Err(HeadError::NotHttp)));
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'a'; 20_000]].concat();
        assert!(matches!(read(&mut &endless[..]).await, Err(HeadError::TooLarge)));
    }

    proptest! {
        #[test]
        fn strangers_bytes_never_panic(start in prop_oneof![Just(&b""[..]), Just(&b"HTTP/1.1 200 OK\r\n"[..])], bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[start, &bytes].concat());
        }
    }
}
