//! gzip (RFC 1952) of one buffer at a time, with compressors that are used again: their tables take a third of a
//! megabyte, too much to hold for every session and too much to clear for every keystroke.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use parking_lot::Mutex;

/// Compressors not in use.
static IDLE: Mutex<Vec<Compress>> = Mutex::new(Vec::new());
/// How many idle compressors are kept.
const KEPT: usize = 4;

/// Deflate, no name, no time; XFL 4 says "fastest", OS 255 "unknown".
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Appends the gzip form of `data` to `out`.
pub(crate) fn gzip(data: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let idle = IDLE.lock().pop();
    let mut compressor = idle.unwrap_or_else(|| Compress::new(Compression::fast(), false));
    compressor.reset();
    out.extend_from_slice(&HEADER);
    loop {
        let taken = usize::try_from(compressor.total_in()).unwrap_or(usize::MAX);
        let rest = data.get(taken..).unwrap_or_default();
        out.reserve(rest.len() / 2 + 256);
        match compressor.compress_vec(rest, out, FlushCompress::Finish).map_err(std::io::Error::other)? {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError => {}
        }
    }
    let mut crc = Crc::new();
    crc.update(data);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    let mut idle = IDLE.lock();
    if idle.len() < KEPT {
        idle.push(compressor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(data in proptest::collection::vec(any::<u8>(), 0..100_000), repeat in 1..4_usize) {
            let data = data.repeat(repeat);
            let mut out = Vec::new();
            gzip(&data, &mut out).unwrap();
            let mut back = Vec::new();
            GzDecoder::new(out.as_slice()).read_to_end(&mut back).unwrap();
            prop_assert_eq!(back, data);
        }
    }
}
