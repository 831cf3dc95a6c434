//! Textual encodings of keys and certificates (RFC 7468).
//!
//! Reading is forgiving about what people's files look like (text around the blocks, trailing blanks, CRLF,
//! any line width) and strict about what is inside a block: it must be complete and valid base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

/// One decoded block; the contents are wiped when dropped because a block may hold a private key.
pub struct Block {
    /// The words between `BEGIN` and the dashes, such as `CERTIFICATE`.
    pub label: String,
    /// The decoded contents.
    pub der: Zeroizing<Vec<u8>>,
}

/// Decodes every block of a text, in order; a text without blocks gives an empty list.
///
/// # Errors
/// [`Error::Malformed`] when a block does not end or its contents are not base64.
pub fn blocks(text: &str) -> Result<Vec<Block>, Error> {
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "BEGIN") else {
            continue;
        };
        found.push(Block { label: label.to_owned(), der: contents(label, &mut lines)? });
    }
    Ok(found)
}

/// Encodes bytes as one block with 64 columns and a newline at the end.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let mut body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    body.zeroize();
    text
}

/// The label of a `-----<keyword> <label>-----` line.
fn boundary<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?.strip_prefix(keyword)?.strip_prefix(' ')?.strip_suffix("-----")
}

fn contents<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Large enough for any private key, so that growing leaves no copies behind.
    let mut body = Zeroizing::new(String::with_capacity(8192));
    for line in lines {
        match boundary(line, "END") {
            Some(end) if end == label => {
                return STANDARD
                    .decode(body.as_bytes())
                    .map(Zeroizing::new)
                    .map_err(|error| Error::malformed("PEM block", error));
            }
            Some(end) => {
                return Err(Error::malformed("PEM block", format!("{label:?} is closed by the end of {end:?}")));
            }
            // Headers of the old encrypted form ("Proc-Type: 4,ENCRYPTED") mean a passphrase, which nothing here has.
            None if line.contains(':') => {
                return Err(Error::malformed("PEM block", "encrypted keys are not supported"));
            }
            None => body.push_str(line),
        }
    }
    Err(Error::malformed("PEM block", format!("{label:?} has no end line")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_around_the_blocks_and_crlf_are_accepted() {
        let text = format!("hello\r\n{}\r\nworld\r\n{}", encode("A", b"one").replace('\n', "\r\n"), encode("B", b""));
        let found = blocks(&text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), found[0].der.as_slice()), ("A", b"one".as_slice()));
        assert_eq!((found[1].label.as_str(), found[1].der.as_slice()), ("B", b"".as_slice()));
    }

    #[test]
    fn a_fragment_of_a_block_is_an_error() {
        assert!(blocks("-----BEGIN A-----\nAAAA\n").is_err());
        assert!(blocks("-----BEGIN A-----\nAAAA\n-----END B-----\n").is_err());
        assert!(blocks("-----BEGIN A-----\n*\n-----END A-----\n").is_err());
    }

    proptest! {
        #[test]
        fn every_encoded_block_decodes_to_the_same_bytes(der: Vec<u8>) {
            let found = blocks(&encode("CERTIFICATE", &der)).unwrap();
            prop_assert_eq!(found[0].der.as_slice(), der.as_slice());
        }

        #[test]
        fn hostile_text_never_panics(text in "(-----(BEGIN|END) A-----|[A-Za-z0-9=\n -]){0,40}") {
            let _ = blocks(&text);
        }
    }
}
