//! Commands about requests for more access.

use clap::{ArgGroup, Args, Subcommand};

use super::Format;

/// `tsh request`.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RequestCommand,
}

/// What to do with requests.
#[derive(Debug, Subcommand)]
pub enum RequestCommand {
    /// List requests
    #[command(alias = "list")]
    Ls(RequestLsArgs),
    /// Show a request
    #[command(alias = "details")]
    Show(RequestShowArgs),
    /// Ask for roles, or for access to resources
    #[command(alias = "new")]
    Create(RequestCreateArgs),
    /// Approve or deny somebody else's request
    Review(RequestReviewArgs),
    /// Find resources that may be requested
    Search(RequestSearchArgs),
    /// Give back what was approved
    Drop(RequestDropArgs),
}

/// `tsh request ls`.
#[derive(Debug, Args)]
pub struct RequestLsArgs {
    /// Only those that wait for my review
    #[arg(long)]
    pub reviewable: bool,
    /// Only those that name me as a reviewer
    #[arg(long)]
    pub suggested: bool,
    /// Only those that I made
    #[arg(long)]
    pub my_requests: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// `tsh request show`.
#[derive(Debug, Args)]
pub struct RequestShowArgs {
    /// Id of the request
    pub id: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// `tsh request create`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["roles", "resource"])))]
pub struct RequestCreateArgs {
    /// Roles to ask for; * for all that may be asked for
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    pub roles: Vec<String>,
    /// Resource to ask for, as 'tsh request search' prints it; may be given several times
    #[arg(long, value_name = "/CLUSTER/KIND/NAME")]
    pub resource: Vec<String>,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Who should review it
    #[arg(long, value_delimiter = ',', value_name = "USERS")]
    pub reviewers: Vec<String>,
    /// Do not wait for a decision
    #[arg(long)]
    pub nowait: bool,
    /// How long access is wanted, unless roles allow more than a session
    #[arg(long, value_name = "DURATION")]
    pub session_ttl: Option<String>,
    /// How long to wait for a decision, at most
    #[arg(long, value_name = "DURATION")]
    pub request_ttl: Option<String>,
    /// How long access is wanted, as far as roles allow
    #[arg(long, value_name = "DURATION")]
    pub max_duration: Option<String>,
    /// When access is to begin, in RFC 3339
    #[arg(long, value_name = "MOMENT")]
    pub assume_start_time: Option<String>,
}

/// `tsh request review`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("verdict").required(true).args(["approve", "deny"])))]
pub struct RequestReviewArgs {
    /// Id of the request
    pub id: String,
    /// Approve it
    #[arg(long)]
    pub approve: bool,
    /// Deny it
    #[arg(long)]
    pub deny: bool,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// When access is to begin, in RFC 3339
    #[arg(long, value_name = "MOMENT", conflicts_with = "deny")]
    pub assume_start_time: Option<String>,
}

/// `tsh request search`.
#[derive(Debug, Args)]
pub struct RequestSearchArgs {
    /// Kind of resource: node, db, app, kube_cluster, windows_desktop or user_group
    #[arg(long)]
    pub kind: String,
    /// Words to look for, with commas between
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    pub search: Vec<String>,
    /// Expression that has to be true
    #[arg(long, value_name = "EXPRESSION", default_value = "", hide_default_value = true)]
    pub query: String,
    /// Labels that resources have to have: name=value,name=value
    #[arg(long, value_name = "LABELS")]
    pub labels: Option<String>,
    /// Show complete labels
    #[arg(short, long)]
    pub verbose: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// `tsh request drop`.
#[derive(Debug, Args)]
pub struct RequestDropArgs {
    /// Ids of requests [default: all]
    pub ids: Vec<String>,
}
