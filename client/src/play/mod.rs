//! Playing recordings, from the cluster or from a file.

mod player;
mod search;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use audit::EventExt;
use recording::EventStream;
use recording::play::{Export, ExportFormat};
use uuid::Uuid;
use wire::events::OneOf;
use wire::proto::StreamSessionEventsRequest;

use crate::cluster::ClusterClient;
use crate::error::{Error, Result};

pub use player::play;
pub use recording::play::{Pace, Speed};
pub use search::{Finder, Hit};

/// A recording to play.
pub enum Recording {
    /// One that the cluster keeps.
    Session {
        /// Connections to the cluster.
        client: Box<ClusterClient>,
        /// Id of the session.
        id: Uuid,
    },
    /// One in a file.
    File(PathBuf),
}

/// The events of a recording, from the first one.
pub enum Events {
    /// From the cluster.
    Session(Box<tonic::Streaming<OneOf>>),
    /// From a file.
    File(Box<EventStream>, PathBuf),
}

/// The forms in which a recording can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// JSON: an array, or one object a line for a file.
    Json,
    /// YAML documents.
    Yaml,
    /// What the terminal showed.
    Text,
    /// An asciicast, for asciinema and its players.
    Asciicast,
}

impl Recording {
    /// The file that an argument of a command line names, if it names one rather than a session.
    pub fn file(argument: &str) -> Option<Self> {
        argument.ends_with(".tar").then(|| Self::File(PathBuf::from(argument)))
    }

    /// A session's recording.
    pub fn session(client: ClusterClient, id: &str) -> Result<Self> {
        let id = id.parse().map_err(|_| Error::other(format!("{id:?} is neither a session id nor a .tar file")))?;
        Ok(Self::Session { client: Box::new(client), id })
    }

    /// Begins to read.
    pub async fn open(&self) -> Result<Events> {
        match self {
            Self::Session { client, id } => {
                let request = StreamSessionEventsRequest { session_id: id.to_string(), start_index: 0 };
                let stream = client.auth().stream_session_events(request).await?.into_inner();
                Ok(Events::Session(Box::new(stream)))
            }
            Self::File(path) => {
                let file = File::open(path).map_err(Error::io(format!("opening {}", path.display())))?;
                let stream = EventStream::from_file(file).map_err(|error| unreadable(path, &error))?;
                Ok(Events::File(Box::new(stream), path.clone()))
            }
        }
    }
}

impl Events {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<OneOf>> {
        match self {
            Self::Session(stream) => Ok(stream.message().await?),
            Self::File(stream, path) => stream.next().await.map_err(|error| unreadable(path, &error)),
        }
    }
}

/// Writes a recording as text.
pub async fn export(recording: &Recording, form: TextForm, out: impl Write) -> Result<()> {
    let mut events = recording.open().await?;
    // Nothing is written of a recording that is not there.
    let mut next = first(&mut events).await?;
    let form = match (form, recording) {
        (TextForm::Json, Recording::Session { .. }) => ExportFormat::Json,
        (TextForm::Json, Recording::File(_)) => ExportFormat::JsonLines,
        (TextForm::Yaml, _) => ExportFormat::Yaml,
        (TextForm::Text, _) => ExportFormat::Text,
        (TextForm::Asciicast, _) => ExportFormat::Asciicast,
    };
    let mut export = Export::new(out, form);
    while let Some(event) = next {
        export.event(&event).map_err(Error::io("writing the recording"))?;
        next = events.next().await?;
    }
    export.finish().map_err(Error::io("writing the recording"))?;
    Ok(())
}

/// The first event of a recording that can be played.
async fn first(events: &mut Events) -> Result<Option<OneOf>> {
    let event = events.next().await?;
    if event.as_ref().is_some_and(|event| event.name().starts_with("windows.desktop.")) {
        return Err(Error::other("recordings of desktops are played in the browser"));
    }
    Ok(event)
}

fn unreadable(path: &Path, error: &recording::Error) -> Error {
    Error::other(format!("{}: {error}", path.display()))
}
