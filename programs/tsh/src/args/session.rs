//! Commands about sessions.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// `tsh ssh`.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// The host, by name, id, address or labels (env=test), and what to run there
    #[arg(required = true, trailing_var_arg = true, value_name = "[LOGIN@]HOST [COMMAND]")]
    pub destination: Vec<String>,
    /// Port of the host
    #[arg(short, long)]
    pub port: Option<u16>,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
    /// Give the command a terminal
    #[arg(short, long, overrides_with = "no_tty")]
    pub tty: bool,
    /// Give neither command nor shell a terminal
    #[arg(short = 'T', long)]
    pub no_tty: bool,
    /// Run nothing: for forwards
    #[arg(short = 'N', long)]
    pub no_remote_exec: bool,
    /// Forward the agent
    #[arg(short = 'A', long)]
    pub forward_agent: bool,
    /// Forward a port of this machine: [bind:]port:host:port; either end may be the path of a Unix socket
    #[arg(short = 'L', long = "forward", value_name = "FORWARD")]
    pub local_forward: Vec<String>,
    /// Forward connections of a port of this machine to where each asks (SOCKS 4, 4a and 5): [bind:]port
    #[arg(short = 'D', long = "dynamic-forward", value_name = "FORWARD")]
    pub dynamic_forward: Vec<String>,
    /// Forward a port of the host: [bind:]port:host:port
    #[arg(short = 'R', long = "remote-forward", value_name = "FORWARD")]
    pub remote_forward: Vec<String>,
    /// Forward X11, untrusted
    #[arg(short = 'X', long)]
    pub x11_untrusted: bool,
    /// Forward X11, trusted
    #[arg(short = 'Y', long)]
    pub x11_trusted: bool,
    /// How long untrusted programs may open windows; 0 for no end
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub x11_untrusted_timeout: String,
    /// Option of OpenSSH's client: Name=value
    #[arg(short = 'o', long = "option", value_name = "OPTION")]
    pub options: Vec<String>,
    /// Run the command on this machine, with the forwards
    #[arg(long)]
    pub local: bool,
    /// Go to the background before the command runs
    #[arg(short = 'f', long = "fork-after-authentication")]
    pub background: bool,
    /// Who is invited to join
    #[arg(long, value_delimiter = ',')]
    pub invite: Vec<String>,
    /// Why the session is opened
    #[arg(long)]
    pub reason: Option<String>,
    /// Show what participants the session needs
    #[arg(long)]
    pub participant_req: bool,
    /// Keep what each of several hosts prints in this folder
    #[arg(long, value_name = "FOLDER")]
    pub log_dir: Option<PathBuf>,
    /// Why access is requested, where the host refuses the login and roles may be requested that change that
    #[arg(long)]
    pub request_reason: Option<String>,
    /// What is requested then: resource (the host alone), role (one that gives access to it), or off for nothing
    #[arg(long, env = "TELEPORT_REQUEST_MODE", hide_env = true, value_name = "MODE")]
    pub request_mode: Option<String>,
    /// Request nothing when access is denied
    #[arg(long)]
    pub disable_access_request: bool,
}

/// `tsh scp`.
#[derive(Debug, Args)]
pub struct ScpArgs {
    /// What to copy, and where: path, or [login@]host:path, where the host may be given by labels (env=test)
    #[arg(required = true, num_args = 2.., value_name = "SOURCE... TARGET")]
    pub paths: Vec<String>,
    /// Directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Keep permissions and times
    #[arg(short, long)]
    pub preserve: bool,
    /// Go on with files that a copy before has begun
    #[arg(long)]
    pub resume: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Copy one file beside this moderated session, in which you are, once its moderators approve
    #[arg(long, value_name = "SESSION", conflicts_with = "recursive")]
    pub moderated_session_id: Option<String>,
    /// Port of the host
    #[arg(short = 'P', long)]
    pub port: Option<u16>,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// `tsh join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Id of the session
    pub session: String,
    /// What to do in it: observer, moderator or peer
    #[arg(short, long, default_value = "observer")]
    pub mode: String,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// `tsh play`.
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Id of the session, or a .tar file
    pub session: String,
    /// How fast: 0.5x, 1x, 2x, 4x or 8x
    #[arg(long, default_value = "1x")]
    pub speed: String,
    /// Cut long pauses
    #[arg(long)]
    pub skip_idle_time: bool,
    /// How: on the terminal, or as text
    #[arg(short, long, value_enum, default_value_t)]
    pub format: PlayForm,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// How a recording is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlayForm {
    /// As it looked, in its time
    #[default]
    Pty,
    /// Its events in JSON
    Json,
    /// Its events in YAML
    Yaml,
    /// What the terminal showed
    Text,
}

/// `tsh config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Port of hosts
    #[arg(short, long)]
    pub port: Option<u16>,
}

/// `tsh proxy`.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// What to connect
    #[command(subcommand)]
    pub command: ProxyCommand,
}

/// What to connect.
#[derive(Debug, Subcommand)]
pub enum ProxyCommand {
    /// Standard input and output with the SSH server of a host
    Ssh(ProxySshArgs),
    /// Anything else.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// `tsh proxy ssh`.
#[derive(Debug, Args)]
pub struct ProxySshArgs {
    /// The host
    #[arg(value_name = "[LOGIN@]HOST[:PORT]", allow_hyphen_values = true)]
    pub destination: String,
    /// Port of the host
    #[arg(short, long)]
    pub port: Option<u16>,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// `tsh resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// Name, id, address or labels (env=test)
    pub host: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Print nothing: the exit code says whether there is exactly one
    #[arg(short, long)]
    pub quiet: bool,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}

/// `tsh latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// What to measure
    #[command(subcommand)]
    pub command: LatencyCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum LatencyCommand {
    /// The way to a host's SSH server
    Ssh(LatencySshArgs),
}

/// `tsh latency ssh`.
#[derive(Debug, Args)]
pub struct LatencySshArgs {
    /// The host
    #[arg(value_name = "[LOGIN@]HOST")]
    pub destination: String,
    /// How often to measure; until interrupted if it is not given
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
    /// The cluster
    #[arg(short, long)]
    pub cluster: Option<String>,
}
