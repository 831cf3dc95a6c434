use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::DialError;

/// The end of one dial, shared by all of its steps, so that the error can say which one it was waiting for.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    target: String,
    total: Duration,
    end: Instant,
}

impl Deadline {
    pub(crate) fn new(target: &impl Display, total: Duration) -> Self {
        Self { target: target.to_string(), total, end: Instant::now() + total }
    }

    /// Waits for one step.
    pub(crate) async fn wait<T>(&self, step: String, work: impl Future<Output = T>) -> Result<T, DialError> {
        timeout_at(self.end, work).await.map_err(|_| DialError::Timeout {
            target: self.target.clone(),
            waited_for: step,
            after: self.total,
        })
    }
}
