//! Recordings that are still being made.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    EventStream, Result, Seal, StreamReader,
    format::{HEADER_BYTES, PartHeader, PartKind},
    part_file::numbered_parts,
};

/// The events of the upload whose pieces are in `folder`: those so far, then those that follow, until the upload ends.
/// `None` when there are none.
pub(crate) fn follow(folder: PathBuf, seal: Seal) -> Result<Option<EventStream>> {
    if numbered_parts(&folder)?.is_empty() {
        return Ok(None);
    }
    let over = Arc::new(AtomicBool::new(false));
    let pieces = Pieces { folder, current: None, over: over.clone() };
    let reader = StreamReader::sealed(Box::new(BufReader::new(pieces)) as Box<dyn BufRead + Send>, seal);
    Ok(Some(EventStream::growing(reader, over)))
}

/// The whole parts of an upload's pieces, one piece after the other. At the end of what is there it reads nothing, and
/// goes on should there be more by the next time.
struct Pieces {
    folder: PathBuf,
    current: Option<Piece>,
    /// Set when the pieces are gone: the upload was completed, or given up.
    over: Arc<AtomicBool>,
}

struct Piece {
    number: u64,
    path: PathBuf,
    file: File,
    position: u64,
    /// Where the whole parts end that have been found.
    bound: u64,
}

impl Piece {
    /// Looks for more whole parts. Their writer may be in the middle of one.
    fn look(&mut self) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        while self.bound + HEADER_BYTES as u64 <= size {
            self.file.read_exact_at(&mut header, self.bound)?;
            let Ok(part) = PartHeader::from_bytes(&header) else { break };
            match self.bound.checked_add(part.length()) {
                Some(end) if end <= size && part.kind != PartKind::End => self.bound = end,
                _ => break,
            }
        }
        Ok(())
    }
}

impl Pieces {
    /// Goes to the next piece; false when there is none yet.
    fn advance(&mut self) -> io::Result<bool> {
        let after = self.current.as_ref().map_or(0, |piece| piece.number);
        let pieces = numbered_parts(&self.folder).map_err(io::Error::other)?;
        let Some((number, path)) = pieces.into_iter().find(|(number, _)| *number > after) else { return Ok(false) };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        self.current = Some(Piece { number, path, file, position: 0, bound: 0 });
        Ok(true)
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked before looking: what came until then is found.
            let gone = self.current.as_ref().is_none_or(|piece| !piece.path.exists());
            if let Some(piece) = &mut self.current {
                if piece.position == piece.bound {
                    piece.look()?;
                }
                let left = usize::try_from(piece.bound - piece.position).unwrap_or(usize::MAX);
                let most = buffer.len().min(left);
                if most > 0 {
                    let count = piece.file.read_at(&mut buffer[..most], piece.position)?;
                    piece.position += count as u64;
                    return Ok(count);
                }
            }
            if !self.advance()? {
                if gone {
                    self.over.store(true, Ordering::Release);
                }
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::{EventExt, codes};
    use tempfile::TempDir;
    use tokio::time::timeout;
    use wire::events::SessionPrint;

    use crate::{DiskStore, Keyring, SealingKey, SessionId, Store};

    fn print(index: i64) -> wire::events::OneOf {
        let mut event = codes::SESSION_PRINT.event(SessionPrint { data: vec![b'x'; 100], ..Default::default() });
        event.metadata_mut().unwrap().index = index;
        event
    }

    #[tokio::test]
    async fn a_recording_is_read_while_it_is_made_over_lost_connections_until_it_is_complete() {
        let dir = TempDir::new().unwrap();
        for seals in [false, true] {
            let keys = Keyring::default();
            keys.set(vec![SealingKey::generate().unwrap()], seals);
            let store = DiskStore::open(dir.path()).unwrap().with_keys(keys);
            let session = SessionId::random();
            assert!(store.follow(session).await.unwrap().is_none());
            let mut upload = store.create(session).await.unwrap();
            upload.write(&print(0)).await.unwrap();
            upload.flush().await.unwrap();
            let mut live = store.follow(session).await.unwrap().unwrap();
            assert_eq!(live.next().await.unwrap().unwrap().index(), 0);
            upload.write(&print(1)).await.unwrap();
            assert!(timeout(2 * crate::stream::LOOK, live.next()).await.is_err(), "what is not durable is not shown");
            upload.flush().await.unwrap();
            assert_eq!(live.next().await.unwrap().unwrap().index(), 1);
            let id = upload.status().upload_id.parse().unwrap();
            drop(upload);
            let mut upload = store.resume(session, id).await.unwrap();
            upload.write(&print(1)).await.unwrap();
            upload.write(&print(2)).await.unwrap();
            upload.flush().await.unwrap();
            assert_eq!(live.next().await.unwrap().unwrap().index(), 2);
            upload.write(&print(3)).await.unwrap();
            upload.complete().await.unwrap();
            assert_eq!(live.next().await.unwrap().unwrap().index(), 3);
            assert!(live.next().await.unwrap().is_none());
            assert!(store.follow(session).await.unwrap().is_none());
        }
    }
}
