//! Global requests of a client that take their time.

use std::fmt;
use std::pin::Pin;

use russh::GlobalRequestReply;
use russh::server::LaterAnswer;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Requests of one client that may wait.
const MOST_WAITING: usize = 256;

/// What one client asks of its connection as a whole: done in a task, one after the other, while everything else of the
/// connection goes on. Answers keep the order of the requests, RFC 4254 §4.
#[derive(Default)]
pub struct InOrder(Option<mpsc::Sender<Work>>);

type Work = (Pin<Box<dyn Future<Output = GlobalRequestReply> + Send>>, LaterAnswer);

impl InOrder {
    /// Has something done, which ends by itself, and answered then. Of too many at once the last are refused.
    pub fn put(
        &mut self,
        tasks: &TaskTracker,
        work: impl Future<Output = GlobalRequestReply> + Send + 'static,
        answer: LaterAnswer,
    ) {
        let queue = self.0.get_or_insert_with(|| {
            let (sender, waiting) = mpsc::channel(MOST_WAITING);
            tasks.spawn(run(waiting));
            sender
        });
        let _ = queue.try_send((Box::pin(work), answer)); // an answer that is dropped is a refusal
    }
}

async fn run(mut waiting: mpsc::Receiver<Work>) {
    while let Some((work, answer)) = waiting.recv().await {
        answer.send(work.await);
    }
}

impl fmt::Debug for InOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrder").finish_non_exhaustive()
    }
}
