//! Labels whose values commands give.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use config::CommandLabel;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wire::types::CommandLabelV2;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest value taken from a command.
const MAX_VALUE: usize = 1024;

/// Values of labels by name.
pub(crate) type CommandLabels = Arc<BTreeMap<String, CommandLabelV2>>;

/// Runs the commands, each at its own pace, for ever. The receiver sees every change.
pub(crate) fn run(labels: Vec<CommandLabel>) -> (watch::Receiver<CommandLabels>, impl Future<Output = ()> + Send) {
    let start = labels.iter().map(|label| (label.name.clone(), value(label, String::new()))).collect();
    let (sender, receiver) = watch::channel(Arc::new(start));
    let sender = Arc::new(sender);
    let work = async move {
        let runs = labels.into_iter().map(|label| keep(label, sender.clone()));
        futures::future::join_all(runs).await;
    };
    (receiver, work)
}

async fn keep(label: CommandLabel, sender: Arc<watch::Sender<CommandLabels>>) {
    loop {
        let result = execute(&label.command).await;
        sender.send_if_modified(|all| {
            if all.get(&label.name).is_some_and(|l| l.result == result) {
                return false;
            }
            let mut changed = (**all).clone();
            changed.insert(label.name.clone(), value(&label, result));
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
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let text = match timeout(LIMIT, run).await {
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if output.status.success() { text } else { format!("{} output: {text}", output.status) }
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
        let (mut values, work) =
            run(vec![label("arch", &["echo", " x86 "]), label("bad", &["sh", "-c", "echo no; exit 3"])]);
        tokio::spawn(work);
        let done = |all: &CommandLabels| all.values().all(|l| !l.result.is_empty());
        let all = values.wait_for(done).await.unwrap().clone();
        assert_eq!(all["arch"].result, "x86");
        assert_eq!(all["bad"].result, "exit status: 3 output: no");
    }
}
