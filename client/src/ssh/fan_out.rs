//! One command on many hosts, with each line of output marked by the host it comes from.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::session::{Exit, SessionRequest, Streams, environment, run};
use super::stdio::{Input, Output};
use super::{Host, SshConnection};
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::login::Ask;
use crate::text;

/// Hosts on which the command runs at the same time.
const AT_ONCE: usize = 64;
/// Longest line that is held back until it is complete.
const LONGEST_LINE: usize = 64 << 10;

/// A command for many hosts.
#[derive(Clone, Debug)]
pub struct FanOut<'a> {
    /// The hosts.
    pub hosts: &'a [Host],
    /// The account on each.
    pub login: &'a str,
    /// The command line.
    pub command: &'a str,
    /// A folder for what each host prints, if it is to be kept.
    pub log_folder: Option<&'a Path>,
}

/// How it went on one host.
#[derive(Debug)]
pub struct Outcome {
    /// What the host is called.
    pub host: String,
    /// How the command ended there, or why it did not begin.
    pub result: Result<Exit>,
}

impl Outcome {
    /// Whether the command succeeded.
    pub fn succeeded(&self) -> bool {
        matches!(self.result, Ok(Exit::Status(0)))
    }

    /// One line about it.
    pub fn summary(&self) -> String {
        let host = text::line(&self.host);
        match &self.result {
            Ok(Exit::Status(0)) => format!("[{host}] success"),
            Ok(exit) => format!("[{host}] failed with exit code {}", exit.code()),
            Err(error) => format!("[{host}] failed: {error}"),
        }
    }
}

impl FanOut<'_> {
    /// Runs the command everywhere; a failure on one host does not touch the others. The outcomes are in the order
    /// of the hosts.
    pub async fn run(&self, client: &ClusterClient, ask: &mut impl Ask) -> Result<Vec<Outcome>> {
        if let Some(folder) = self.log_folder {
            fs::create_dir_all(folder).map_err(Error::io(format!("creating {}", folder.display())))?;
        }
        let ask = RefCell::new(ask);
        let mut waiting = self.hosts.iter().enumerate();
        let mut running = FuturesUnordered::new();
        let mut outcomes = Vec::with_capacity(self.hosts.len());
        loop {
            while running.len() < AT_ONCE {
                let Some((index, host)) = waiting.next() else { break };
                let (client, ask) = (client, &ask);
                running.push(async move { (index, self.on_host(client, host, ask).await) });
            }
            let Some(outcome) = running.next().await else { break };
            outcomes.push(outcome);
        }
        outcomes.sort_by_key(|(index, _)| *index);
        let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        self.log_hosts(&outcomes)?;
        Ok(outcomes)
    }

    async fn on_host<A: Ask>(&self, client: &ClusterClient, host: &Host, ask: &RefCell<&mut A>) -> Outcome {
        let result = self.command(client, host, ask).await;
        Outcome { host: host.name.clone(), result }
    }

    async fn command<A: Ask>(&self, client: &ClusterClient, host: &Host, ask: &RefCell<&mut A>) -> Result<Exit> {
        let mut patient = Patient(ask);
        let connection = SshConnection::open(client, host, self.login, &mut patient).await?;
        let session = uuid::Uuid::new_v4().to_string();
        let variables = environment(&client.account().profile.web_proxy_addr, &session);
        let request = SessionRequest::command(self.command.to_owned(), variables);
        let streams = Streams {
            input: Input::none(),
            output: Output::writing(self.marked(host, io::stdout(), "stdout")?),
            errors: Output::writing(self.marked(host, io::stderr(), "stderr")?),
        };
        let exit = run(&connection, &request, streams).await;
        connection.close().await;
        exit
    }

    fn marked<W: Write + Send + 'static>(&self, host: &Host, sink: W, stream: &str) -> Result<Marked<W>> {
        let log = self.log_file(&format!("{}.{stream}", host.name))?;
        Ok(Marked { mark: format!("[{}] ", text::line(&host.name)), line: Vec::new(), sink, log })
    }

    fn log_file(&self, name: &str) -> Result<Option<File>> {
        let Some(folder) = self.log_folder else { return Ok(None) };
        // Names of hosts are given by those who run them.
        let name: String = name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
        let path: PathBuf = folder.join(name);
        File::create(&path).map(Some).map_err(Error::io(format!("creating {}", path.display())))
    }

    /// Writes which hosts succeeded and which failed.
    fn log_hosts(&self, outcomes: &[Outcome]) -> Result<()> {
        for (name, succeeded) in [("hosts.succeeded", true), ("hosts.failed", false)] {
            if let Some(mut file) = self.log_file(name)? {
                let of_kind = outcomes.iter().filter(|outcome| outcome.succeeded() == succeeded);
                let lines: String = of_kind.map(|outcome| format!("{}\n", outcome.host)).collect();
                file.write_all(lines.as_bytes()).map_err(Error::io(format!("writing {name}")))?;
            }
        }
        Ok(())
    }
}

/// Asks when nobody else does.
struct Patient<'a, 'b, A>(&'a RefCell<&'b mut A>);

impl<A: Ask> Patient<'_, '_, A> {
    fn turn<T>(&self, ask: impl FnOnce(&mut A) -> Result<T>) -> Result<T> {
        // Asking blocks this thread, so nobody else can be at it.
        let mut turn = self.0.try_borrow_mut().map_err(|_| Error::other("two questions at a time"))?;
        ask(&mut turn)
    }
}

impl<A: Ask> Ask for Patient<'_, '_, A> {
    fn password(&mut self, user: &str) -> Result<zeroize::Zeroizing<String>> {
        self.turn(|ask| ask.password(user))
    }

    fn code(&mut self) -> Result<zeroize::Zeroizing<String>> {
        self.turn(Ask::code)
    }

    fn acknowledge(&mut self, message: &str) -> Result<()> {
        self.turn(|ask| ask.acknowledge(message))
    }

    fn warn(&mut self, warning: &str) {
        // A warning that cannot be shown is not worth failing for.
        let _ = self.turn(|ask| {
            ask.warn(warning);
            Ok(())
        });
    }
}

/// A sink that begins each line with the host, and keeps a copy as it came.
struct Marked<W: Write> {
    mark: String,
    line: Vec<u8>,
    sink: W,
    log: Option<File>,
}

impl<W: Write> Marked<W> {
    /// Writes complete lines; what is left is kept, unless it is too long or `all` is wanted.
    fn print(&mut self, all: bool) -> io::Result<()> {
        let mut marked = Vec::new();
        let mut rest = &self.line[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            marked.extend_from_slice(self.mark.as_bytes());
            marked.extend_from_slice(line);
            rest = after;
        }
        if !rest.is_empty() && (all || rest.len() > LONGEST_LINE) {
            marked.extend_from_slice(self.mark.as_bytes());
            marked.extend_from_slice(rest);
            marked.push(b'\n');
            rest = &[];
        }
        self.line = rest.to_vec();
        // In one piece: lines of different hosts must not mix.
        self.sink.write_all(&marked)
    }
}

impl<W: Write> Write for Marked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = &mut self.log {
            log.write_all(bytes)?;
        }
        self.line.extend_from_slice(bytes);
        self.print(false)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl<W: Write> Drop for Marked<W> {
    fn drop(&mut self) {
        // The last line may lack its end; whether anybody still reads does not matter any more.
        let _ = self.print(true).and_then(|()| self.sink.flush());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_are_marked_whatever_pieces_they_come_in() {
        let mut shown = Vec::new();
        let mut marked = Marked { mark: "[web1] ".into(), line: Vec::new(), sink: &mut shown, log: None };
        for piece in ["out", " one\ntwo", "\n", "three"] {
            marked.write_all(piece.as_bytes()).unwrap();
        }
        drop(marked);
        assert_eq!(String::from_utf8(shown).unwrap(), "[web1] out one\n[web1] two\n[web1] three\n");
    }

    #[test]
    fn a_summary_says_how_it_went() {
        let ok = Outcome { host: "a".into(), result: Ok(Exit::Status(0)) };
        let bad = Outcome { host: "b\x1b".into(), result: Ok(Exit::Status(3)) };
        assert_eq!(ok.summary(), "[a] success");
        assert_eq!(bad.summary(), "[b\\u{1b}] failed with exit code 3");
    }
}
