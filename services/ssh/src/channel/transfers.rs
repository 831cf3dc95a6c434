//! Files that are copied beside a moderated session: asking for a copy, deciding about one, and beginning it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Inbox, Refusal};
use crate::connection::Connection;
use crate::os::environment::ClientEnvironment;
use crate::session::{By, Command, Copier, SessionHandle, TransferRequest};
use crate::worker::sftp::Only;

/// Request for a copy: a flag (from the host), the path there, and the name of a file that comes to it.
pub(super) const REQUEST: &str = "file-transfer@goteleport.com";
/// Approval or denial: the request's id, and a flag.
pub(super) const DECISION: &str = "file-transfer-decision@goteleport.com";
/// Environment entry in which a client names the session that a copy belongs to.
const MODERATED_SESSION: &str = "TELEPORT_MODERATED_SESSION_ID";
/// How long a session may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a copy waits to be approved.
const APPROVAL: Duration = Duration::from_secs(15 * 60);

/// Reads the payload of [`REQUEST`].
pub(super) fn wanted(data: &[u8]) -> Option<TransferRequest> {
    let (download, rest) = data.split_first()?;
    let (location, rest) = text(rest)?;
    let (filename, rest) = text(rest)?;
    rest.is_empty().then_some(TransferRequest { download: *download != 0, location, filename })
}

/// Reads the payload of [`DECISION`].
pub(super) fn decided(data: &[u8]) -> Option<(String, bool)> {
    let (id, rest) = text(data)?;
    let (approved, rest) = rest.split_first()?;
    rest.is_empty().then_some((id, *approved != 0))
}

/// An RFC 4251 §5 string that is text, from the front of `data`.
fn text(data: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

/// Asks for a copy in the session that the client named, before the copy itself and on the same channel.
pub(super) async fn want(connection: &Connection, environment: &ClientEnvironment, data: &[u8]) -> Result<(), String> {
    let request = wanted(data).ok_or("malformed file transfer request")?;
    let session = session(connection, environment)?;
    let (answer, answered) = oneshot::channel();
    let by = By::User(connection.access.local_name.clone());
    let asked = async {
        session.commands.send(Command::WantTransfer { by, request, answer: Some(answer) }).await.ok()?;
        answered.await.ok()
    };
    timeout(ANSWER, asked).await.ok().flatten().unwrap_or_else(|| Err("the session does not answer".to_owned()))
}

/// Decides whether files may be copied with nobody watching: freely, or one that others approved.
pub(super) async fn allowed(
    inbox: &mut Inbox,
    connection: &Connection,
    environment: &ClientEnvironment,
) -> Result<Option<Only>, Refusal> {
    let Err(refusal) = connection.unattended_allowed() else { return Ok(None) };
    let named = environment.get(MODERATED_SESSION).is_some_and(|id| !id.is_empty());
    let Some(rules) = connection.access.moderation(false).filter(|_| named) else { return Err(refusal) };
    let session = session(connection, environment).map_err(Refusal::failed)?;
    let (answer, answered) = oneshot::channel();
    let command = Command::UseTransfer(Copier { user: connection.access.local_name.clone(), rules, answer });
    let approval = async {
        session.commands.send(command).await.ok()?;
        answered.await.ok()
    };
    match inbox.meanwhile(connection, timeout(APPROVAL, approval)).await.map_err(Refusal::failed)? {
        Ok(Some(Ok(only))) => Ok(Some(only)),
        Ok(Some(Err(reason))) => Err(Refusal::failed(reason)),
        Ok(None) => Err(Refusal::failed("the moderated session has ended")),
        Err(_) => Err(Refusal::failed("nobody approved the file transfer within 15 minutes")),
    }
}

/// The session that a client names.
fn session(connection: &Connection, environment: &ClientEnvironment) -> Result<SessionHandle, String> {
    let id = environment.get(MODERATED_SESSION).unwrap_or_default();
    let found = connection.node.sessions.find(id);
    let session = found.ok_or_else(|| format!("moderated session {id:?} does not run on this host"))?;
    check(&session, &connection.access.local_name, &connection.access.login)?;
    Ok(session)
}

/// Sees to it that a session is this user's own and runs as this account: it is by its rules that others approve.
fn check(session: &SessionHandle, user: &str, login: &str) -> Result<(), String> {
    let SessionHandle { id, owner, login: account, .. } = session;
    if **owner != *user {
        return Err(format!("moderated session {id} is not yours: only its owner can copy files by it"));
    }
    if **account != *login {
        return Err(format!("moderated session {id} runs as {account}, not as {login}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::os::pty::TerminalSize;

    #[test]
    fn copies_are_approved_in_a_session_of_ones_own_at_the_same_account() {
        let session = SessionHandle {
            id: "the-id".into(),
            connection: 0,
            login: "dev".into(),
            owner: "alice".into(),
            policies: [].into(),
            commands: mpsc::channel(1).0,
            typed: mpsc::channel(1).0,
            size: watch::channel(TerminalSize { columns: 80, rows: 24 }).1,
        };
        assert_eq!(check(&session, "alice", "dev"), Ok(()));
        assert!(check(&session, "mallory", "dev").unwrap_err().contains("is not yours"));
        assert!(check(&session, "alice", "root").unwrap_err().contains("runs as dev, not as root"));
    }

    #[test]
    fn requests_are_read_whole_or_not_at_all() {
        let request = b"\x01\0\0\0\x02~/\0\0\0\x01a";
        let expected = TransferRequest { download: true, location: "~/".into(), filename: "a".into() };
        assert_eq!(wanted(request).unwrap(), expected);
        assert_eq!(decided(b"\0\0\0\x02id\0").unwrap(), ("id".to_owned(), false));
        for length in 0..request.len() {
            assert!(wanted(&request[..length]).is_none());
        }
        assert!(wanted(b"\x01\0\0\0\0\0\0\0\0x").is_none() && decided(b"\0\0\0\x02id\0x").is_none());
        assert!(decided(b"\0\0\0\x02\xff\xff\0").is_none() && wanted(b"\x01\xff\xff\xff\xff").is_none());
    }
}
