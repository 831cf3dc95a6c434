//! Copying files: the SFTP subsystem, and commands of the old `scp` protocol.

use std::sync::Arc;

use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tracing::{debug, warn};
use uuid::Uuid;

use super::exec::{Errors, relay};
use super::{Inbox, Prepared, Refusal, finish, transfers};
use crate::connection::Connection;
use crate::os::process::{Streams, start_worker};
use crate::worker::Kind;
use crate::worker::sftp::Performed;

/// The longest line a worker reports; a path has at most 4 KiB, and its text may be six times as long.
const MAX_LINE: u64 = 64 * 1024;

/// Why files may not be copied; `None` when they may.
pub(super) fn forbidden(connection: &Connection) -> Option<&'static str> {
    if !connection.node.features.borrow().file_copy {
        return Some("node does not allow file copying via SCP or SFTP");
    }
    if !connection.access.permit.options.ssh_file_copy {
        return Some("file copying via SCP or SFTP is not permitted: a role of the user sets options.ssh_file_copy");
    }
    None
}

/// Serves the SFTP subsystem until the client ends it.
pub(super) async fn sftp(
    inbox: &mut Inbox,
    write: &ChannelWriteHalf<Msg>,
    connection: Arc<Connection>,
    prepared: &Prepared,
) -> Result<(), Refusal> {
    let session = Uuid::new_v4().to_string();
    let allowed = match forbidden(&connection) {
        Some(reason) => Err(Refusal::failed(reason)),
        None => transfers::allowed(inbox, &connection, &prepared.environment).await,
    };
    let only = match allowed {
        Ok(only) => only,
        Err(refusal) => {
            connection.audit.sftp_refused(&connection, &session, &refusal.message).await;
            // OpenSSH's programs show what the accepted subsystem says, and of a refused one nothing; others the reverse.
            let message = refusal.message;
            return Err(if connection.is_openssh { Refusal::failed(message) } else { Refusal::new(message) });
        }
    };
    let account = connection.account().await?;
    let worker = &connection.node.config.worker;
    let started = start_worker(&account, worker, &Kind::Sftp(only), Streams::Pipes, connection.gate().as_ref());
    let mut child = started.map_err(Refusal::not_launched)?;
    connection.let_in(inbox, &child).await.map_err(Refusal::not_launched)?;
    let _ = write.reply(true).await;
    let home = account.home.display().to_string();
    let reports = child.stderr.take().map(|reports| tell(reports, connection.clone(), session, home));
    let reports = reports.map(|work| connection.node.tasks.spawn(work));
    let ended = relay(inbox, write, &connection, &mut child, Errors::Elsewhere).await;
    if let Some(reports) = reports {
        let _ = reports.await; // what was done is told before the end is
    }
    finish(write, &connection, write.id(), ended).await;
    Ok(())
}

/// Passes a worker's reports on to the audit log.
async fn tell(reports: pipe::Receiver, connection: Arc<Connection>, session: String, home: String) {
    let mut reports = BufReader::new(reports);
    while let Some(line) = next_line(&mut reports).await {
        match serde_json::from_slice::<Performed>(&line) {
            Ok(performed) => connection.audit.sftp(&connection, &session, &home, performed).await,
            Err(_) => debug!(text = %String::from_utf8_lossy(&line), "worker"),
        }
    }
}

/// The next line of at most [`MAX_LINE`] bytes; longer ones are passed over. `None` at the end.
async fn next_line(reports: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut too_long = false;
    loop {
        let mut line = Vec::new();
        let read = (&mut *reports).take(MAX_LINE + 1).read_until(b'\n', &mut line).await.ok()?;
        if read == 0 {
            return None;
        }
        let whole = line.ends_with(b"\n") || read as u64 <= MAX_LINE;
        match (too_long, whole) {
            (false, true) => return Some(line),
            (true, true) => too_long = false, // the last piece of it
            (false, false) => {
                warn!("report of a file operation is too long for the audit log");
                too_long = true;
            }
            (true, false) => {}
        }
    }
}

/// The end of a copy that a command line serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scp {
    /// Whether files come to this host.
    pub upload: bool,
    /// The last argument.
    pub path: String,
}

impl Scp {
    /// What a command line asks for, if it is one of `scp` at the remote end.
    pub fn parse(line: &str) -> Option<Self> {
        let words = words(line);
        let (program, arguments) = words.split_first()?;
        if program.rsplit('/').next() != Some("scp") {
            return None;
        }
        let mut direction = None;
        for argument in arguments.iter().take_while(|a| *a != "--").filter(|a| a.starts_with('-')) {
            for letter in argument.chars() {
                match letter {
                    't' => direction = Some(true),
                    'f' => direction = direction.or(Some(false)),
                    _ => {}
                }
            }
        }
        let path = arguments.last().cloned().unwrap_or_default();
        direction.map(|upload| Self { upload, path })
    }
}

/// The words of a command line, without the quotes of a shell. What a shell would expand stays as it is.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if letter == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_that_are_too_long_are_passed_over() {
        let most = MAX_LINE as usize;
        let lines = [vec![b'a'; most - 1], vec![b'b'; 5 * most], vec![b'c'; most + 1], b"d".to_vec()];
        let text = lines.join(&b'\n');
        let mut reports = text.as_slice();
        assert_eq!(next_line(&mut reports).await.map(|line| line.len()), Some(most));
        assert_eq!(next_line(&mut reports).await.as_deref(), Some(b"d".as_slice()));
        assert_eq!(next_line(&mut reports).await, None);
    }

    #[test]
    fn remote_ends_of_scp_are_told_from_other_commands() {
        let scp = |upload, path: &str| Some(Scp { upload, path: path.to_owned() });
        assert_eq!(Scp::parse("scp -t /tmp/x"), scp(true, "/tmp/x"));
        assert_eq!(Scp::parse("scp -r -p -f 'a b'"), scp(false, "a b"));
        assert_eq!(Scp::parse("/usr/bin/scp -rpt -- -odd"), scp(true, "-odd"));
        assert_eq!(Scp::parse("scp a b"), None);
        assert_eq!(Scp::parse("scpx -t a"), None);
        assert_eq!(Scp::parse(""), None);
    }

    #[test]
    fn quotes_of_a_shell_are_taken_off() {
        assert_eq!(words(r#"a 'b c' "d\"e" f\ g ''"#), ["a", "b c", "d\"e", "f g", ""]);
    }
}
