//! A node's labels: fixed ones, and those whose values commands give.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use config::{CommandLabel, Labels};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wire::types::CommandLabelV2;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest value taken from a command.
const MAX_VALUE: usize = 1024;
/// The most that is read of what a command says, which may begin with spaces.
const MAX_OUTPUT: u64 = 64 * 1024;

/// A node's labels as they are at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeLabels {
    /// Those with fixed values.
    pub fixed: BTreeMap<String, String>,
    /// Those whose values commands gave.
    pub commands: BTreeMap<String, CommandLabelV2>,
}

impl NodeLabels {
    /// Names with present values. A label that is fixed wins over a command of the same name.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values: BTreeMap<_, _> = self.commands.iter().map(|(n, l)| (n.clone(), l.result.clone())).collect();
        values.extend(self.fixed.iter().map(|(name, value)| (name.clone(), value.clone())));
        values
    }
}

/// Keeps labels as the configuration says, for ever: runs the commands, each at its own pace, and starts again when the
/// configuration changes. The receiver sees every change.
pub(crate) fn run(
    mut wanted: watch::Receiver<Labels>,
) -> (watch::Receiver<Arc<NodeLabels>>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = watch::channel(Arc::new(begin(&wanted.borrow_and_update(), &NodeLabels::default())));
    let work = async move {
        loop {
            let commands = wanted.borrow().commands.clone();
            let runs = futures::future::join_all(commands.into_iter().map(|label| keep(label, &sender)));
            let changed = async {
                if wanted.changed().await.is_err() {
                    std::future::pending::<()>().await; // nobody is left who could change them
                }
            };
            tokio::select! {
                () = changed => {}
                () = async { runs.await; std::future::pending().await } => {}
            }
            let begun = begin(&wanted.borrow_and_update(), &sender.borrow());
            sender.send_replace(Arc::new(begun));
        }
    };
    (receiver, work)
}

/// Labels of a configuration before its commands ran: those that are unchanged keep their values.
fn begin(wanted: &Labels, before: &NodeLabels) -> NodeLabels {
    let commands = wanted.commands.iter().map(|label| {
        let same = before.commands.get(&label.name).filter(|known| known.command == label.command);
        (label.name.clone(), value(label, same.map(|known| known.result.clone()).unwrap_or_default()))
    });
    NodeLabels { fixed: wanted.fixed.clone(), commands: commands.collect() }
}

async fn keep(label: CommandLabel, sender: &watch::Sender<Arc<NodeLabels>>) {
    loop {
        let result = execute(&label.command).await;
        sender.send_if_modified(|all| {
            if all.commands.get(&label.name).is_some_and(|l| l.result == result) {
                return false;
            }
            let mut changed = (**all).clone();
            changed.commands.insert(label.name.clone(), value(&label, result));
            *all = Arc::new(changed);
            true
        });
        sleep(label.period.max(Duration::from_secs(1))).await;
    }
}

fn value(label: &CommandLabel, result: String) -> CommandLabelV2 {
    CommandLabelV2 {
        period: i64::try_from(label.period.as_nanos()).unwrap_or(i64::MAX),
        command: label.command.clone(),
        result,
    }
}

/// The trimmed output of a command, or what went wrong.
async fn execute(command: &[String]) -> String {
    let Some((program, arguments)) = command.split_first() else { return String::new() };
    let run = async {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            // One that says more has nobody to say it to.
            stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, output))
    };
    let text = match timeout(LIMIT, run).await {
        Ok(Ok((status, output))) => {
            let text = String::from_utf8_lossy(&output).trim().to_owned();
            if status.success() { text } else { format!("{status} output: {text}") }
        }
        Ok(Err(error)) => format!("{error} output: "),
        Err(_) => "waited 60 s output: ".into(),
    };
    text.chars().take(MAX_VALUE).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn label(name: &str, command: &[&str]) -> CommandLabel {
        CommandLabel {
            name: name.into(),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            period: Duration::from_secs(3600),
        }
    }

    #[tokio::test]
    async fn a_label_takes_the_trimmed_output_of_its_command() {
        let commands = vec![label("arch", &["echo", " x86 "]), label("bad", &["sh", "-c", "echo no; exit 3"])];
        let (_sender, wanted) = watch::channel(Labels { commands, ..Labels::default() });
        let (mut values, work) = run(wanted);
        tokio::spawn(work);
        let done = |all: &Arc<NodeLabels>| all.commands.values().all(|l| !l.result.is_empty());
        let all = values.wait_for(done).await.unwrap().clone();
        assert_eq!(all.commands["arch"].result, "x86");
        assert_eq!(all.commands["bad"].result, "exit status: 3 output: no");
    }

    #[tokio::test]
    async fn a_command_that_does_not_stop_talking_is_cut_off() {
        let value = timeout(Duration::from_secs(20), execute(&["yes".to_owned()])).await.unwrap();
        assert!(value.contains("output: y\ny\n") && value.len() <= MAX_VALUE, "{value}");
    }

    #[tokio::test]
    async fn labels_follow_the_configuration() {
        let fixed = |value: &str| BTreeMap::from([("env".to_owned(), value.to_owned())]);
        let commands = vec![label("kept", &["echo", "1"]), label("gone", &["echo", "2"])];
        let (sender, wanted) = watch::channel(Labels { fixed: fixed("one"), commands: commands.clone() });
        let (mut values, work) = run(wanted);
        tokio::spawn(work);
        values.wait_for(|all| all.commands.values().all(|l| !l.result.is_empty())).await.unwrap();
        sender.send_replace(Labels { fixed: fixed("two"), commands: commands[..1].to_vec() });
        let all = values.wait_for(|all| all.fixed == fixed("two")).await.unwrap().clone();
        let expected = [("env", "two"), ("kept", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(all.values(), BTreeMap::from(expected));
    }
}
