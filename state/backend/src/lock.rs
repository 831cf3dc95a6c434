//! Locks held through the backend, so that several processes on one database take turns.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{Backend, BackendError, Item, Key, Result};

const LOCKS: Key = Key::root(".locks");

/// How often a taken lock is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How long a lock is waited for and how long it outlives its holder.
#[derive(Clone, Copy, Debug)]
pub struct LockOptions {
    /// How long the lock stays taken when its holder dies. The holder renews it at half of this.
    pub ttl: Duration,
    /// How long to wait for it.
    pub wait: Duration,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), wait: Duration::from_secs(30) }
    }
}

/// A lock that is held and renewed until it is released. A dropped lock stays taken until its time is over.
#[derive(Debug)]
pub struct Lock {
    held: Held,
    renewal: JoinHandle<()>,
    lost: watch::Receiver<bool>,
}

impl Lock {
    /// Takes the lock `name`.
    ///
    /// # Errors
    /// `ConnectionProblem` when another holder keeps it longer than [`LockOptions::wait`].
    pub async fn acquire(backend: Arc<dyn Backend>, name: &str, options: LockOptions) -> Result<Self> {
        let held = Held { key: LOCKS.child(name)?, id: Uuid::new_v4(), ttl: options.ttl, backend };
        let deadline = Instant::now() + options.wait;
        loop {
            match held.backend.create(held.item()).await {
                Ok(_) => break,
                Err(error) if !error.is_already_exists() => return Err(error),
                Err(_) if Instant::now() + RETRY > deadline => {
                    return Err(BackendError::ConnectionProblem(format!(
                        "lock {name:?} was not released within {:?}",
                        options.wait
                    )));
                }
                Err(_) => sleep(RETRY).await,
            }
        }
        let (lost, watch) = watch::channel(false);
        let renewal = tokio::spawn({
            let held = held.clone();
            async move {
                held.renew().await;
                lost.send_replace(true);
            }
        });
        Ok(Self { held, renewal, lost: watch })
    }

    /// Waits until the lock is lost, because it could not be renewed or was taken away.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that the renewal is gone, and the lock with it.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Gives the lock to the next one.
    ///
    /// # Errors
    /// `CompareFailed` when it was lost before.
    pub async fn release(self) -> Result<()> {
        self.renewal.abort();
        self.held.release().await
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

#[derive(Clone)]
struct Held {
    backend: Arc<dyn Backend>,
    key: Key,
    id: Uuid,
    ttl: Duration,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Held {
    fn item(&self) -> Item {
        Item::new(self.key.clone(), self.id.as_bytes().to_vec()).with_expires(self.backend.now() + self.ttl)
    }

    /// Pushes the expiry ahead until that fails.
    async fn renew(&self) {
        loop {
            sleep(self.ttl / 2).await;
            let item = self.item();
            if let Err(error) = self.backend.compare_and_swap(&item.clone(), item).await {
                tracing::warn!(lock = %self.key, %error, "lock could not be renewed");
                return;
            }
        }
    }

    async fn release(&self) -> Result<()> {
        loop {
            let item = match self.backend.get(&self.key).await {
                Ok(item) if item.value == self.id.as_bytes().as_slice() => item,
                Ok(_) => return Err(BackendError::CompareFailed { key: self.key.to_string() }),
                Err(error) if error.is_not_found() => {
                    return Err(BackendError::CompareFailed { key: self.key.to_string() });
                }
                Err(error) => return Err(error),
            };
            match self.backend.conditional_delete(&self.key, &item.revision).await {
                // A renewal that was under way when it was ended. There is no other after it.
                Err(BackendError::IncorrectRevision { .. }) => {}
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::Memory;

    #[tokio::test(start_paused = true)]
    async fn a_lock_has_one_holder_at_a_time() {
        let backend: Arc<dyn Backend> = Arc::new(Memory::new());
        let options = LockOptions { ttl: Duration::from_secs(60), wait: Duration::from_secs(5) };
        let first = Lock::acquire(Arc::clone(&backend), "ca", options).await.unwrap();
        let refused = Lock::acquire(Arc::clone(&backend), "ca", options).await.unwrap_err();
        assert!(refused.to_string().contains("was not released"), "{refused}");
        first.release().await.unwrap();
        let second = Lock::acquire(Arc::clone(&backend), "ca", options).await.unwrap();
        second.release().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_whose_lock_was_taken_away_learns_of_it() {
        let backend: Arc<dyn Backend> = Arc::new(Memory::new());
        let lock = Lock::acquire(Arc::clone(&backend), "ca", LockOptions::default()).await.unwrap();
        backend.put(Item::new(LOCKS.child("ca").unwrap(), "another")).await.unwrap();
        lock.lost().await;
        assert!(lock.release().await.unwrap_err().is_compare_failed());
    }
}
