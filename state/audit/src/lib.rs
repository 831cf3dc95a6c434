//! The audit log: what happened, who did it, and where that is written down.
//!
//! * [`codes`]: every kind of event this system causes, each a constant that ties name, code and message type
//!   together, so that an event cannot be built with the wrong one.
//! * [`event`]: the parts all events share (metadata, user, session, server…), and [`event::prepare`], which makes an
//!   event complete before it reaches a sink.
//! * [`json`]: events as single JSON objects, the form of the log, of search and of exports.
//! * [`Sink`]: where events go and are found again. [`FileLog`] keeps daily files, [`Lines`] writes to a stream such
//!   as standard output, [`PostgresLog`] keeps events in a database that several services share, [`Fanout`] feeds several sinks, [`Memory`] keeps events for the life of a process.
//! * [`chain`]: evidence about changed, removed or added lines of the daily files.
//! * [`Log`]: the one door the Auth Service emits through.
//! * [`Outbox`]: the way of a process elsewhere to the log, through [`Spool`], a durable queue on its own disk;
//!   [`RemoteLog`] is that way for members of the cluster.
//!
//! # Promises
//!
//! * An event is on disk before [`Sink::emit`] returns `Ok`; when it could not be stored, the emitter is told.
//! * A search started after an acknowledged emit finds the event.
//! * A page's key stays valid over restarts, and paging with it neither skips nor repeats an event.

pub mod chain;
pub mod codes;
pub mod event;
pub mod json;
pub mod origin;

mod clock;
mod error;
mod file;
mod log;
mod memory;
mod outbox;
mod postgres;
mod query;
mod remote;
mod sink;
mod spool;

pub use chain::{Anchor, Signer};
pub use clock::Clock;
pub use error::{Error, Result};
pub use event::{AuditEvent, EventExt};
pub use file::{FileLog, FileLogConfig};
pub use log::Log;
pub use memory::Memory;
pub use outbox::{Courier, Delivery, Outbox, Undelivered};
pub use postgres::{PostgresLog, PostgresLogOptions};
pub use query::{DEFAULT_LIMIT, Entry, Filter, MAX_LIMIT, MAX_PAGE_BYTES, Order, Page, Query, SESSION_END_EVENTS};
pub use remote::RemoteLog;
pub use sink::{Fanout, Lines, Sink};
pub use spool::Spool;
