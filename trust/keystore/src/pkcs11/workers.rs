//! The threads that call into the library, each with its own session.
//!
//! The queue in front of them is short: what would wait too long is refused at once. What nobody waits for any more when
//! its turn comes is not done. A thread that the library does not give back stays lost, and the others go on without it;
//! with all of them lost, every call fails after its time or at once, and nothing else does.
//!
//! What the others cannot do while a call hangs is to make the library ready anew, which it needs after something else in
//! this process has ended it: then nothing is signed until that call has come back, or the process is started again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::{Error as CallError, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use parking_lot::Mutex;

use super::link::{Link, Reason, close};
use crate::Error;

/// How many calls may wait for a thread.
const QUEUE: usize = 256;
/// How often something is tried while sessions turn out to be lost: another thread may be at opening them anew.
const ATTEMPTS: usize = 3;
/// How long the threads may take to leave the library.
const LEAVING: Duration = Duration::from_secs(2);

/// Where keys were found, by id; good for as long as the session.
pub(super) type Handles = HashMap<String, ObjectHandle>;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The threads. Whoever drops this waits for their end, because a process must not end while they are in the library.
pub(super) struct Workers {
    /// None when they are to end.
    jobs: Option<SyncSender<Job>>,
    /// Disconnected when the last of them has ended.
    ended: Mutex<Receiver<()>>,
    link: Arc<Link>,
}

/// One of the threads.
struct Worker {
    link: Arc<Link>,
    session: Option<Session>,
    /// See [`Link::beginning`].
    beginning: u64,
    handles: Handles,
}

impl Workers {
    /// Starts as many as the token has sessions for.
    pub(super) fn start(link: Arc<Link>) -> Result<Self, Error> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let (at_work, ended) = sync_channel(0);
        for number in 0..link.sessions() {
            let mut worker = Worker { link: Arc::clone(&link), session: None, beginning: 0, handles: Handles::new() };
            let (queue, at_work) = (Arc::clone(&queue), at_work.clone());
            let thread = thread::Builder::new().name(format!("pkcs11-{number}"));
            let started = thread.spawn(move || {
                while let Some(job) = next(&queue) {
                    job(&mut worker);
                }
                drop(worker);
                drop(at_work);
            });
            started.map_err(|error| Reason::Other(error.to_string()).at(link.place(), "starting a thread"))?;
        }
        Ok(Self { jobs: Some(jobs), ended: Mutex::new(ended), link })
    }

    /// Has one of the threads do something with its session, and waits for the result so long. What is done may be done
    /// again, when the session turns out to be lost.
    pub(super) fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl Fn(&Session, &mut Handles) -> Result<T, Reason> + Send + 'static,
    ) -> Result<T, Error> {
        let place = || self.link.place().to_owned();
        let (answer, answered) = sync_channel(1);
        let until = Instant::now() + limit;
        let job: Job = Box::new(move |worker| {
            if Instant::now() < until {
                // Whoever asked may be gone by the time.
                let _ = answer.send(worker.run(&work));
            }
        });
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => return Err(Error::Busy { place: place(), what }),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                return Err(Reason::Other("its threads have ended".to_owned()).at(self.link.place(), what));
            }
        }
        match answered.recv_timeout(limit) {
            Ok(done) => done.map_err(|reason| reason.at(self.link.place(), what)),
            Err(_) => Err(Error::Timeout { place: place(), what, limit }),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        // Nothing is ever sent; a library that hangs is left behind.
        let _ = self.ended.get_mut().recv_timeout(LEAVING);
    }
}

fn next(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().recv().ok()
}

impl Worker {
    /// Works with the session, and again with a new one when it turns out to be lost.
    fn run<T>(&mut self, work: &impl Fn(&Session, &mut Handles) -> Result<T, Reason>) -> Result<T, Reason> {
        for _ in 1..ATTEMPTS {
            match self.attempt(work) {
                Err(reason) if reason.is_lost() => {
                    tracing::warn!(place = self.link.place(), ?reason, "a session with the module is opened anew");
                }
                done => return done,
            }
        }
        self.attempt(work)
    }

    fn attempt<T>(&mut self, work: &impl Fn(&Session, &mut Handles) -> Result<T, Reason>) -> Result<T, Reason> {
        if self.session.is_none() || self.beginning != self.link.beginning() {
            self.handles.clear();
            self.session = None;
            let (session, beginning) = self.link.connect()?;
            (self.session, self.beginning) = (Some(session), beginning);
        }
        let _calling = self.link.calling();
        let known = self.session.take().filter(|_| self.beginning == self.link.beginning());
        let session = known.ok_or(CallError::Pkcs11(RvError::SessionClosed, Function::OpenSession))?;
        let done = work(&session, &mut self.handles);
        match &done {
            Err(reason) if reason.is_about_session() => {}
            Err(reason) if reason.is_lost() => close(session),
            _ => self.session = Some(session),
        }
        done
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _calling = self.link.calling();
        if let Some(session) = self.session.take().filter(|_| self.beginning == self.link.beginning()) {
            close(session);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::mpsc::channel;

    use super::super::token;
    use super::*;

    #[test]
    fn a_call_that_hangs_keeps_no_other_thread_from_its_first_session() {
        let test = "pkcs11::workers::tests::a_call_that_hangs_keeps_no_other_thread_from_its_first_session";
        let Some(library) = token::with_token(test) else { return };
        let settings = token::settings(&library, "keys", token::PIN);
        let link = Arc::new(Link::load(&settings, token::PIN).unwrap());
        let workers = Workers::start(link).unwrap();
        let ((hangs, hanging), (release, released)) = (channel(), channel::<()>());
        let released = Mutex::new(released);
        let limit = Duration::from_secs(5);
        thread::scope(|scope| {
            let hung = scope.spawn(|| {
                workers.call("hanging", limit * 4, move |_, _| {
                    hangs.send(()).unwrap();
                    released.lock().recv().unwrap_err();
                    Ok(())
                })
            });
            hanging.recv().unwrap();
            let others = (0..16).map(|_| workers.call("signing", limit, |_, _| Ok(())));
            let done: Result<Vec<()>, Error> = others.collect();
            drop(release);
            hung.join().unwrap().unwrap();
            done.unwrap();
        });
    }
}
