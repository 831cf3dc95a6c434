//! Graphical programs on the client's display: X11.
//!
//! The client sends a cookie made for the occasion, which is put into the login's authority file; what programs say
//! to the display is checked and completed by the client, so the node never learns the display's own cookie.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::{copy, incoming, unix_listener};
use crate::connection::{Connection, JOIN_LOGIN};
use crate::os::account::Account;
use crate::os::environment;
use crate::os::process::{Ended, Program, Running, Streams, start};
use crate::worker::protocol::Operation;

/// How long `xauth` may take.
const XAUTH: Duration = Duration::from_secs(10);
/// The most that is told of what `xauth` says.
const MAX_SAID: u64 = 1024;
/// The longest protocol name and cookie taken.
const MAX_COOKIE: usize = 256;

/// What a client asks for, RFC 4254 §6.3.1.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DisplayRequest {
    /// Whether one connection is all.
    pub single: bool,
    /// Name of the protocol, such as `MIT-MAGIC-COOKIE-1`.
    pub protocol: String,
    /// The cookie, in hexadecimal.
    pub cookie: String,
    /// Number of the screen.
    pub screen: u32,
}

/// A display that programs of a session can use. It is closed when this is dropped.
pub(crate) struct Display {
    /// Value of the variable `DISPLAY`.
    pub name: String,
    _end: DropGuard,
}

impl Connection {
    /// Makes a display for a session.
    ///
    /// # Errors
    /// In words, when the node or the roles do not allow it, or `xauth` is missing.
    pub async fn make_display(self: &Arc<Self>, request: DisplayRequest) -> Result<Display, String> {
        let made = self.try_make_display(request).await;
        self.audit.display(self, made.as_ref().err().map(String::as_str)).await;
        made
    }

    async fn try_make_display(self: &Arc<Self>, request: DisplayRequest) -> Result<Display, String> {
        if self.access.login == JOIN_LOGIN {
            return Err("attempted x11-req request in join-only mode".into());
        }
        let (first, last) = self.node.features.borrow().displays.ok_or("X11 forwarding is not enabled")?;
        if !self.access.permit.options.x11_forwarding {
            return Err("x11 forwarding not permitted: no role of the user has options.permit_x11_forwarding".into());
        }
        if !is_plain(&request.protocol, |c| c.is_ascii_alphanumeric() || c == '-')
            || !is_plain(&request.cookie, |c| c.is_ascii_hexdigit())
        {
            return Err("x11 forwarding: malformed cookie".into());
        }
        let account = self.account().await.map_err(|refusal| refusal.message)?;
        let (answer, mut listeners) = self.open_as_user(Operation::ListenDisplay { first, last }).await?;
        let abstract_listener = (listeners.len() > 1).then(|| listeners.remove(1));
        let number = answer.display;
        let add = format!("remove :{number}\nadd :{number} {} {}\n", request.protocol, request.cookie);
        if let Err(problem) = xauth(&account, add).await {
            let _ = self.open_as_user(Operation::Remove { path: answer.path }).await; // ends with the worker
            return Err(problem);
        }
        let end = self.forwards.closed.child_token();
        let single = request.single.then(|| Arc::new(AtomicBool::new(false)));
        for listener in
            [Some(unix_listener(listeners)?), abstract_listener.map(|l| unix_listener(vec![l])).transpose()?]
        {
            let Some(listener) = listener else { continue };
            let (connection, single) = (self.clone(), single.clone());
            let serving = async move { connection.serve_display(listener, single).await };
            self.node.tasks.spawn(incoming::until_closed(end.clone(), serving));
        }
        self.node.tasks.spawn(clear_display(self.clone(), account, number, answer.path, end.clone()));
        Ok(Display { name: format!(":{number}.{}", request.screen), _end: end.drop_guard() })
    }

    async fn serve_display(self: Arc<Self>, listener: tokio::net::UnixListener, single: Option<Arc<AtomicBool>>) {
        while let Some(stream) = incoming::accept_unix(&listener).await {
            if single.as_ref().is_some_and(|used| used.swap(true, Ordering::SeqCst)) {
                return;
            }
            let Some(place) = self.forwards.place() else { continue };
            let connection = self.clone();
            self.node.tasks.spawn(async move {
                let _place = place;
                let (origin, port) = (connection.server.ip().to_string(), connection.server.port());
                match incoming::taken(connection.handle.channel_open_x11(origin, port.into())).await {
                    Ok(channel) => copy::run(channel, stream, &connection).await,
                    Err(error) => debug!(%error, "client does not take a program for its display"),
                }
            });
        }
    }
}

/// Forgets the cookie and the socket when the session has ended.
async fn clear_display(
    connection: Arc<Connection>,
    account: Account,
    number: u32,
    path: String,
    end: CancellationToken,
) {
    end.cancelled().await;
    if let Err(problem) = xauth(&account, format!("remove :{number}\n")).await {
        debug!(problem, "cookie of a display not removed");
    }
    if !connection.handle.is_closed() {
        let _ = connection.open_as_user(Operation::Remove { path }).await; // ends with the worker
    }
}

/// Runs `xauth` as the account. The cookie goes through its input: arguments can be read by everybody.
async fn xauth(account: &Account, commands: String) -> Result<(), String> {
    let environment = environment::minimal(account);
    let program = Program::Command("exec xauth -q -".into());
    // In no session of its own: what it writes is for one.
    let child = start(account, &program, &environment, Streams::Pipes, None, None);
    let child = child.map_err(|error| format!("xauth: {error}"))?;
    converse(child, commands, XAUTH).await.map_err(|problem| format!("xauth: {problem}"))
}

/// Tells a program something and waits for its end, which comes after `limit` at the latest.
async fn converse(mut child: Running, words: String, limit: Duration) -> Result<(), String> {
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            input.write_all(words.as_bytes()).await?;
        }
        drop(child.stdout.take());
        let mut said = Vec::new();
        if let Some(errors) = child.stderr.take() {
            errors.take(MAX_SAID).read_to_end(&mut said).await?;
        }
        let ended = child.wait().await;
        Ok::<_, io::Error>((ended, String::from_utf8_lossy(&said).trim().to_owned()))
    };
    let problem = match timeout(limit, talk).await {
        Ok(Ok((Ended::Exited(0), _))) => return Ok(()),
        Ok(Ok((_, said))) => said,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("waited {} s", limit.as_secs()),
    };
    child.signal(Signal::SIGKILL); // what has not ended by itself
    Err(problem)
}

fn is_plain(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.len() <= MAX_COOKIE && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_program_that_takes_too_long_does_not_go_on_unwatched() {
        let me = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap();
        let account = Account::find(&me.name).unwrap();
        let program = Program::Command("exec sleep 600".into());
        let environment = environment::minimal(&account);
        let child = start(&account, &program, &environment, Streams::Pipes, None, None).unwrap();
        let id = child.begun().await.unwrap().unwrap();
        let problem = converse(child, String::new(), Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(problem, "waited 0 s");
        let folder = format!("/proc/{id}");
        let gone = async {
            while std::path::Path::new(&folder).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.unwrap();
    }
}
