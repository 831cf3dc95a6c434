//! What is done to files in one conversation, on its way to the audit log.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::copies::{Copies, Done};

/// A conversation whose operations are told, each once and in their order.
pub(super) struct Operations {
    copies: Arc<Mutex<Copies>>,
    /// Where they are told.
    tasks: TaskTracker,
}

impl Operations {
    /// A conversation that begins.
    pub(super) fn new(tasks: &TaskTracker) -> Self {
        Self { copies: Arc::default(), tasks: tasks.clone() }
    }

    /// Takes what `read` finds out of the conversation, and has it told with the account's home folder. What was taken is told
    /// even if nobody waits for that any more, because the session has ended.
    pub(super) async fn tell<F>(
        &self,
        read: impl FnOnce(&mut Copies) -> Vec<Done>,
        tell: impl Fn(Done, String) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        // Held until all is told: what is taken later is told later.
        let mut copies = self.copies.clone().lock_owned().await;
        let done = read(&mut copies);
        if done.is_empty() {
            return;
        }
        let telling = self.tasks.spawn(async move {
            for done in done {
                tell(done, copies.home()).await;
            }
        });
        let _ = telling.await; // fails only when the process ends
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    fn named(paths: &[&str]) -> Vec<Done> {
        paths.iter().map(|path| Done { path: (*path).to_owned(), ..Done::default() }).collect()
    }

    #[tokio::test]
    async fn what_was_taken_is_told_in_its_order_although_the_session_ends_meanwhile() {
        let tasks = TaskTracker::new();
        let operations = Arc::new(Operations::new(&tasks));
        let (log, mut events) = mpsc::unbounded_channel();
        let disk = Arc::new(Semaphore::new(1));
        let tell = {
            let disk = disk.clone();
            move |done: Done, _: String| {
                let (disk, log) = (disk.clone(), log.clone());
                async move {
                    disk.acquire().await.unwrap().forget();
                    log.send(done.path).unwrap();
                }
            }
        };
        let (first, told) = (operations.clone(), tell.clone());
        let session = tokio::spawn(async move { first.tell(|_| named(&["a", "b", "c"]), told).await });
        assert_eq!(events.recv().await.unwrap(), "a");
        session.abort();
        assert!(session.await.unwrap_err().is_cancelled());
        let (last, told) = (operations.clone(), tell);
        let rest = tokio::spawn(async move { last.tell(|_| named(&["d"]), told).await });
        tokio::task::yield_now().await;
        disk.add_permits(3);
        rest.await.unwrap();
        let mut paths = Vec::new();
        while let Ok(path) = events.try_recv() {
            paths.push(path);
        }
        assert_eq!(paths, ["b", "c", "d"]);
    }
}
