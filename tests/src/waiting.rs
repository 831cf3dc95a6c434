//! Waiting for a condition, with a limit.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until `probe` succeeds; fails the test with the last reason after `limit`.
#[track_caller]
pub fn wait_for<T, E: Display>(what: &str, limit: Duration, probe: impl FnMut() -> Result<T, E>) -> T {
    match try_for(limit, probe) {
        Ok(value) => value,
        Err(last) => panic!("waited {limit:?} for {what}; last: {last}"),
    }
}

/// Looks again and again until `probe` succeeds, and gives up with the last reason after `limit`.
pub fn try_for<T, E>(limit: Duration, mut probe: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => return Err(reason),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
