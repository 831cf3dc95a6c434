//! Joining a session that runs.

use std::fmt;
use std::str::FromStr;

use wire::types::SessionTrackerV1;

use super::session::{Exit, Run, SessionRequest, Streams, Typing, environment, run};
use super::{Host, SshConnection};
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::login::Ask;
use crate::sessions;

/// The login with which sessions are joined, whatever account they run as.
const JOIN_LOGIN: &str = "-teleport-internal-join";

/// What a participant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Watch.
    Observer,
    /// Watch, and end the session.
    Moderator,
    /// Type as well.
    Peer,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "observer" => Ok(Self::Observer),
            "moderator" => Ok(Self::Moderator),
            "peer" => Ok(Self::Peer),
            _ => Err(Error::other(format!("{text:?} is no mode of joining: expected observer, moderator or peer"))),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observer => "observer",
            Self::Moderator => "moderator",
            Self::Peer => "peer",
        })
    }
}

/// Joins a session and stays until it ends or the user leaves. `terminal` says whether there is a terminal to show
/// it on.
pub async fn join(
    client: &ClusterClient,
    session: &str,
    mode: Mode,
    terminal: bool,
    ask: &mut impl Ask,
) -> Result<Exit> {
    let tracker = sessions::tracker(client, session).await?;
    let host = host_of(&tracker)?;
    let connection = SshConnection::open(client, &host, JOIN_LOGIN, ask).await?;
    let mut variables = environment(&client.account().profile.web_proxy_addr, session);
    variables.push(("TELEPORT_SSH_JOIN_MODE".to_owned(), mode.to_string()));
    let typing = match mode {
        Mode::Peer => Typing::Free { escapes: true },
        Mode::Observer => Typing::Observer,
        Mode::Moderator => Typing::Moderator,
    };
    let request = SessionRequest { run: Run::Shell, terminal, environment: variables, typing, agent: None, x11: None };
    let exit = run(&connection, &request, Streams::standard()).await;
    connection.close().await;
    exit
}

fn host_of(tracker: &SessionTrackerV1) -> Result<Host> {
    let spec = tracker.spec.as_ref().ok_or_else(|| Error::other("the cluster said nothing about the session"))?;
    if spec.kind != "ssh" {
        return Err(Error::other(format!("joining a session of kind {:?} is not part of this build yet", spec.kind)));
    }
    Ok(Host { address: spec.address.clone(), port: 0, name: spec.hostname.clone() })
}
