//! How an item is written in etcd: a version, the revision, the expiry, and the value as it is.

use bytes::Bytes;
use chrono::DateTime;
use uuid::Uuid;

use crate::{BackendError, Item, Key, NO_REVISION, Result};

/// The only form there is.
const VERSION: u8 = 1;
/// Version, revision and expiry.
const HEADER: usize = 1 + 16 + 8;
/// The expiry of an item without one.
const NEVER: i64 = i64::MAX;

/// The bytes of an item; its key stands elsewhere.
///
/// # Errors
/// `Storage` for a revision that is no UUID, and for an expiry beyond the year 2262.
pub(super) fn encode(item: &Item) -> Result<Vec<u8>> {
    let revision: Uuid =
        item.revision.parse().map_err(|_| BackendError::Storage(format!("revision {:?} is no UUID", item.revision)))?;
    let expires = match item.expires {
        None => NEVER,
        Some(expires) => expires
            .timestamp_nanos_opt()
            .ok_or_else(|| BackendError::Storage(format!("the expiry {expires} is out of range")))?,
    };
    let mut bytes = Vec::with_capacity(HEADER + item.value.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(revision.as_bytes());
    bytes.extend_from_slice(&expires.to_be_bytes());
    bytes.extend_from_slice(&item.value);
    Ok(bytes)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// `Storage` for anything else.
pub(super) fn decode(key: Key, bytes: &[u8]) -> Result<Item> {
    let foreign = || BackendError::Storage("the storage holds a value of another program below its prefix".to_owned());
    let (header, value) = bytes.split_at_checked(HEADER).ok_or_else(foreign)?;
    let (&[version], rest) = header.split_first_chunk::<1>().ok_or_else(foreign)?;
    let (revision, rest) = rest.split_first_chunk::<16>().ok_or_else(foreign)?;
    let expires = i64::from_be_bytes(rest.try_into().map_err(|_| foreign())?);
    if version != VERSION {
        return Err(foreign());
    }
    let revision = Uuid::from_bytes(*revision);
    let revision = if revision.is_nil() { NO_REVISION.to_owned() } else { revision.to_string() };
    let expires = (expires != NEVER).then(|| DateTime::from_timestamp_nanos(expires));
    Ok(Item { key, value: Bytes::copy_from_slice(value), expires, revision })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::Utc;

    use super::*;

    #[test]
    fn an_item_is_read_as_it_was_written_and_nothing_else_is() {
        let key = || Key::root("/things").child("a").unwrap();
        for expires in [None, Some(Utc::now())] {
            let item = Item::new(key(), "value").with_expires(expires).with_revision(Uuid::new_v4().to_string());
            let bytes = encode(&item).unwrap();
            assert_eq!(decode(key(), &bytes).unwrap(), item);
            for end in 0..HEADER {
                assert!(decode(key(), &bytes[..end]).is_err());
            }
        }
        assert!(decode(key(), b"{\"some\": \"json of another program\"}").is_err());
        assert!(encode(&Item::new(key(), "v").with_revision("x")).is_err());
    }
}
