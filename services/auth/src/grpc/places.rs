//! Places for what lasts long and holds something: so many at all, and so many of one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts what is in progress, at all and of each.
pub struct Places {
    all: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place; free again when dropped.
pub struct Place {
    of: String,
    taken: Arc<Mutex<HashMap<String, usize>>>,
    _one: OwnedSemaphorePermit,
}

impl Places {
    /// So many at all.
    pub fn new(most: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), taken: Arc::default() }
    }

    /// A place for `of`, which may have `most`, so that none takes the places of all; `None` when there is none.
    pub fn take(&self, of: &str, most: usize) -> Option<Place> {
        let one = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut taken = self.taken.lock();
        let count = taken.entry(of.to_owned()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { of: of.to_owned(), taken: Arc::clone(&self.taken), _one: one })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nobody_takes_the_places_of_all_and_each_gets_its_own_back() {
        let places = Places::new(4);
        let held: Vec<_> = (0..3).map(|_| places.take("greedy", 3).unwrap()).collect();
        assert!(places.take("greedy", 3).is_none());
        let modest = places.take("modest", 3).unwrap();
        assert!(places.take("late", 3).is_none());
        drop(held);
        drop(places.take("greedy", 3).unwrap());
        drop(modest);
        assert!(places.taken.lock().is_empty());
    }
}
