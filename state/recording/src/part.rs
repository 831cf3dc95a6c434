//! Makes parts.

use audit::{EventExt, json};
use prost::Message;
use wire::events::OneOf;

use crate::{
    Error, Result, Seal, compress,
    format::{HEADER_BYTES, MAX_MESSAGE_BYTES, PartHeader, PartKind},
};

/// Collects events and turns them into parts. It holds the events' plain bytes only; compressing happens at once when
/// a part is taken.
#[derive(Default)]
pub struct PartWriter {
    records: Vec<u8>,
    last_index: Option<i64>,
    seal: Option<Seal>,
}

impl PartWriter {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer of parts that are sealed while the keys say so.
    pub fn sealed(seal: Seal) -> Self {
        Self { seal: Some(seal), ..Self::default() }
    }

    /// Adds an event. One that is too large has its long texts cut.
    ///
    /// # Errors
    ///
    /// [`Error::Event`] for an empty event, and for one that cannot be cut to [`MAX_MESSAGE_BYTES`].
    pub fn push(&mut self, event: &OneOf) -> Result<()> {
        if event.event.is_none() {
            return Err(audit::Error::Invalid("event without content".into()).into());
        }
        let length = event.encoded_len();
        if length > MAX_MESSAGE_BYTES {
            let short = json::trim(event, MAX_MESSAGE_BYTES, Message::encoded_len)?;
            return self.push(&short);
        }
        let prefix = u32::try_from(length).unwrap_or(u32::MAX);
        self.records.reserve(length + 4);
        self.records.extend_from_slice(&prefix.to_be_bytes());
        // Encoding into a vector cannot run out of room.
        event.encode(&mut self.records).map_err(|e| audit::Error::Invalid(e.to_string()))?;
        self.last_index = self.last_index.max(Some(event.index()));
        Ok(())
    }

    /// Bytes collected, before compression.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was collected since the last part.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The highest index among the events collected since the last part.
    pub fn last_index(&self) -> Option<i64> {
        self.last_index
    }

    /// The events collected as one part, padded to at least `least` bytes (0 for no padding). The writer is empty
    /// afterwards; without events the answer is an empty vector.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] should the compressor fail.
    pub fn take(&mut self, least: usize) -> Result<Vec<u8>> {
        let records = std::mem::take(&mut self.records);
        self.last_index = None;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut part = vec![0; HEADER_BYTES];
        compress::gzip(&records, &mut part).map_err(Error::storage("compress", "recording".as_ref()))?;
        let plain = part.len() - HEADER_BYTES;
        let sealed = self.seal.as_ref().and_then(|seal| Some((seal, seal.length(plain)?)));
        let body = sealed.map_or(plain, |(_, length)| length);
        let padding = least.saturating_sub(HEADER_BYTES + body);
        let kind = if sealed.is_some() { PartKind::Sealed } else { PartKind::Plain };
        let header = PartHeader { kind, body: body as u64, padding: padding as u64 }.to_bytes();
        if let Some((seal, _)) = sealed {
            let body = seal.seal(&header, &part[HEADER_BYTES..])?;
            part.truncate(HEADER_BYTES);
            part.extend_from_slice(&body);
        }
        part[..HEADER_BYTES].copy_from_slice(&header);
        part.resize(part.len() + padding, 0);
        Ok(part)
    }
}
