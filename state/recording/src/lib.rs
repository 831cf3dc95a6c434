//! Session recordings: how they are written, moved, kept and played.
//!
//! * [`format`]: a recording is a row of parts, each a compressed row of events. [`PartWriter`] makes parts,
//!   [`StreamReader`] reads them from any source, [`EventStream`] does so for async callers.
//! * [`SessionWriter`]: records a running session on the disk of the agent. [`Uploads`] is the folder it writes to.
//! * [`Uploader`]: carries finished recordings from that folder to an [`UploadTarget`], follows running ones when
//!   asked to, and completes what a crash has left.
//! * [`Store`]: where the Auth Service keeps recordings; [`DiskStore`] keeps them in files, [`ObjectRecordings`] in an
//!   object store. [`receive()`] is the
//!   service's end of an upload.
//! * [`Keyring`]: the keys of a cluster that keeps its recordings sealed.
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
mod live;
mod objects;
mod part;
mod part_file;
mod reader;
mod receive;
mod seal;
mod session;
mod store;
mod stream;
mod summary;
mod tail;
mod uploader;
mod uploads;

pub use disk::DiskStore;
pub use error::{Error, FormatError, Result};
pub use id::{SessionId, UploadId};
pub use objects::{LocationError, ObjectLocation, ObjectRecordings};
pub use part::PartWriter;
pub use reader::StreamReader;
pub use receive::receive;
pub use seal::{Keyring, Seal, SealingKey};
pub use session::{FLUSH_DELAY, SessionInfo, SessionWriter, Stamper};
pub use store::{Recording, Store, Unfinished, Upload, upload_event};
pub use stream::EventStream;
pub use summary::{Summary, summarize};
pub use uploader::{StatusStream, ToAuth, UploadTarget, Uploader, UploaderConfig};
pub use uploads::Uploads;
