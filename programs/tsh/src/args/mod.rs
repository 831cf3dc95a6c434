//! The command line. Options for all commands may stand before or after the command.

mod listing;
mod mfa;
mod request;
mod session;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use listing::{
    ClustersArgs, LsArgs, RecordingsArgs, RecordingsCommand, RecordingsExportArgs, RecordingsLsArgs,
    RecordingsSearchArgs, SessionsArgs, SessionsCommand, SessionsLsArgs,
};
pub use mfa::{DeviceKind, MfaAddArgs, MfaArgs, MfaCommand, MfaLsArgs};
pub use request::{
    RequestArgs, RequestCommand, RequestCreateArgs, RequestDropArgs, RequestLsArgs, RequestReviewArgs,
    RequestSearchArgs, RequestShowArgs,
};
pub use session::{
    ConfigArgs, JoinArgs, LatencyArgs, LatencyCommand, LatencySshArgs, PlayArgs, PlayForm, ProxyArgs, ProxyCommand,
    ProxySshArgs, ResolveArgs, ScpArgs, SshArgs,
};

/// Log in to a cluster and use what it protects.
#[derive(Debug, Parser)]
#[command(name = "tsh", disable_version_flag = true, max_term_width = 100, propagate_version = false)]
pub struct Cli {
    /// For all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub struct Global {
    /// Address of the proxy
    #[arg(long, global = true, env = "TELEPORT_PROXY", value_name = "HOST[:PORT]", hide_env = true)]
    pub proxy: Option<String>,
    /// Name of the user in the cluster [default: the local user's]
    #[arg(long, global = true, env = "TELEPORT_USER", hide_env = true)]
    pub user: Option<String>,
    /// Account on hosts
    #[arg(short, long, global = true, env = "TELEPORT_LOGIN", hide_env = true, allow_hyphen_values = true)]
    pub login: Option<String>,
    /// Identity file to use in place of a login
    #[arg(short, long, global = true, env = "TELEPORT_IDENTITY_FILE", value_name = "FILE", hide_env = true)]
    pub identity: Option<PathBuf>,
    /// How to log in: local, or the name of a connector
    #[arg(long, global = true, env = "TELEPORT_AUTH", value_name = "CONNECTOR", hide_env = true)]
    pub auth: Option<String>,
    /// How long a login is to last, in minutes
    #[arg(long, global = true, value_name = "MINUTES")]
    pub ttl: Option<u32>,
    /// Do not verify the proxy's certificate and the keys of hosts: for tests only
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Say on standard error what is done
    #[arg(short, long, global = true, env = "TELEPORT_DEBUG", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub debug: bool,
    /// Do not compare versions of client and cluster
    #[arg(long, global = true)]
    pub skip_version_check: bool,
    /// Whether a login's key goes into the running ssh-agent as well: auto (if there is one), yes or no
    #[arg(short = 'k', long, global = true, env = "TELEPORT_ADD_KEYS_TO_AGENT", value_name = "WHEN", hide_env = true)]
    pub add_keys_to_agent: Option<String>,
    /// Form of the SSH certificates of a login: standard, or oldssh for servers that refuse those
    #[arg(long, global = true, value_name = "FORM")]
    pub cert_format: Option<String>,
    /// Address to listen at in logins in a browser (not part of this build yet)
    #[arg(long, global = true, env = "TELEPORT_LOGIN_BIND_ADDR", value_name = "HOST:PORT", hide_env = true)]
    pub bind_addr: Option<String>,
    /// Address to show for it (not part of this build yet)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub callback: Option<String>,
    /// Which second factors to prefer: auto or otp (security keys are not part of this build yet)
    #[arg(long, global = true, env = "TELEPORT_MFA_MODE", value_name = "MODE", hide_env = true)]
    pub mfa_mode: Option<String>,
    /// Log in for one command, with the help of another machine (not part of this build yet)
    #[arg(long, global = true, env = "TELEPORT_HEADLESS", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub headless: bool,
    /// Whether memory is locked: off, auto or best_effort (locking it is not part of this build yet)
    #[arg(long, global = true, env = "TELEPORT_MLOCK_MODE", value_name = "MODE", hide_env = true)]
    pub mlock: Option<String>,
    /// Slot of a hardware key (not part of this build yet)
    #[arg(long, global = true, value_name = "SLOT")]
    pub piv_slot: Option<String>,
    /// Another proxy to go through, of this cluster or of one that trusts it
    #[arg(short = 'J', long, global = true, value_name = "[LOGIN@]PROXY[:PORT]")]
    pub jumphost: Option<String>,
    /// Do not resume sessions whose connection is lost
    #[arg(long, global = true, env = "TELEPORT_NO_RESUME", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub no_resume: bool,
    /// Switch off the escape sequences of interactive sessions
    #[arg(long, global = true)]
    pub no_enable_escape_sequences: bool,
    /// Switch on the escape sequences of interactive sessions (the default)
    #[arg(long, global = true, overrides_with = "no_enable_escape_sequences")]
    pub enable_escape_sequences: bool,
}

impl Global {
    /// What this build cannot do as it is told, in words. What would only be in vain is no such thing.
    pub fn refusal(&self) -> Option<String> {
        let refused = match self {
            Self { headless: true, .. } => "--headless: logins with the help of another machine are".to_owned(),
            Self { callback: Some(address), .. } => format!("--callback={address}: logins in a browser are"),
            Self { piv_slot: Some(slot), .. } => format!("--piv-slot={slot}: hardware keys are"),
            Self { mlock: Some(mode), .. } if mode == "strict" => format!("--mlock={mode}: locking memory is"),
            _ => return None,
        };
        Some(format!("{refused} not part of this build yet"))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in to a cluster
    Login(LoginArgs),
    /// Delete the credentials of logins
    Logout,
    /// Show who is logged in where
    Status(StatusArgs),
    /// Run a command or a shell on a host
    Ssh(SshArgs),
    /// Copy files to and from hosts
    Scp(ScpArgs),
    /// Join a session that runs
    Join(JoinArgs),
    /// List hosts
    Ls(LsArgs),
    /// List clusters
    Clusters(ClustersArgs),
    /// Sessions that run
    Sessions(SessionsArgs),
    /// Recordings of sessions
    #[command(visible_alias = "recording")]
    Recordings(RecordingsArgs),
    /// Play the recording of a session
    Play(PlayArgs),
    /// Second factors
    Mfa(MfaArgs),
    /// Requests for more access
    #[command(visible_alias = "requests")]
    Request(Box<RequestArgs>),
    /// Say which host a name, an id or labels mean
    Resolve(ResolveArgs),
    /// Measure how long a host takes to answer
    Latency(LatencyArgs),
    /// Print configuration for OpenSSH
    Config(ConfigArgs),
    /// Connections for other programs
    Proxy(ProxyArgs),
    /// Print shell commands that set the environment
    Env(EnvArgs),
    /// Print versions
    Version(VersionArgs),
    /// Anything else.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Names only
    #[value(hide = true)]
    Names,
}

/// `tsh login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The cluster to select
    pub cluster: Option<String>,
    /// Write the credentials to this file, and nothing else
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Form of that file: file, or openssh for a key and a certificate
    #[arg(long, value_name = "FORM", default_value = "file")]
    pub format: String,
    /// Replace that file if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Say more about the login
    #[arg(short, long)]
    pub verbose: bool,
    /// Ask for these roles as well; * for all that may be asked for
    #[arg(long, value_name = "ROLES")]
    pub request_roles: Option<String>,
    /// Why they are asked for
    #[arg(long, value_name = "TEXT")]
    pub request_reason: Option<String>,
    /// Who should review that
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    pub request_reviewers: Vec<String>,
    /// Do not wait for a decision
    #[arg(long)]
    pub request_nowait: bool,
    /// Use a request that was made
    #[arg(long, value_name = "ID", conflicts_with = "request_roles")]
    pub request_id: Option<String>,
    /// Which browser to open; none for none (logins in a browser are not part of this build yet)
    #[arg(long, env = "TELEPORT_LOGIN_BROWSER", hide_env = true)]
    pub browser: Option<String>,
    /// Kubernetes cluster to select (not part of this build yet)
    #[arg(long, value_name = "NAME")]
    pub kube_cluster: Option<String>,
}

/// `tsh status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Say more
    #[arg(short, long)]
    pub verbose: bool,
}

/// `tsh env`.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// Print commands that unset the variables
    #[arg(long)]
    pub unset: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// `tsh version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Only the version of this program
    #[arg(short, long)]
    pub client: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_for_all_commands_stand_before_or_after_the_command() {
        let before = Cli::try_parse_from(["tsh", "--insecure", "--proxy=p:1", "-i", "f", "ls"]).unwrap();
        let after = Cli::try_parse_from(["tsh", "ls", "--insecure", "--proxy=p:1", "-i", "f"]).unwrap();
        for cli in [before, after] {
            assert!(cli.global.insecure && cli.global.proxy.as_deref() == Some("p:1") && cli.global.identity.is_some());
        }
    }

    #[test]
    fn options_that_this_build_cannot_follow_are_refused_by_name() {
        let global = |option: &str| Cli::try_parse_from(["tsh", "ls", option]).unwrap().global;
        for option in ["--headless", "--callback=a:1", "--piv-slot=9d", "--mlock=strict"] {
            let refusal = global(option).refusal().unwrap();
            assert!(refusal.starts_with(option) && refusal.contains("not part of this build"), "{refusal}");
        }
        for option in ["--mlock=auto", "--bind-addr=:1", "--mfa-mode=otp", "--cert-format=oldssh", "--insecure"] {
            assert_eq!(global(option).refusal(), None);
        }
    }

    #[test]
    fn what_follows_the_host_is_the_command() {
        let line = ["tsh", "ssh", "-t", "-p", "22", "root@node1", "ls", "-p", "--help", "--", "x"];
        let Command::Ssh(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        assert!(args.tty && args.port == Some(22));
        assert_eq!(args.destination, ["root@node1", "ls", "-p", "--help", "--", "x"]);
        let line = ["tsh", "ssh", "--login=-teleport-internal-join", "web1", "touch x"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert_eq!(cli.global.login.as_deref(), Some("-teleport-internal-join"));
        assert!(Cli::try_parse_from(["tsh", "ssh"]).is_err());
    }

    #[test]
    fn commands_of_later_builds_are_recognised() {
        let Command::Other(words) = Cli::try_parse_from(["tsh", "db", "ls", "--format=json"]).unwrap().command else {
            panic!()
        };
        assert_eq!(words, ["db", "ls", "--format=json"]);
    }
}
