//! The MongoDB wire protocol: the reply to a first message.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{MOST_READ, first_bytes};

const HEADER: usize = 16;
const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
/// `CommandNotSupported`.
const NOT_SUPPORTED: i32 = 115;

/// Reads the first message and makes the reply, in the form in which it was asked.
pub(super) async fn refusal<S>(stream: &mut S, message: &str) -> Option<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let header = first_bytes(stream, HEADER).await?;
    let field = |at: usize| Some(i32::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let (length, request, operation) = (usize::try_from(field(0)?).ok()?, field(4)?, field(12)?);
    first_bytes(stream, length.checked_sub(HEADER).filter(|rest| *rest <= MOST_READ)?).await?;
    let document = failure(message);
    let (operation, before): (i32, Vec<u8>) = match operation {
        // Flags, then one section of kind 0.
        OP_MSG => (OP_MSG, vec![0; 5]),
        // Flags, cursor, start, and one document.
        OP_QUERY => (OP_REPLY, [&[0; 16][..], &1i32.to_le_bytes()].concat()),
        _ => return None,
    };
    let length = i32::try_from(HEADER + before.len() + document.len()).ok()?;
    let head = [length, 1, request, operation].map(i32::to_le_bytes).concat();
    Some([head, before, document].concat())
}

/// The BSON document `{ok: 0.0, errmsg: …, code: 115, codeName: "CommandNotSupported"}`.
fn failure(message: &str) -> Vec<u8> {
    let mut elements = Vec::new();
    element(&mut elements, 0x01, "ok", &0f64.to_le_bytes());
    element(&mut elements, 0x02, "errmsg", &text(message));
    element(&mut elements, 0x10, "code", &NOT_SUPPORTED.to_le_bytes());
    element(&mut elements, 0x02, "codeName", &text("CommandNotSupported"));
    let length = i32::try_from(elements.len() + 5).unwrap_or_default();
    [&length.to_le_bytes()[..], &elements, &[0]].concat()
}

fn element(document: &mut Vec<u8>, kind: u8, name: &str, value: &[u8]) {
    document.push(kind);
    document.extend(name.as_bytes());
    document.push(0);
    document.extend(value);
}

fn text(value: &str) -> Vec<u8> {
    let length = i32::try_from(value.len() + 1).unwrap_or_default();
    [&length.to_le_bytes()[..], value.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_message_is_answered_with_a_failure_to_that_message() {
        let (mut near, mut far) = duplex(1024);
        let body = [0u8; 10];
        let header = [26, 7, 0, OP_MSG].map(i32::to_le_bytes).concat();
        far.write_all(&[&header[..], &body].concat()).await.unwrap();
        let reply = refusal(&mut near, "not here").await.unwrap();
        assert_eq!(i32::from_le_bytes(*reply.first_chunk().unwrap()) as usize, reply.len());
        assert_eq!(i32::from_le_bytes(*reply[8..].first_chunk().unwrap()), 7);
        assert!(reply.windows(8).any(|w| w == b"not here"));
    }
}
