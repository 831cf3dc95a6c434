//! Commands that list.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// `tsh ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Labels that hosts have to have: name=value,name=value
    pub labels: Option<String>,
    /// Words to look for, with commas between
    #[arg(long, value_name = "WORDS")]
    pub search: Option<String>,
    /// Expression that has to be true
    #[arg(long, value_name = "EXPRESSION")]
    pub query: Option<String>,
    /// Show ids and complete labels
    #[arg(short, long)]
    pub verbose: bool,
    /// How to print: text, json, yaml or names
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
    /// Hosts of all clusters
    #[arg(short = 'R', long)]
    pub all: bool,
}

/// `tsh clusters`.
#[derive(Debug, Args)]
pub struct ClustersArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Show complete labels
    #[arg(short, long)]
    pub verbose: bool,
    /// No header
    #[arg(short, long)]
    pub quiet: bool,
}

/// `tsh sessions`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SessionsCommand,
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List them
    Ls(SessionsLsArgs),
}

/// `tsh sessions ls`.
#[derive(Debug, Args)]
pub struct SessionsLsArgs {
    /// Kinds to list, with commas between: ssh, k8s, db, app, desktop
    #[arg(long, value_delimiter = ',')]
    pub kind: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// `tsh recordings`.
#[derive(Debug, Args)]
pub struct RecordingsArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RecordingsCommand,
}

/// What to do with recordings.
#[derive(Debug, Subcommand)]
pub enum RecordingsCommand {
    /// List them
    Ls(RecordingsLsArgs),
    /// Write one as an asciicast or as text
    Export(RecordingsExportArgs),
    /// Look for a pattern in what terminals showed; exits with 1 when it is nowhere
    Search(RecordingsSearchArgs),
}

/// `tsh recordings search`.
#[derive(Debug, Args)]
pub struct RecordingsSearchArgs {
    /// A regular expression, for single lines
    pub pattern: String,
    /// Small and capital letters are the same
    #[arg(long)]
    pub ignore_case: bool,
    /// In which recordings
    #[command(flatten)]
    pub which: RecordingsLsArgs,
}

/// `tsh recordings export`.
#[derive(Debug, Args)]
pub struct RecordingsExportArgs {
    /// Id of the session, or a .tar file
    pub session: String,
    /// The file to write, which must not be there [default: standard output]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The form
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ExportForm,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// The form of an exported recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// For asciinema and its players
    #[default]
    Asciicast,
    /// Its events in JSON
    Json,
    /// Its events in YAML
    Yaml,
    /// What the terminal showed
    Text,
}

impl From<ExportForm> for client::play::TextForm {
    fn from(form: ExportForm) -> Self {
        match form {
            ExportForm::Asciicast => Self::Asciicast,
            ExportForm::Json => Self::Json,
            ExportForm::Yaml => Self::Yaml,
            ExportForm::Text => Self::Text,
        }
    }
}

/// `tsh recordings ls`.
#[derive(Debug, Args)]
pub struct RecordingsLsArgs {
    /// First day, as in 2006-01-02 [default: 24 hours ago]
    #[arg(long, value_name = "DAY")]
    pub from_utc: Option<String>,
    /// Last day, as in 2006-01-02 [default: now]
    #[arg(long, value_name = "DAY")]
    pub to_utc: Option<String>,
    /// How far back, as in 5h30m
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["from_utc", "to_utc"])]
    pub last: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}
