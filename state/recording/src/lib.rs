//! Session recordings: how they are written, moved, kept and played.
//!
//! * [`format`]: a recording is a row of parts, each a compressed row of events. [`PartWriter`] makes parts,
//!   [`StreamReader`] reads them from any source, [`EventStream`] does so for async callers.
//! * [`SessionWriter`]: records a running session on the disk of the agent. [`Uploads`] is the folder it writes to.
//! * [`Uploader`]: carries finished recordings from that folder to an [`UploadTarget`], follows running ones when
//!   asked to, and completes what a crash has left.
//! * [`Store`]: where the Auth Service keeps recordings; [`DiskStore`] keeps them in files. [`receive()`] is the
//!   service's end of an upload.
//! * [`play`]: timing and text forms of a recording.
//!
//! # Promises
//!
//! * A killed process loses at most the last second of a session ([`FLUSH_DELAY`]); a crash of the machine may also
//!   lose what the kernel had not yet written of a session that was still running.
//! * The agent deletes its copy only after the Auth Service has completed the recording durably.
//! * A finished recording is never overwritten by another one, only by a longer version of itself.
//! * Readers take bytes from strangers: whatever they contain, memory stays flat and the answer is an error.

pub mod format;
pub mod play;

mod compress;
mod disk;
mod error;
mod id;
mod part;
mod part_file;
mod reader;
mod receive;
mod session;
mod store;
mod stream;
mod summary;
mod uploader;
mod uploads;

pub use disk::DiskStore;
pub use error::{Error, FormatError, Result};
pub use id::{SessionId, UploadId};
pub use part::PartWriter;
pub use reader::StreamReader;
pub use receive::receive;
pub use session::{FLUSH_DELAY, SessionInfo, SessionWriter, Stamper};
pub use store::{Recording, Store, Unfinished, Upload, upload_event};
pub use stream::EventStream;
pub use summary::{Summary, summarize};
pub use uploader::{StatusStream, UploadTarget, Uploader, UploaderConfig};
pub use uploads::Uploads;
