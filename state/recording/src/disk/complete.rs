//! Makes a recording of an upload's pieces.

use std::{fs::File, path::Path};

use crate::{
    Error, FormatError, Result, Seal, StreamReader,
    part_file::{PartFile, from_start, numbered_parts, remove_upload, whole_by_headers},
};

/// Joins the pieces of an upload, of which `last` is the newest, into the recording `path`.
pub(super) fn complete(seal: &Seal, last: PartFile, path: &Path, empty: bool) -> Result<()> {
    let folder = last.folder();
    if empty {
        drop(last);
        return remove_upload(&folder);
    }
    let mut whole = join(last, &folder)?;
    match relation(whole.path(), path, seal)? {
        known @ (Comparison::First | Comparison::Longer) => {
            whole.end(seal)?;
            whole.finish(path, matches!(known, Comparison::Longer))?;
        }
        // Uploaded before by an agent that has not heard of its success.
        Comparison::Known => drop(whole),
        Comparison::Different => {
            drop(whole);
            remove_upload(&folder)?;
            return Err(Error::Conflict(seal.session()));
        }
    }
    remove_upload(&folder)
}

/// One file with all pieces in order. Events that are in two of them are left to the reader.
fn join(last: PartFile, folder: &Path) -> Result<PartFile> {
    let pieces = numbered_parts(folder)?;
    let Some((newest, _)) = pieces.last().filter(|_| pieces.len() > 1) else { return Ok(last) };
    let mut whole = PartFile::create(folder.join(format!("{}.part", newest + 1)))?;
    for (_, piece) in &pieces {
        let file = File::open(piece).map_err(Error::storage("open", piece))?;
        whole.append_from(piece, whole_by_headers(&file)?)?;
    }
    Ok(whole)
}

/// How a new recording relates to the one that is there.
pub(crate) enum Comparison {
    /// There is none.
    First,
    /// The new one has all events of the old one, and more.
    Longer,
    /// The old one has all events of the new one.
    Known,
    /// They tell different stories.
    Different,
}

fn relation(new: &Path, existing: &Path, seal: &Seal) -> Result<Comparison> {
    if !existing.exists() {
        return Ok(Comparison::First);
    }
    let open = |path: &Path| File::open(path).map_err(Error::storage("open", path));
    compare(open(new)?, open(existing)?, seal)
}

/// Compares two recordings of a session event by event.
pub(crate) fn compare(new: File, existing: File, seal: &Seal) -> Result<Comparison> {
    let open =
        |file: File| Ok::<_, Error>(StreamReader::sealed(from_start(file).map_err(FormatError::Read)?, seal.clone()));
    let (mut old, mut new) = (open(existing)?, open(new)?);
    loop {
        let before = match old.next_event() {
            // Damage of the old one is where it ends.
            Ok(event) => event,
            Err(e @ (FormatError::Read(_) | FormatError::Sealed { .. })) => return Err(e.into()),
            Err(_) => None,
        };
        return Ok(match (before, new.next_event()?) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) => Comparison::Different,
            (None, Some(_)) => Comparison::Longer,
            (_, None) => Comparison::Known,
        });
    }
}
