//! Sessions that are running, and limits of what may be held at once.

use std::sync::Arc;

use backend::Condition;
use chrono::{DateTime, TimeDelta, Utc};
use resources::Resource;
use wire::{
    error::{Error, ErrorKind, Result},
    proto::{UpdateSessionTrackerRequest, update_session_tracker_request::Update},
    time,
    types::{
        AcquireSemaphoreRequest, Metadata, SemaphoreFilter, SemaphoreLease, SemaphoreLeaseRef, SemaphoreSpecV3,
        SemaphoreV3, SessionTrackerV1,
    },
};

use crate::{Auth, random, store, store::kind};

/// How long a session that nobody reports on counts as running.
const TRACKER_TTL: TimeDelta = TimeDelta::minutes(30);

/// How far ahead a lease may reach.
const MAX_LEASE: TimeDelta = TimeDelta::hours(24);

/// How often taking a lease is tried when many want one.
const ATTEMPTS: u32 = 16;

impl Auth {
    /// Starts to track a session.
    ///
    /// # Errors
    /// `AlreadyExists`; `BadParameter` for malformed trackers.
    pub async fn create_session_tracker(&self, mut tracker: SessionTrackerV1) -> Result<SessionTrackerV1> {
        let id = tracker.spec.as_ref().map(|spec| spec.session_id.clone()).unwrap_or_default();
        if tracker.name().is_empty() {
            tracker.metadata_mut().name = id;
        }
        let now = self.now();
        let spec = tracker.spec.get_or_insert_default();
        if spec.created.is_none() {
            spec.created = Some(time::timestamp(now));
        }
        tracker.check_and_set_defaults().map_err(Error::from)?;
        self.set_tracker_expiry(&mut tracker);
        self.store().create::<kind::SessionTracker>(tracker).await.map(Arc::unwrap_or_clone)
    }

    /// Changes the tracker of a session.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` for empty changes.
    pub async fn update_session_tracker(&self, request: UpdateSessionTrackerRequest) -> Result<SessionTrackerV1> {
        let update = request.update.ok_or_else(|| Error::bad_parameter("missing parameter Update"))?;
        let changed = self.store().change::<kind::SessionTracker>(&request.session_id, |tracker| {
            apply(tracker, &update)?;
            self.set_tracker_expiry(tracker);
            Ok(())
        });
        changed.await.map(Arc::unwrap_or_clone)
    }

    /// The tracker of a session.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_session_tracker(&self, id: &str) -> Result<SessionTrackerV1> {
        self.store().cached::<kind::SessionTracker>(id).map(Arc::unwrap_or_clone)
    }

    /// The trackers of all sessions.
    ///
    /// # Errors
    /// Never at the moment.
    pub async fn list_session_trackers(&self) -> Result<Vec<SessionTrackerV1>> {
        Ok(self.store().cached_list::<kind::SessionTracker>().into_iter().map(Arc::unwrap_or_clone).collect())
    }

    /// Forgets the tracker of a session.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_session_tracker(&self, id: &str) -> Result<()> {
        self.store().delete::<kind::SessionTracker>(id).await
    }

    fn set_tracker_expiry(&self, tracker: &mut SessionTrackerV1) {
        let now = self.now();
        let spec = tracker.spec.get_or_insert_default();
        let expires = time::moment(spec.expires.as_ref()).filter(|at| *at > now).unwrap_or(now + TRACKER_TTL);
        spec.expires = Some(time::timestamp(expires));
        tracker.set_expires(Some(expires));
    }

    /// Takes a lease, as long as fewer than the allowed number are held.
    ///
    /// # Errors
    /// `LimitExceeded` with the word `err-max-leases` when all are held.
    pub async fn acquire_semaphore(&self, request: AcquireSemaphoreRequest) -> Result<SemaphoreLease> {
        let expires = self.lease_expiry(request.expires.as_ref())?;
        let max = usize::try_from(request.max_leases).unwrap_or(0);
        if max == 0 {
            return Err(Error::bad_parameter("max_leases: expected a number above zero"));
        }
        let lease = SemaphoreLeaseRef {
            lease_id: uuid::Uuid::new_v4().to_string(),
            expires: Some(time::timestamp(expires)),
            holder: request.holder.clone(),
        };
        self.change_semaphore(&request.semaphore_kind, &request.semaphore_name, true, |leases| {
            if leases.len() >= max {
                let text = format!(
                    "cannot acquire semaphore {}/{} (err-max-leases)",
                    request.semaphore_kind, request.semaphore_name
                );
                return Err(Error::limit_exceeded(text));
            }
            leases.push(lease.clone());
            Ok(())
        })
        .await?;
        Ok(SemaphoreLease {
            semaphore_kind: request.semaphore_kind,
            semaphore_name: request.semaphore_name,
            lease_id: lease.lease_id,
            expires: lease.expires,
        })
    }

    /// Holds a lease for longer.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub async fn keep_alive_semaphore(&self, lease: SemaphoreLease) -> Result<()> {
        let expires = self.lease_expiry(lease.expires.as_ref())?;
        self.change_semaphore(&lease.semaphore_kind, &lease.semaphore_name, false, |leases| {
            let held = leases.iter_mut().find(|held| held.lease_id == lease.lease_id).ok_or_else(lease_ended)?;
            held.expires = Some(time::timestamp(expires));
            Ok(())
        })
        .await
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub async fn cancel_semaphore(&self, lease: SemaphoreLease) -> Result<()> {
        self.change_semaphore(&lease.semaphore_kind, &lease.semaphore_name, false, |leases| {
            let before = leases.len();
            leases.retain(|held| held.lease_id != lease.lease_id);
            if leases.len() == before { Err(lease_ended()) } else { Ok(()) }
        })
        .await
    }

    /// The semaphores that a filter accepts.
    ///
    /// # Errors
    /// Never at the moment.
    pub async fn list_semaphores(&self, filter: &SemaphoreFilter) -> Result<Vec<SemaphoreV3>> {
        let matches = |semaphore: &SemaphoreV3| {
            (filter.semaphore_kind.is_empty() || semaphore.sub_kind == filter.semaphore_kind)
                && (filter.semaphore_name.is_empty() || semaphore.name() == filter.semaphore_name)
        };
        let all = self.store().cached_list::<kind::Semaphore>().into_iter();
        Ok(all.filter(|semaphore| matches(semaphore)).map(Arc::unwrap_or_clone).collect())
    }

    /// Removes a semaphore with all its leases.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` without kind and name.
    pub async fn delete_semaphore(&self, filter: &SemaphoreFilter) -> Result<()> {
        if filter.semaphore_kind.is_empty() || filter.semaphore_name.is_empty() {
            return Err(Error::bad_parameter("missing parameter: kind and name of the semaphore"));
        }
        self.store().delete::<kind::Semaphore>(&format!("{}/{}", filter.semaphore_kind, filter.semaphore_name)).await
    }

    async fn change_semaphore(
        &self,
        semaphore_kind: &str,
        name: &str,
        make: bool,
        mut change: impl FnMut(&mut Vec<SemaphoreLeaseRef>) -> Result<()>,
    ) -> Result<()> {
        let full_name = format!("{semaphore_kind}/{name}");
        for attempt in 0..ATTEMPTS {
            let stored = self.store().cached::<kind::Semaphore>(&full_name).ok();
            let condition = match &stored {
                Some(semaphore) => Condition::Revision(semaphore.revision().to_owned()),
                None if make => Condition::NotExists,
                None => return Err(lease_ended()),
            };
            let now = self.now();
            let mut semaphore = stored.map(Arc::unwrap_or_clone).unwrap_or_else(|| new_semaphore(semaphore_kind, name));
            let leases = &mut semaphore.spec.get_or_insert_default().leases;
            leases.retain(|lease| time::moment(lease.expires.as_ref()).is_some_and(|at| at > now));
            change(leases)?;
            let last = leases.iter().filter_map(|lease| time::moment(lease.expires.as_ref())).max();
            semaphore.check_and_set_defaults().map_err(Error::from)?;
            // Nobody holds anything: it may go, a moment from now.
            semaphore.set_expires(Some(last.unwrap_or(now + TimeDelta::seconds(1))));
            match self.store().atomic(vec![store::put::<kind::Semaphore>(&semaphore, condition)?]).await {
                Ok(_) => return Ok(()),
                Err(e) if e.kind == ErrorKind::CompareFailed => {
                    tokio::time::sleep(random::jitter(std::time::Duration::from_millis(4 << attempt.min(6)))).await;
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::limit_exceeded("too many want this semaphore at once, try again"))
    }

    fn lease_expiry(&self, asked: Option<&prost_types::Timestamp>) -> Result<DateTime<Utc>> {
        let now = self.now();
        let expires = time::moment(asked).ok_or_else(|| Error::bad_parameter("missing parameter expires"))?;
        if expires <= now {
            return Err(Error::bad_parameter("the lease would have ended already"));
        }
        Ok(expires.min(now + MAX_LEASE))
    }
}

fn apply(tracker: &mut SessionTrackerV1, update: &Update) -> Result<()> {
    let spec = tracker.spec.get_or_insert_default();
    match update {
        Update::UpdateState(change) => spec.state = change.state,
        Update::AddParticipant(change) => {
            let participant = change.participant.clone().ok_or_else(|| Error::bad_parameter("missing participant"))?;
            spec.participants.retain(|known| known.id != participant.id);
            spec.participants.push(participant);
        }
        Update::RemoveParticipant(change) => {
            let before = spec.participants.len();
            spec.participants.retain(|known| known.id != change.participant_id);
            if spec.participants.len() == before {
                return Err(Error::not_found(format!("participant {:?} not found", change.participant_id)));
            }
        }
        Update::UpdateExpiry(change) => spec.expires = change.expires,
    }
    Ok(())
}

fn new_semaphore(semaphore_kind: &str, name: &str) -> SemaphoreV3 {
    SemaphoreV3 {
        sub_kind: semaphore_kind.to_owned(),
        metadata: Some(Metadata { name: name.to_owned(), ..Metadata::default() }),
        spec: Some(SemaphoreSpecV3::default()),
        ..SemaphoreV3::default()
    }
}

fn lease_ended() -> Error {
    Error::not_found("the lease has ended")
}
