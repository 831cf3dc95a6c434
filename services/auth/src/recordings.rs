//! Recordings whose uploads nobody finishes.

use std::{collections::VecDeque, time::Duration};

use chrono::TimeDelta;
use recording::{Recording, Unfinished};
use wire::{
    error::{Error, Result},
    events::OneOf,
};

use crate::{Auth, random, store::kind};

/// How often unfinished uploads are looked at.
const PERIOD: Duration = Duration::from_secs(5 * 60);

/// How long nothing was added to an upload that is given up.
const ABANDONED: TimeDelta = TimeDelta::minutes(10);

impl Auth {
    /// Where recordings are kept.
    pub fn recordings(&self) -> &dyn recording::Store {
        &*self.0.recordings
    }

    /// Completes uploads that were given up, again and again; ends only by being dropped.
    pub(crate) async fn keep_completing_recordings(&self) {
        let mut untold = VecDeque::new();
        loop {
            tokio::time::sleep(random::jitter(PERIOD)).await;
            if let Err(error) = self.complete_abandoned_recordings(&mut untold).await {
                tracing::warn!(%error, "abandoned recordings could not be completed, trying again later");
            }
            if let Err(error) = self.remove_old_recordings().await {
                tracing::warn!(%error, "old recordings could not be removed, trying again later");
            }
        }
    }

    /// Completes uploads to which nothing was added for a while, of sessions that nobody tracks any more: their agent
    /// is gone. An agent that comes back later with more replaces what is here.
    ///
    /// `untold` are events about earlier ones that the audit log has not taken; until it has, nothing else is completed.
    pub(crate) async fn complete_abandoned_recordings(&self, untold: &mut VecDeque<OneOf>) -> Result<usize> {
        self.tell_untold(untold).await?;
        let settled = self.recordings().settle().await.map_err(Error::from)?;
        let mut completed = settled.len();
        untold.extend(settled.iter().flat_map(ends));
        self.tell_untold(untold).await?;
        let unfinished = self.recordings().unfinished().await.map_err(Error::from)?;
        for upload in unfinished.iter().filter(|upload| self.is_abandoned(upload)) {
            match self.complete(upload).await {
                Ok(recording) => {
                    completed += 1;
                    // Now, not with those of all: this may end at any moment, and nobody says later what was not said.
                    untold.extend(ends(&recording));
                    self.tell_untold(untold).await?;
                }
                // Others are not to wait for it.
                Err(error) => {
                    tracing::warn!(session = %upload.session, %error, "an abandoned recording could not be completed");
                }
            }
        }
        Ok(completed)
    }

    async fn complete(&self, upload: &Unfinished) -> Result<Recording> {
        let resumed = self.recordings().resume(upload.session, upload.upload).await?;
        Ok(resumed.complete().await?)
    }

    /// Puts events into the audit log; those that it does not take stay.
    async fn tell_untold(&self, untold: &mut VecDeque<OneOf>) -> Result<()> {
        while let Some(event) = untold.front() {
            self.emit(event.clone()).await?;
            untold.pop_front();
        }
        Ok(())
    }

    /// Removes recordings that are older than they are to become.
    pub(crate) async fn remove_old_recordings(&self) -> Result<usize> {
        let retention = self.0.config.recordings_retention.and_then(|time| TimeDelta::from_std(time).ok());
        let Some(retention) = retention else { return Ok(0) };
        let removed = self.recordings().remove_before(self.now() - retention).await.map_err(Error::from)?;
        if removed > 0 {
            tracing::info!(removed, "old recordings were removed");
        }
        Ok(removed)
    }

    fn is_abandoned(&self, upload: &Unfinished) -> bool {
        let latest = self.now() - ABANDONED;
        !upload.busy
            && upload.modified.is_none_or(|modified| modified < latest)
            && self.store().cached::<kind::SessionTracker>(&upload.session.to_string()).is_err()
    }
}

/// What the audit log is told about a recording that was completed without its agent.
fn ends(recording: &Recording) -> impl Iterator<Item = OneOf> + use<> {
    tracing::info!(session = %recording.session, "an abandoned recording was completed");
    [recording.summary.missing_end(recording.session), recording.upload_event()].into_iter().flatten()
}
