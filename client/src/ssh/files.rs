//! The file server of a host.

use russh::ChannelMsg;
use tokio::time::timeout;

use super::{SshConnection, SshError};
use crate::sftp::{Sftp, SftpError};
use crate::text;

/// Name of the subsystem.
const SUBSYSTEM: &str = "sftp";
/// Most of what a host says about a refusal that is kept.
const LONGEST_REASON: usize = 4 << 10;

impl SshConnection {
    /// Opens the host's file server, which runs as the account that was logged in to.
    ///
    /// # Errors
    /// [`SshError::Refused`] with what the host says, when it or the user's roles do not allow copies.
    pub async fn sftp(&self) -> Result<Sftp, SshError> {
        let late = || SshError::Timeout { host: self.host.name.clone(), waited_for: "the file server" };
        let lost = |error: russh::Error| SshError::Lost { host: self.host.name.clone(), reason: error.to_string() };
        let opened = async {
            let mut channel = self.session().await?;
            channel.request_subsystem(true, SUBSYSTEM).await.map_err(lost)?;
            let mut said = Vec::new();
            loop {
                match channel.wait().await {
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
        let (channel, said) = timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, opened).await.map_err(|_| late())??;
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
