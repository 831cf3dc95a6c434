//! Completes recordings whose process has died.

use std::{fs::File, path::PathBuf, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};
use wire::events::OneOf;

use super::UploadTarget;
use crate::{
    Error, FormatError, PartWriter, Result, SessionId, Summary, Uploads,
    part_file::{PartFile, from_start, names_in, numbered_parts, remove_upload},
    summary::summarize,
};

/// How long telling the end of a session may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A recording without a process, locked.
pub(super) struct Abandoned {
    session: SessionId,
    folder: PathBuf,
    file: PartFile,
    summary: Summary,
}

impl Abandoned {
    pub fn session(&self) -> SessionId {
        self.session
    }
}

/// Finds recordings that nobody writes to any longer, and removes those without content. Blocks.
pub(super) fn abandoned(uploads: &Uploads) -> Result<Vec<Abandoned>> {
    let multi = uploads.multi();
    let mut found = Vec::new();
    for upload in names_in(&multi)? {
        for name in names_in(&multi.join(&upload))? {
            let Ok(session) = name.parse::<SessionId>() else { continue };
            let folder = multi.join(&upload).join(&name);
            match take(session, folder.clone()) {
                Ok(recording) => found.extend(recording),
                Err(error) => {
                    tracing::warn!(%session, %error, folder = %folder.display(), "interrupted recording not read");
                }
            }
        }
    }
    Ok(found)
}

fn take(session: SessionId, folder: PathBuf) -> Result<Option<Abandoned>> {
    let parts = numbered_parts(&folder)?;
    let Some(((_, first), others)) = parts.split_first() else {
        // Made, and then its process died, or it is being made right now.
        return Ok(None);
    };
    let Some(mut file) = PartFile::take_over(first.clone())? else { return Ok(None) };
    let (_, whole) = read(first)?;
    file.truncate(whole)?;
    for (_, other) in others {
        let (_, whole) = read(other)?;
        file.append_from(other, whole)?;
    }
    let (summary, _) = read(first)?;
    if summary.events == 0 {
        drop(file);
        remove_upload(&folder)?;
        return Ok(None);
    }
    Ok(Some(Abandoned { session, folder, file, summary }))
}

/// The outline of a file of parts, and how much of it is whole.
fn read(path: &PathBuf) -> Result<(Summary, u64)> {
    let file = File::open(path).map_err(Error::storage("open", path))?;
    let (summary, whole, problem) = summarize(from_start(file).map_err(FormatError::Read)?);
    match problem {
        // Not a fault of the recording: it must not be cut because of it.
        Some(FormatError::Read(e)) => Err(Error::storage("read", path)(e)),
        _ => Ok((summary, whole)),
    }
}

/// Tells the end of the session if nobody has, and puts the recording where finished ones are.
pub(super) async fn complete(uploads: &Uploads, target: &dyn UploadTarget, recording: Abandoned) -> Result<()> {
    let end = recording.summary.missing_end(recording.session);
    if let Some(event) = end.clone() {
        let told = timeout(END_TIMEOUT, target.session_ended(event)).await;
        let late = wire::error::Error::connection_problem("no answer to the end of an interrupted session");
        told.unwrap_or(Err(late)).map_err(Error::Remote)?;
    }
    let (session, path) = (recording.session, uploads.recording(recording.session));
    spawn_blocking(move || finish(recording, end.as_ref(), &path))
        .await
        .map_err(|e| Error::Failed { session, reason: e.to_string() })?
}

fn finish(mut recording: Abandoned, end: Option<&OneOf>, path: &std::path::Path) -> Result<()> {
    if let Some(end) = end {
        let mut part = PartWriter::new();
        part.push(end)?;
        recording.file.append(&part.take(0)?)?;
    }
    recording.file.finish(path, false)?;
    remove_upload(&recording.folder)
}
