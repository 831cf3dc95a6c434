//! The bytes of a recording.
//!
//! A recording is a row of parts without any container around it; a reader takes parts of any size, and parts
//! written one after the other are one recording. Numbers are big-endian. A part is
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 8 | version of the format: 1, [`SEALED_VERSION`], or [`END_VERSION`] |
//! | 8 | length of the body |
//! | 8 | length of the padding |
//! | … | body: one gzip stream |
//! | … | padding: zeros, there because object stores refuse small parts |
//!
//! and a body, decompressed, is a row of records: a length in 4 bytes and an event (`events.OneOf`) of that length,
//! at least 1 and at most [`MAX_MESSAGE_BYTES`].

use prost::Message;
use wire::events::{Metadata, OneOf, Unknown, one_of::Event};

use crate::FormatError;

/// The version of plain parts.
pub const VERSION: u64 = 1;
/// The version of sealed parts (see [`crate::Seal`]), which no other product has: the bytes `tp-seal` and 1.
pub const SEALED_VERSION: u64 = u64::from_be_bytes(*b"tp-seal\x01");
/// The version of the part that ends a sealed recording: the bytes `tp-seal` and 2.
pub const END_VERSION: u64 = u64::from_be_bytes(*b"tp-seal\x02");
/// Length of what precedes a body.
pub const HEADER_BYTES: usize = 24;
/// The most bytes an event may have.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Object stores refuse parts smaller than this, except for the last one.
pub const MIN_OBJECT_PART_BYTES: usize = 5 * 1024 * 1024;

/// What the body of a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Compressed records.
    Plain,
    /// The same, sealed.
    Sealed,
    /// What says, sealed, that all parts before it belong together and none comes after.
    End,
}

/// What precedes the body of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// What the body is.
    pub kind: PartKind,
    /// Length of the body in bytes.
    pub body: u64,
    /// Length of the padding in bytes.
    pub padding: u64,
}

impl PartHeader {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let version = match self.kind {
            PartKind::Plain => VERSION,
            PartKind::Sealed => SEALED_VERSION,
            PartKind::End => END_VERSION,
        };
        bytes[..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.body.to_be_bytes());
        bytes[16..].copy_from_slice(&self.padding.to_be_bytes());
        bytes
    }

    /// Length of the whole part.
    pub fn length(self) -> u64 {
        (HEADER_BYTES as u64).saturating_add(self.body).saturating_add(self.padding)
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`FormatError::Version`].
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FormatError> {
        let number = |at: usize| bytes[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let kind = match number(0) {
            VERSION => PartKind::Plain,
            SEALED_VERSION => PartKind::Sealed,
            END_VERSION => PartKind::End,
            other => return Err(FormatError::Version(other)),
        };
        Ok(Self { kind, body: number(8), padding: number(16) })
    }
}

/// Reads the message of a record. An event this build has no message for becomes [`Unknown`], with the metadata that
/// all events share.
///
/// # Errors
///
/// A text that says what is wrong with the bytes.
pub fn decode_event(bytes: &[u8]) -> Result<OneOf, String> {
    let event = OneOf::decode(bytes).map_err(|e| format!("not an event: {e}"))?;
    if event.event.is_some() {
        return Ok(event);
    }
    let envelope = Envelope::of(bytes).ok_or("record without an event")?;
    let mut metadata = envelope.metadata.unwrap_or_default();
    let unknown_type = std::mem::replace(&mut metadata.r#type, "unknown".into());
    let unknown_code = std::mem::replace(&mut metadata.code, "TCC00E".into());
    let unknown = Unknown { metadata: Some(metadata), unknown_type, unknown_code, data: String::new() };
    Ok(OneOf { event: Some(Event::Unknown(unknown)) })
}

/// What all events have in common on the wire: metadata is their first field.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

impl Envelope {
    /// Reads the metadata of whatever event the bytes of a `OneOf` hold.
    fn of(mut bytes: &[u8]) -> Option<Self> {
        use prost::encoding::{WireType, decode_key, decode_varint};
        let (_, kind) = decode_key(&mut bytes).ok()?;
        let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        (kind == WireType::LengthDelimited).then_some(())?;
        Self::decode(bytes.get(..length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use audit::EventExt;

    use super::*;

    #[test]
    fn headers_are_big_endian() {
        let header = PartHeader { kind: PartKind::Plain, body: 0x0102, padding: 3 };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..8], [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[8..16], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(PartHeader::from_bytes(&bytes).unwrap(), header);
        let mut other = bytes;
        other[7] = 2;
        let refused = PartHeader::from_bytes(&other).unwrap_err();
        assert_eq!(refused.to_string(), "unsupported protocol version 2");
    }

    #[test]
    fn events_without_a_message_of_ours_keep_their_metadata() {
        let metadata =
            Metadata { index: 7, r#type: "of.tomorrow".into(), code: "TMRW00I".into(), ..Default::default() };
        let body = Envelope { metadata: Some(metadata) }.encode_to_vec();
        // Field 9000 of OneOf, length-delimited.
        let bytes = [&[0xc2, 0xb2, 0x04, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();
        let event = decode_event(&bytes).unwrap();
        let Some(Event::Unknown(unknown)) = &event.event else { panic!("{event:?}") };
        assert_eq!((unknown.unknown_type.as_str(), unknown.unknown_code.as_str()), ("of.tomorrow", "TMRW00I"));
        assert_eq!((event.index(), event.name()), (7, "unknown"));
        assert!(decode_event(&[0xa2, 0x02, 0x7f]).is_err());
        assert!(decode_event(&[0xff; 5]).is_err());
    }
}
