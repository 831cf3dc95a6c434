//! The task that writes a recording.

use std::{collections::VecDeque, path::Path, sync::Arc};

use tokio::{sync::watch, task::spawn_blocking};
use tracing::{debug, warn};

use super::{
    FLUSH_DELAY,
    queue::{Item, Queue},
};
use crate::{Error, PartWriter, Result, SessionId, Uploads, part_file::PartFile, uploads::Progress};

/// Writes parts until the queue is closed, then completes the recording and wakes the uploader.
pub(super) async fn run(
    session: SessionId,
    queue: Arc<Queue>,
    uploads: Uploads,
    mut file: PartFile,
    report: watch::Sender<Progress>,
) {
    let outcome = loop {
        let batch = queue.take(FLUSH_DELAY).await;
        let last = batch.last;
        // File work happens elsewhere: a slow disk must not hold up other sessions.
        let written = spawn_blocking(move || {
            let result = write_items(&mut file, batch.items);
            (file, result)
        });
        match written.await {
            Ok((back, Ok(()))) => file = back,
            Ok((back, Err(e))) => {
                file = back;
                queue.fail(&e.to_string());
                break complete(session, &uploads, file).await;
            }
            Err(e) => break Err(Error::Failed { session, reason: e.to_string() }),
        }
        report.send_modify(|p| p.flushed = file.len());
        if last {
            break complete(session, &uploads, file).await;
        }
    };
    if let Err(e) = &outcome {
        queue.fail(&e.to_string());
    }
    let failure = queue.failure();
    match &failure {
        None => debug!(%session, "session recording complete"),
        Some(reason) => warn!(%session, reason, "session recording failed"),
    }
    uploads.remove_live(session);
    report.send_modify(|p| {
        p.finished = outcome.is_ok();
        p.failure = failure;
    });
    uploads.wake();
}

fn write_items(file: &mut PartFile, items: VecDeque<Item>) -> Result<()> {
    let mut parts = PartWriter::new();
    for item in items {
        match item {
            Item::Event(event) => {
                if let Err(error) = parts.push(&event) {
                    warn!(%error, "event left out of a session recording");
                }
            }
            Item::Print(print) => parts.push(&print.into_event())?,
        }
    }
    let part = parts.take(0)?;
    if part.is_empty() { Ok(()) } else { file.append(&part) }
}

/// Ends the file and puts it where the uploader looks.
async fn complete(session: SessionId, uploads: &Uploads, file: PartFile) -> Result<()> {
    let path = uploads.recording(session);
    spawn_blocking(move || finish(file, &path)).await.map_err(|e| Error::Failed { session, reason: e.to_string() })?
}

fn finish(file: PartFile, path: &Path) -> Result<()> {
    let folder = file.folder();
    if file.len() == 0 {
        // Nothing was recorded: nothing is uploaded.
        drop(file);
        return crate::part_file::remove_upload(&folder);
    }
    file.finish(path, false)?;
    crate::part_file::remove_upload(&folder)
}
