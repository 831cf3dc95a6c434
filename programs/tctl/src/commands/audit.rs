//! `audit`: whether the audit log is what was written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pki::keys::PublicKey;
use serde::Deserialize;

use super::other;
use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{self, Format, say};

/// The audit log's evidence.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Find out whether events were changed, removed, added or reordered, and where.
    Verify(Verify),
    /// Show the latest checkpoint, to be kept where nobody of the cluster can change it.
    Checkpoint(Checkpoint),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// What needs a database of events that is made for questions.
const LATER: [&str; 3] = ["query", "report", "schema"];

/// Find out whether events were changed, removed, added or reordered, and where.
#[derive(Args, Debug)]
pub struct Verify {
    /// A copy of a host's log to verify here, in place of the logs of the Auth Service.
    #[arg(long, value_name = "FOLDER", requires = "key")]
    folder: Option<PathBuf>,
    /// File with the public key of the checkpoints, as `tctl audit checkpoint --format=json` shows it.
    #[arg(long, value_name = "FILE", requires = "folder")]
    key: Option<PathBuf>,
    /// A checkpoint that must be there, as `tctl audit checkpoint` showed it; may be repeated.
    #[arg(long, value_name = "NUMBER:DIGEST")]
    expect: Vec<String>,
    /// How to show the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Show the latest checkpoint.
#[derive(Args, Debug)]
pub struct Checkpoint {
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The answer of the Auth Service.
#[derive(Debug, Deserialize)]
struct Verification {
    key: String,
    hosts: Vec<HostReport>,
    #[serde(default)]
    expected: usize,
}

#[derive(Debug, Deserialize, serde::Serialize)]
struct HostReport {
    host: String,
    #[serde(flatten)]
    report: audit::chain::Report,
}

impl Audit {
    /// Does what needs no Auth Service; `false` when one is needed.
    pub fn run_offline(&self) -> Result<bool> {
        match self {
            Self::Verify(Verify { folder: Some(folder), key: Some(key), expect, format }) => {
                let anchors = anchors(expect)?;
                let pem = std::fs::read_to_string(key).map_err(Error::io(format!("reading {}", key.display())))?;
                let key = PublicKey::from_pem(&pem)?;
                let accepts = |_: &str, message: &[u8], signature: &[u8]| {
                    key.verifies(key.algorithm().x509_scheme(), message, signature)
                };
                let report =
                    audit::chain::verify(folder, &accepts, &anchors).map_err(|e| Error::other(e.to_string()))?;
                show(&[HostReport { host: folder.display().to_string(), report }], *format)?;
                Ok(true)
            }
            Self::Other(words) => Err(other::refuse_sub("audit", &LATER, words)),
            _ => Ok(false),
        }
    }

    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Verify(command) => {
                let expected = anchors(&command.expect)?;
                let asked: Vec<String> = expected.iter().map(ToString::to_string).collect();
                let found = integrity(api, &asked.join(",")).await?;
                if found.expected != expected.len() {
                    return Err(Error::other(
                        "the Auth Service does not look for checkpoints: verify a copy of the log with --folder",
                    ));
                }
                show(&found.hosts, command.format)
            }
            Self::Checkpoint(command) => {
                let found = integrity(api, "").await?;
                let shown = match command.format {
                    Format::Text => found.hosts.iter().map(checkpoint).collect(),
                    Format::Json => output::json(&described(&found), 4)?,
                    Format::Yaml => output::yaml(&described(&found))?,
                };
                say(&shown);
                Ok(())
            }
            Self::Other(words) => Err(other::refuse_sub("audit", &LATER, &words)),
        }
    }
}

fn described(found: &Verification) -> serde_json::Value {
    let hosts: Vec<_> = found
        .hosts
        .iter()
        .map(|host| serde_json::json!({ "host": host.host, "checkpoint": host.report.latest }))
        .collect();
    serde_json::json!({ "key": found.key, "hosts": hosts })
}

fn checkpoint(host: &HostReport) -> String {
    match &host.report.latest {
        Some(latest) => format!("{} {latest}\n", output::text::lines(&host.host)),
        None => format!("{} none\n", output::text::lines(&host.host)),
    }
}

/// What the Auth Service finds; `expected` are checkpoints that must be there.
async fn integrity(api: &Api, expected: &str) -> Result<Verification> {
    let path = match expected {
        "" => "/v2/audit/integrity".to_owned(),
        expected => format!("/v2/audit/integrity?expect={expected}"),
    };
    Ok(api.http().get(&path).await?)
}

fn anchors(texts: &[String]) -> Result<Vec<audit::Anchor>> {
    texts.iter().map(|text| text.parse().map_err(|e| Error::bad(format!("--expect: {e}")))).collect()
}

/// Shows what was found; an error when something was tampered with.
fn show(hosts: &[HostReport], format: Format) -> Result<()> {
    match format {
        Format::Text => hosts.iter().for_each(|host| say(&told(host))),
        Format::Json => say(&output::json(&hosts, 4)?),
        Format::Yaml => say(&output::yaml(&hosts)?),
    }
    let found: usize = hosts.iter().map(|host| host.report.findings.len()).sum();
    match found {
        0 => Ok(()),
        count => Err(Error::other(format!("the audit log was tampered with: {count} findings"))),
    }
}

fn told(host: &HostReport) -> String {
    let report = &host.report;
    let mut text = format!(
        "{}: {} events in {} files, {} checkpoints, {} events since the last one\n",
        output::text::lines(&host.host),
        report.lines,
        report.files,
        report.checkpoints,
        report.uncovered
    );
    for finding in &report.findings {
        text += &output::text::lines(&format!("  TAMPERED {}: {}", finding.place, finding.what));
        text.push('\n');
    }
    for note in &report.notes {
        text += &output::text::lines(&format!("  note {}: {}", note.place, note.what));
        text.push('\n');
    }
    if report.findings.is_empty() {
        text += "  nothing was changed, removed or reordered\n";
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn checkpoints_are_read_as_they_are_shown() {
        let digest = "ab".repeat(32);
        let latest = audit::Anchor { number: 7, digest: digest.clone() };
        let report = audit::chain::Report { latest: Some(latest.clone()), ..Default::default() };
        let shown = checkpoint(&HostReport { host: "h".into(), report });
        assert_eq!(anchors(&[shown.trim().strip_prefix("h ").unwrap().to_owned()]).unwrap(), [latest]);
        for wrong in ["", "7", "x:ab", "7:ab", &format!("7:{}", "zz".repeat(32))] {
            assert!(anchors(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tampering_is_told_and_fails_the_command() {
        let mut host = HostReport { host: "h".into(), report: Default::default() };
        assert!(show(std::slice::from_ref(&host), Format::Text).is_ok());
        host.report.findings.push(audit::chain::Finding { place: "f line 3".into(), what: "changed".into() });
        assert!(told(&host).contains("TAMPERED f line 3: changed"));
        assert!(show(&[host], Format::Text).unwrap_err().to_string().contains("1 findings"));
    }
}
