//! Carries recordings from an agent's disk to the Auth Service.

mod recover;
mod target;
mod transfer;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::Stream;
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};
use uuid::Uuid;
use wire::{
    error::{ErrorKind, Kinded},
    events::{OneOf, StreamStatus},
    proto::AuditStreamRequest,
};

use crate::{Error, Result, SessionId, Uploads, uploads::Live};
pub use target::ToAuth;
use transfer::{Outcome, Source};

/// The answers of the other end of an upload, ending when it has ended the stream.
pub type StatusStream = Pin<Box<dyn Stream<Item = Result<StreamStatus, wire::error::Error>> + Send>>;

/// Where recordings go: the Auth Service's calls, as an agent's client makes them.
#[async_trait]
pub trait UploadTarget: Send + Sync + 'static {
    /// Opens the call `CreateAuditStream` with these requests. The first is in the queue already.
    async fn stream(&self, requests: mpsc::Receiver<AuditStreamRequest>) -> Result<StatusStream, wire::error::Error>;

    /// Emits the event that ends a session whose server has crashed. It must not get lost: `Ok` means that it is
    /// stored, here or there.
    async fn session_ended(&self, event: OneOf) -> Result<(), wire::error::Error>;
}

/// How patient an [`Uploader`] is.
#[derive(Clone, Debug)]
pub struct UploaderConfig {
    /// How often the folder is looked at although nobody has said that there is something new.
    pub scan_interval: Duration,
    /// How many uploads go on at the same time.
    pub parallel: usize,
    /// The delay before an upload is tried again; doubled with every failure up to `longest_retry`.
    pub first_retry: Duration,
    /// The longest delay before an upload is tried again.
    pub longest_retry: Duration,
    /// How long the other end may take for its first answer, and for taking an event.
    pub answer_timeout: Duration,
    /// How long the other end may take to complete an upload.
    pub complete_timeout: Duration,
}

impl Default for UploaderConfig {
    fn default() -> Self {
        Self {
            scan_interval: Duration::from_secs(5),
            parallel: 10,
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(20),
            complete_timeout: Duration::from_secs(300),
        }
    }
}

/// Uploads what is in [`Uploads`].
pub struct Uploader {
    uploads: Uploads,
    target: Arc<dyn UploadTarget>,
    config: UploaderConfig,
    tasks: JoinSet<Result<Outcome>>,
    running: HashMap<tokio::task::Id, SessionId>,
    waiting: BTreeMap<SessionId, Retry>,
}

/// An upload that has failed and will be tried again.
struct Retry {
    failures: u32,
    at: Instant,
}

impl Uploader {
    /// Carries recordings from `uploads` to `target`.
    pub fn new(uploads: Uploads, target: Arc<dyn UploadTarget>, config: UploaderConfig) -> Self {
        Self { uploads, target, config, tasks: JoinSet::new(), running: HashMap::new(), waiting: BTreeMap::new() }
    }

    /// Uploads until it is dropped; what was going on then is resumed by the next uploader. Starts with completing
    /// what a crash has left.
    pub async fn run(mut self) {
        let mut recovery_due = Instant::now();
        if let Err(error) = self.uploads.clear_orphans() {
            warn!(%error, "old checkpoints not removed");
        }
        loop {
            if recovery_due <= Instant::now() {
                self.recover().await;
                recovery_due = Instant::now() + self.config.scan_interval;
            }
            if let Err(error) = self.start_due().await {
                warn!(%error, "recordings waiting for upload not listed");
            }
            let wait = jittered(self.config.scan_interval);
            let next = self.waiting.values().map(|r| r.at).fold(Instant::now() + wait, Instant::min);
            tokio::select! {
                () = self.uploads.woken() => {}
                () = sleep_until(next) => {}
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.settle(done),
            }
        }
    }

    /// Completes recordings whose process has died.
    async fn recover(&self) {
        let uploads = self.uploads.clone();
        let abandoned = match spawn_blocking(move || recover::abandoned(&uploads)).await {
            Ok(Ok(abandoned)) => abandoned,
            Ok(Err(error)) => return warn!(%error, "interrupted recordings not listed"),
            Err(error) => return warn!(%error, "interrupted recordings not listed"),
        };
        for recording in abandoned {
            let session = recording.session();
            match recover::complete(&self.uploads, self.target.as_ref(), recording).await {
                Ok(()) => info!(%session, "interrupted session recording recovered"),
                Err(error) => warn!(%session, %error, "interrupted session recording not recovered yet"),
            }
        }
    }

    /// Starts the uploads whose time has come.
    async fn start_due(&mut self) -> Result<()> {
        let uploads = self.uploads.clone();
        let list = spawn_blocking(move || {
            uploads.set_corrupt_aside()?;
            uploads.finished()
        });
        let finished = list.await.unwrap_or_else(|_| Ok(Default::default()))?;
        let live = self.uploads.live();
        self.waiting.retain(|session, _| finished.contains(session) || live.contains_key(session));
        let now = Instant::now();
        let candidates = finished.into_iter().map(|s| (s, None)).chain(live.into_iter().map(|(s, l)| (s, Some(l))));
        for (session, live) in candidates {
            let due = self.waiting.get(&session).is_none_or(|r| r.at <= now);
            // Sessions that are followed take no place: they last for hours.
            let room = live.is_some() || self.running.len() < self.config.parallel;
            if due && room && !self.running.values().any(|s| *s == session) {
                self.start(session, live);
            }
        }
        Ok(())
    }

    fn start(&mut self, session: SessionId, live: Option<Live>) {
        let (uploads, target, config) = (self.uploads.clone(), self.target.clone(), self.config.clone());
        let task = self.tasks.spawn(async move {
            let source = match live {
                Some(live) => Source::following(&live),
                None => Source::finished(&uploads.recording(session)),
            };
            transfer::upload(&uploads, target.as_ref(), &config, session, source?).await
        });
        self.running.insert(task.id(), session);
    }

    fn settle(&mut self, done: Result<(tokio::task::Id, Result<Outcome>), tokio::task::JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(e) => {
                let session = self.running.get(&e.id()).copied();
                let outcome =
                    session.map_or(Ok(Outcome::Gone), |session| Err(Error::Failed { session, reason: e.to_string() }));
                (e.id(), outcome)
            }
        };
        let Some(session) = self.running.remove(&id) else { return };
        match outcome {
            Ok(outcome) => {
                match &outcome {
                    Outcome::Uploaded => info!(%session, "session recording uploaded"),
                    Outcome::Gone => debug!(%session, "session recording is gone"),
                    Outcome::Corrupt(reason) => warn!(%session, reason, "session recording set aside"),
                }
                // The other end is there again: nobody needs to wait any longer.
                self.waiting.clear();
            }
            Err(error) => self.retry_later(session, &error),
        }
    }

    fn retry_later(&mut self, session: SessionId, error: &Error) {
        if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::BadParameter)
            && !self.uploads.live().contains_key(&session)
        {
            warn!(%session, %error, "session recording refused for good");
            if let Err(error) = self.uploads.mark_corrupt(session, &error.to_string()) {
                warn!(%session, %error, "refused session recording not marked");
            }
        }
        let failures = self.waiting.get(&session).map_or(0, |r| r.failures) + 1;
        let doubled = self.config.first_retry.saturating_mul(1 << failures.min(16).saturating_sub(1));
        let delay = jittered(doubled.min(self.config.longest_retry));
        warn!(%session, %error, failures, ?delay, "session recording not uploaded yet");
        self.waiting.insert(session, Retry { failures, at: Instant::now() + delay });
    }
}

/// A duration with up to a seventh taken off, so that agents do not act in step.
fn jittered(duration: Duration) -> Duration {
    let thousandths = u32::try_from(Uuid::new_v4().as_u128() % 1000).unwrap_or(0);
    duration - duration / 7 * thousandths / 1000
}

#[cfg(test)]
mod tests;
