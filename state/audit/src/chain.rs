//! Evidence of tampering: a chain over all lines of the log, signed at checkpoints.
//!
//! The log's own lines stay as they are. Beside each daily file `<day>.log` lies `<day>.chain`, which holds for every
//! line the SHA-256 of the line and the head of the chain after it: `head = SHA-256(head before || SHA-256(line))`,
//! beginning with a digest of the file's name. `checkpoints.jsonl` holds signed statements about how far each file had
//! come and with which head; every statement carries a number and the digest of the one before, so that none can be
//! taken out. Whoever keeps the latest [`Anchor`] elsewhere notices when the end of all this is cut off.
//!
//! [`links`] keeps the chain of a file, [`checkpoint`] signs, [`verify`] compares.

mod checkpoint;
mod links;
mod verify;

#[cfg(test)]
mod tests;

pub use checkpoint::{Anchor, Signer};
pub(crate) use checkpoint::{Checkpoints, FileState};
pub(crate) use links::Chain;
pub use verify::{Finding, Report, lacking, verify};

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

/// The digest of some bytes.
pub(crate) fn digest(parts: &[&[u8]]) -> Digest {
    use aws_lc_rs::digest::{Context, SHA256};
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The head of a file without lines.
pub(crate) fn beginning(name: &str) -> Digest {
    digest(&[b"audit log file\n", name.as_bytes()])
}

/// The head after a line.
pub(crate) fn step(head: &Digest, line: &Digest) -> Digest {
    digest(&[head, line])
}
