//! The PostgreSQL frontend/backend protocol, version 3, as far as it comes before the login.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{MOST_READ, first_bytes};

/// What a client asks for with its first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// TLS: answered with `S`, then the handshake begins.
    Tls,
    /// Encryption by GSSAPI, which is not offered: answered with `N`, then the client asks for something else.
    NoGss,
    /// To cancel a query of another connection; there are none.
    Close,
}

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
/// A client asks for GSSAPI, then for TLS, then begins; more rounds are nonsense.
const MOST_ROUNDS: usize = 3;

/// Reads the request that precedes TLS, and answers it.
pub(crate) async fn first_answer<S>(stream: &mut S) -> Option<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bytes = first_bytes(stream, 8).await?;
    let answer = match code(&bytes)? {
        SSL => Answer::Tls,
        GSS => Answer::NoGss,
        _ => Answer::Close,
    };
    let byte: &[u8] = match answer {
        Answer::Tls => b"S",
        Answer::NoGss => b"N",
        Answer::Close => return Some(answer),
    };
    stream.write_all(byte).await.ok()?;
    stream.flush().await.ok()?;
    Some(answer)
}

/// Reads a startup message and makes the answer. A client inside TLS that asks for TLS again is told that there is
/// none, whereupon it begins.
pub(super) async fn refusal<S>(stream: &mut S, message: &str) -> Option<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..MOST_ROUNDS {
        let head = first_bytes(stream, 8).await?;
        match code(&head)? {
            SSL | GSS => {
                stream.write_all(b"N").await.ok()?;
                stream.flush().await.ok()?;
            }
            CANCEL => return None,
            _ => {
                let length = usize::try_from(length(&head)?).ok()?;
                first_bytes(stream, length.checked_sub(8)?.min(MOST_READ)).await?;
                return Some(error(message));
            }
        }
    }
    None
}

/// An ErrorResponse: severity in both forms, the state `feature_not_supported`, the text.
fn error(message: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "0A000"), (b'M', message)] {
        fields.push(kind);
        fields.extend(value.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or_default();
    [&b"E"[..], &length.to_be_bytes(), &fields].concat()
}

fn length(head: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*head.first_chunk()?))
}

fn code(head: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*head.get(4..)?.first_chunk()?))
}
