//! Archives of a few files (POSIX.1-1988 "ustar").

use crate::error::{Error, Result};

const BLOCK: usize = 512;

/// An archive of files with their names, each readable by its owner only.
pub fn archive<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>, modified: i64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (name, content) in files {
        out.extend_from_slice(&header(name, content.len(), modified)?);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn header(name: &str, size: usize, modified: i64) -> Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    if name.len() > 100 {
        return Err(Error::bad(format!("{name:?} is too long for a name in an archive")));
    }
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", modified.max(0)).as_bytes());
    // The sum counts its own field as blanks.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header.iter_mut().skip(148).zip(sum.as_bytes()).for_each(|(place, byte)| *place = *byte);
    Ok(header)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let long = vec![b'x'; 1000];
        std::fs::write(&path, archive([("a.key", &b"key\n"[..]), ("a.crt", &long)], 1_700_000_000).unwrap()).unwrap();
        let done = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(folder.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(std::fs::read(folder.path().join("a.key")).unwrap(), b"key\n");
        assert_eq!(std::fs::read(folder.path().join("a.crt")).unwrap(), long);
    }

    #[test]
    fn names_have_a_longest_length() {
        assert!(archive([("x".repeat(101).as_str(), &b""[..])], 0).is_err());
    }
}
