//! Too many wrong guesses lock a name for a while.
//!
//! Guesses for one name are judged one after the other, so that guessing in parallel gains nothing. Names without a
//! user are counted too, in memory, so that a lockout does not tell who exists.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use backend::{Item, KeyRange};
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use resources::{Place, places};
use serde::{Deserialize, Serialize};
use tokio::sync::MutexGuard;
use wire::{
    error::{Error, ErrorKind, Result},
    time, types,
};

use crate::{
    Auth,
    store::{self, kind},
};

/// How many wrong guesses lock a name.
const MAX_ATTEMPTS: usize = 5;

/// How long a wrong guess counts, and how long a name stays locked.
const PERIOD: TimeDelta = TimeDelta::minutes(30);

/// How many names without a user are remembered.
const MAX_STRANGERS: usize = 10_000;

/// How many names can be judged at the same time; names share places at random.
const PLACES: usize = 256;

/// Longest name that is looked at, in bytes.
const MAX_NAME: usize = 255;

/// What people are told while a name is locked.
const LOCKED: &str = "too many incorrect attempts, please try again later";

/// The memory of wrong guesses.
pub(crate) struct Lockout {
    turns: Vec<tokio::sync::Mutex<()>>,
    hash: RandomState,
    strangers: Mutex<HashMap<String, Vec<DateTime<Utc>>>>,
}

/// What becomes of earlier failures when a check succeeds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterSuccess {
    Forget,
    Keep,
}

/// One wrong guess, as stored.
#[derive(Serialize, Deserialize)]
struct Attempt {
    time: DateTime<Utc>,
    success: bool,
}

impl Lockout {
    pub(crate) fn new() -> Self {
        let turns = (0..PLACES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { turns, hash: RandomState::new(), strangers: Mutex::default() }
    }

    async fn turn(&self, user: &str) -> MutexGuard<'_, ()> {
        let place = usize::try_from(self.hash.hash_one(user) % PLACES as u64).unwrap_or(0);
        self.turns[place].lock().await
    }

    fn stranger_is_locked(&self, user: &str, now: DateTime<Utc>) -> bool {
        let mut strangers = self.strangers.lock();
        let Some(attempts) = strangers.get_mut(user) else { return false };
        attempts.retain(|at| *at + PERIOD > now);
        attempts.len() >= MAX_ATTEMPTS
    }

    fn stranger_failed(&self, user: &str, now: DateTime<Utc>) {
        let mut strangers = self.strangers.lock();
        if strangers.len() >= MAX_STRANGERS && !strangers.contains_key(user) {
            strangers.retain(|_, attempts| attempts.last().is_some_and(|at| *at + PERIOD > now));
            if strangers.len() >= MAX_STRANGERS {
                strangers.clear();
            }
        }
        let attempts = strangers.entry(user.to_owned()).or_default();
        if attempts.len() < MAX_ATTEMPTS {
            attempts.push(now);
        }
    }
}

impl Auth {
    /// Runs a check of all credentials of `user`: not at all while the name is locked, and counting its failure.
    /// A success forgets earlier failures.
    ///
    /// # Errors
    /// `AccessDenied` while the name is locked; else what the check returns.
    pub(crate) async fn with_lockout<T>(&self, user: &str, check: impl Future<Output = Result<T>>) -> Result<T> {
        self.guarded(user, AfterSuccess::Forget, check).await
    }

    /// Runs a check of only some of the credentials of `user`. A success leaves earlier failures as they are: who
    /// knows the password could otherwise guess codes for ever.
    ///
    /// # Errors
    /// As [`with_lockout`](Self::with_lockout).
    pub(crate) async fn with_lockout_halfway<T>(
        &self,
        user: &str,
        check: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.guarded(user, AfterSuccess::Keep, check).await
    }

    async fn guarded<T>(&self, user: &str, after: AfterSuccess, check: impl Future<Output = Result<T>>) -> Result<T> {
        if user.len() > MAX_NAME {
            return Err(Error::bad_parameter("invalid username or password"));
        }
        let _turn = self.0.lockout.turn(user).await;
        let known = match self.store().get::<kind::User>(user).await {
            Ok(known) => Some(known),
            Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::BadParameter) => None,
            Err(e) => return Err(e),
        };
        let now = self.now();
        let locked = match &known {
            Some(user) => is_locked(user, now),
            None => self.0.lockout.stranger_is_locked(user, now),
        };
        if locked {
            return Err(Error::access_denied(LOCKED));
        }
        let result = check.await;
        match &result {
            Ok(_) if after == AfterSuccess::Forget && known.is_some() => self.forget_attempts(user).await?,
            Ok(_) => {}
            Err(e) if counts(e) => match &known {
                Some(_) => self.count_attempt(user, now).await?,
                None => self.0.lockout.stranger_failed(user, now),
            },
            Err(_) => {}
        }
        result
    }

    /// Lifts the lock of a name and forgets its wrong guesses.
    pub(crate) async fn lift_lockout(&self, user: &str) -> Result<()> {
        let _turn = self.0.lockout.turn(user).await;
        self.forget_attempts(user).await?;
        let known = self.store().get::<kind::User>(user).await?;
        if known.spec.as_ref().is_some_and(|spec| spec.status.is_some()) {
            self.store()
                .change::<kind::User>(user, |user| {
                    user.spec.get_or_insert_default().status = None;
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    async fn forget_attempts(&self, user: &str) -> Result<()> {
        let range = attempts_of(user)?;
        let stored = self.store().backend().get_range(&range, 1).await.map_err(|e| store::storage(&e))?;
        if !stored.is_empty() {
            self.store().backend().delete_range(&range).await.map_err(|e| store::storage(&e))?;
        }
        Ok(())
    }

    async fn count_attempt(&self, user: &str, now: DateTime<Utc>) -> Result<()> {
        let key = store::key_at(&places::login_attempt(user, &uuid::Uuid::new_v4().to_string()))?;
        let attempt = serde_json::to_vec(&Attempt { time: now, success: false })
            .map_err(|e| Error::other(format!("login attempt cannot be stored: {e}")))?;
        let backend = self.store().backend();
        backend.put(Item::new(key, attempt).with_expires(now + PERIOD)).await.map_err(|e| store::storage(&e))?;
        let attempts = backend.get_range(&attempts_of(user)?, 0).await.map_err(|e| store::storage(&e))?;
        if attempts.len() < MAX_ATTEMPTS {
            return Ok(());
        }
        tracing::info!(user, "user is locked after too many incorrect attempts");
        self.store()
            .change::<kind::User>(user, |user| {
                user.spec.get_or_insert_default().status = Some(types::LoginStatus {
                    is_locked: true,
                    locked_message: "user has exceeded maximum failed login attempts".to_owned(),
                    locked_time: Some(time::timestamp(now)),
                    lock_expires: Some(time::timestamp(now + PERIOD)),
                });
                Ok(())
            })
            .await?;
        Ok(())
    }
}

/// Whether a failure is a wrong guess, and not trouble of this service.
fn counts(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::AccessDenied | ErrorKind::BadParameter | ErrorKind::NotFound)
}

fn is_locked(user: &types::UserV2, now: DateTime<Utc>) -> bool {
    let Some(status) = user.spec.as_ref().and_then(|spec| spec.status.as_ref()) else { return false };
    status.is_locked && time::moment(status.lock_expires.as_ref()).is_some_and(|expires| expires > now)
}

fn attempts_of(user: &str) -> Result<KeyRange> {
    Ok(store::key_at(&Place::new(places::USERS, [user, "attempts"]))?.children())
}
