//! The file server of a host.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use russh::ChannelMsg;
use tokio::time::timeout;

use super::session::{ENVIRONMENT_REQUEST, ssh_string, variables};
use super::{SshConnection, SshError};
use crate::sftp::{Sftp, SftpError};
use crate::text;

/// Name of the subsystem.
const SUBSYSTEM: &str = "sftp";
/// Most of what a host says about a refusal that is kept.
const LONGEST_REASON: usize = 4 << 10;

/// Request for a copy in a moderated session.
const TRANSFER_REQUEST: &str = "file-transfer@goteleport.com";
/// Variable with the id of that session.
const MODERATED_SESSION: &str = "TELEPORT_MODERATED_SESSION_ID";
/// How long those who watch a session may take to decide; the host gives up sooner.
const DECISION: Duration = Duration::from_secs(16 * 60);

/// A copy of one file that those who watch a session have to approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moderated {
    /// Id of the session; the user has to be in it.
    pub session: String,
    /// Whether the file comes from the host.
    pub download: bool,
    /// Its path there, or that of the folder that it comes into.
    pub location: String,
    /// Its name, if it comes to the host.
    pub filename: String,
}

impl Moderated {
    fn request(&self) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_u8(self.download.into());
        payload.extend_from_slice(&ssh_string(self.location.as_bytes()));
        payload.extend_from_slice(&ssh_string(self.filename.as_bytes()));
        payload.freeze()
    }
}

impl SshConnection {
    /// Opens the host's file server, which runs as the account that was logged in to. For a copy in a moderated session,
    /// waits until it is approved.
    ///
    /// # Errors
    /// [`SshError::Refused`] with what the host says, when it, the user's roles or moderators do not allow copies.
    pub async fn sftp(&self, moderated: Option<&Moderated>) -> Result<Sftp, SshError> {
        let limit = if moderated.is_some() { DECISION } else { tunnel::ssh::HANDSHAKE_TIMEOUT };
        let late = || SshError::Timeout { host: self.host.name.clone(), waited_for: "the file server" };
        let lost = |error: russh::Error| SshError::Lost { host: self.host.name.clone(), reason: error.to_string() };
        let opened = async {
            let mut channel = self.session().await?;
            let mut answers = 1;
            if let Some(moderated) = moderated {
                let variables = variables(&[(MODERATED_SESSION.to_owned(), moderated.session.clone())]);
                channel.request(ENVIRONMENT_REQUEST, false, variables).await.map_err(lost)?;
                channel.request(TRANSFER_REQUEST, true, moderated.request()).await.map_err(lost)?;
                answers += 1;
            }
            channel.request_subsystem(true, SUBSYSTEM).await.map_err(lost)?;
            let mut said = Vec::new();
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) if answers > 1 => answers -= 1,
                    Some(ChannelMsg::Failure) if answers > 1 => {
                        let _ = channel.close().await; // nothing more is wanted of it
                        return Err(self.refused(&said));
                    }
                    Some(ChannelMsg::Success) => return Ok((channel, said)),
                    Some(ChannelMsg::ExtendedData { data, .. } | ChannelMsg::Data { data }) => {
                        let room = LONGEST_REASON.saturating_sub(said.len());
                        said.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    // What is said about a refusal may follow it; the host closes the channel then.
                    Some(ChannelMsg::Close) | None => return Err(self.refused(&said)),
                    Some(_) => {}
                }
            }
        };
        let (channel, said) = timeout(limit, opened).await.map_err(|_| late())??;
        Sftp::start(channel.into_stream()).await.map_err(|error| match error {
            SftpError::Timeout => late(),
            // A server that gives up at once has said why before.
            SftpError::Lost if !said.is_empty() => self.refused(&said),
            error => SshError::Lost { host: self.host.name.clone(), reason: format!("file server: {error}") },
        })
    }

    fn refused(&self, said: &[u8]) -> SshError {
        let said = String::from_utf8_lossy(said);
        let reason = match said.trim() {
            "" => "it offers no file copies, or your roles do not allow them".to_owned(),
            said => text::lines(said).into_owned(),
        };
        SshError::Refused { host: self.host.name.clone(), reason }
    }
}
