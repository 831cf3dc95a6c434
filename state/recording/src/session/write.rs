//! The task that writes a recording.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking};
use tracing::{debug, warn};
use wire::events::OneOf;

use super::{
    FLUSH_DELAY,
    queue::{Item, Queue},
};
use crate::{Error, PartWriter, Result, SessionId, Uploads, part_file::PartFile, tail::Tail, uploads::Progress};

/// How long the end of a recording that is in memory may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(600);

/// What a recording is written to.
pub(super) struct Places {
    /// The file that grows; `None` when the disk took none.
    pub file: Option<PartFile>,
    /// What takes the rest when the disk takes no more; for recordings whose upload follows them.
    pub tail: Option<Arc<Tail>>,
}

/// Writes parts until the queue is closed, then completes the recording and wakes the uploader.
pub(super) async fn run(
    session: SessionId,
    queue: Arc<Queue>,
    uploads: Uploads,
    places: Places,
    report: watch::Sender<Progress>,
) {
    let outcome = write(session, &queue, &uploads, places, &report).await;
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

async fn write(
    session: SessionId,
    queue: &Queue,
    uploads: &Uploads,
    places: Places,
    report: &watch::Sender<Progress>,
) -> Result<()> {
    let Places { mut file, tail } = places;
    let mut on_disk = file.is_some();
    loop {
        let batch = queue.take(FLUSH_DELAY).await;
        let mut rest = Some(into_events(batch.items));
        if on_disk && let (Some(mut current), Some(events)) = (file.take(), rest.take()) {
            // File work happens elsewhere: a slow disk must not hold up other sessions.
            let written = spawn_blocking(move || {
                let result = append(&mut current, &events);
                (current, events, result)
            });
            let (current, events, result) =
                written.await.map_err(|e| Error::Failed { session, reason: e.to_string() })?;
            report.send_modify(|p| p.flushed = current.len());
            file = Some(current);
            match result {
                Ok(()) => {}
                Err(error) if tail.is_some() => {
                    warn!(%session, %error, "the disk takes no more of a recording: the rest is streamed from memory");
                    on_disk = false;
                    report.send_modify(|p| p.spilled = true);
                    rest = Some(events);
                }
                Err(error) => {
                    queue.fail(&error.to_string());
                    return complete(session, uploads, file).await;
                }
            }
        }
        if let (Some(events), Some(tail), false) = (rest, &tail, on_disk) {
            tail.push(events).await;
        }
        match &tail {
            Some(tail) if batch.last && !on_disk => return deliver(session, queue, uploads, file, tail).await,
            _ if batch.last => return complete(session, uploads, file).await,
            _ => {}
        }
    }
}

/// Waits until the other end has a recording whose rest is in memory. What is on the disk is uploaded later if it does
/// not.
async fn deliver(
    session: SessionId,
    queue: &Queue,
    uploads: &Uploads,
    file: Option<PartFile>,
    tail: &Tail,
) -> Result<()> {
    tail.close();
    if tail.wait_for_arrival(ARRIVAL).await {
        let Some(file) = file else { return Ok(()) };
        let folder = file.folder();
        drop(file);
        let removed = spawn_blocking(move || crate::part_file::remove_upload(&folder)).await;
        return removed.map_err(|e| Error::Failed { session, reason: e.to_string() })?;
    }
    queue.fail("the disk is full and the other end does not take the recording");
    complete(session, uploads, file).await
}

fn into_events(items: VecDeque<Item>) -> Vec<OneOf> {
    let event = |item| match item {
        Item::Event(event) => *event,
        Item::Print(print) => print.into_event(),
    };
    items.into_iter().map(event).collect()
}

fn append(file: &mut PartFile, events: &[OneOf]) -> Result<()> {
    let mut parts = PartWriter::new();
    for event in events {
        if let Err(error) = parts.push(event) {
            warn!(%error, "event left out of a session recording");
        }
    }
    let part = parts.take(0)?;
    if part.is_empty() { Ok(()) } else { file.append(&part) }
}

/// Ends the file and puts it where the uploader looks.
async fn complete(session: SessionId, uploads: &Uploads, file: Option<PartFile>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
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
