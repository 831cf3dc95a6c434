//! Pages of lists.

use std::sync::Arc;

use prost::Message;
use wire::error::{Error, Result};

/// Items of a page when the request does not say.
pub const DEFAULT_LIMIT: usize = 1000;
/// Most items of one page.
pub const MAX_LIMIT: usize = 10_000;
/// Bytes of items after which a page ends early: clients take messages of 4 MiB.
pub const MAX_BYTES: usize = 3 << 20;

/// The number of items a request wants, from its signed field.
///
/// # Errors
/// `BadParameter` for negative numbers.
pub fn limit(requested: i32) -> Result<usize> {
    match usize::try_from(requested) {
        Ok(0) => Ok(DEFAULT_LIMIT),
        Ok(limit) => Ok(limit.min(MAX_LIMIT)),
        Err(_) => Err(Error::bad_parameter(format!("limit {requested} is negative"))),
    }
}

/// Shared items as items of a message.
pub fn owned<T: Clone>(items: Vec<Arc<T>>) -> Vec<T> {
    items.into_iter().map(Arc::unwrap_or_clone).collect()
}

/// Ends a page after [`MAX_BYTES`]; the key of the first item left out becomes the next key.
pub fn fit<T: Message>(items: &mut Vec<T>, next_key: &mut String, key: impl Fn(&T) -> String) {
    let mut bytes = 0;
    for index in 0..items.len() {
        bytes += items[index].encoded_len();
        if bytes > MAX_BYTES && index > 0 {
            *next_key = key(&items[index]);
            items.truncate(index);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_page_has_a_sane_number_of_items() {
        assert_eq!(limit(0).unwrap(), DEFAULT_LIMIT);
        assert_eq!(limit(7).unwrap(), 7);
        assert_eq!(limit(i32::MAX).unwrap(), MAX_LIMIT);
        assert!(limit(-1).is_err());
    }

    #[test]
    fn a_page_that_would_be_too_large_for_a_client_ends_early() {
        let mut items: Vec<String> = (0..10).map(|n| n.to_string().repeat(1 << 20)).collect();
        let mut next = String::new();
        fit(&mut items, &mut next, |item| item[..1].to_owned());
        assert_eq!((items.len(), next.as_str()), (2, "2"));
        let mut one = vec!["x".repeat(5 << 20)];
        let mut next = String::new();
        fit(&mut one, &mut next, Clone::clone);
        assert_eq!((one.len(), next.as_str()), (1, ""));
    }
}
