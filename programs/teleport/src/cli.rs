//! The command line.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use config::{Config, Environment, Overrides, Secret, Source};

use crate::error::{Failure, Result};
use crate::reload::Origin;
use crate::{cloning, debug, run};

/// Environment variable that holds a whole configuration file in base64.
const CONFIG_VARIABLE: &str = "TELEPORT_CONFIG";

/// The daemon of the access platform.
#[derive(Parser)]
#[command(name = "teleport", disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the services of the configuration file.
    Start(Box<Start>),
    /// Prints a configuration file to begin with.
    Configure(Box<Configure>),
    /// Commands for SSH nodes.
    #[command(subcommand)]
    Node(Node),
    /// Prints files for this host's service manager.
    #[command(subcommand)]
    Install(Install),
    /// Prints the version.
    Version {
        /// The number alone.
        #[arg(long)]
        raw: bool,
    },
    /// Says which session this terminal is in.
    Status,
    /// Asks something of the process that runs with a configuration file.
    Debug(Debug),
    /// The state of a cluster.
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Does something for a user of a node: started by the daemon itself.
    #[command(name = crate::node::WORKER, hide = true)]
    Worker {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Node {
    /// Prints a configuration file for an SSH node.
    Configure(Box<Configure>),
}

#[derive(Subcommand)]
enum BackendCommand {
    /// Copies the state from one storage to another, while no Auth Service runs.
    Clone {
        /// File that says from where to where: `src` and `dst` are written like `teleport.storage`.
        #[arg(long, short)]
        config: PathBuf,
    },
}

#[derive(Args)]
struct Debug {
    /// The configuration file the process runs with.
    #[arg(long, short, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    what: DebugCommand,
}

#[derive(Subcommand)]
enum DebugCommand {
    /// Prints down to which severity the process logs.
    GetLogLevel,
    /// Changes down to which severity the process logs, until it ends.
    SetLogLevel {
        /// ERROR, WARN, INFO, DEBUG or TRACE.
        level: String,
    },
    /// Collects profiles of the process: not part of this build.
    #[command(hide = true)]
    Profile {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Install {
    /// Prints a systemd unit.
    Systemd(Box<SystemdUnit>),
}

#[derive(Args)]
struct SystemdUnit {
    /// File with environment variables for the service; it need not exist.
    #[arg(long, default_value = "/etc/default/teleport")]
    env_file: PathBuf,
    /// File for the process id.
    #[arg(long, default_value = "/run/teleport.pid")]
    pid_file: PathBuf,
    /// Most open files.
    #[arg(long, default_value_t = 524_288)]
    fd_limit: u32,
    /// This program; by default where it runs from.
    #[arg(long)]
    teleport_path: Option<PathBuf>,
    /// `stdout`, or a path.
    #[arg(long, short, default_value = "stdout")]
    output: String,
}

#[derive(Args)]
struct Start {
    /// Logs everything down to severity DEBUG.
    #[arg(long, short)]
    debug: bool,
    /// Services to run: auth, proxy, node.
    #[arg(long, short, value_delimiter = ',')]
    roles: Vec<String>,
    /// File for the process id.
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Address announced to the cluster.
    #[arg(long)]
    advertise_ip: Option<String>,
    /// Address all services listen on.
    #[arg(long, short)]
    listen_ip: Option<String>,
    /// Address of an Auth Service; repeatable.
    #[arg(long)]
    auth_server: Vec<String>,
    /// Token to join with, or a file that holds it.
    #[arg(long)]
    token: Option<String>,
    /// Pin of the cluster's authority; repeatable.
    #[arg(long)]
    ca_pin: Vec<String>,
    /// Name of this host.
    #[arg(long)]
    nodename: Option<String>,
    /// The configuration file.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// The configuration file's contents in base64.
    #[arg(long, hide = true)]
    config_string: Option<String>,
    /// Labels of the node: `key=value,key2=[period:command]`.
    #[arg(long)]
    labels: Option<String>,
    /// Address for health, readiness and metrics.
    #[arg(long)]
    diag_addr: Option<String>,
    /// Lets users set environment variables in `~/.tsh/environment`.
    #[arg(long)]
    permit_user_env: bool,
    /// Does not verify the certificates of servers this process connects to.
    #[arg(long)]
    insecure: bool,
}

#[derive(Args)]
struct Configure {
    #[arg(long)]
    cluster_name: Option<String>,
    /// `stdout`, `file` for the default path, or a path.
    #[arg(long, short, default_value = "stdout")]
    output: String,
    #[arg(long)]
    acme: bool,
    #[arg(long)]
    acme_email: Option<String>,
    /// Checks a file instead of printing one.
    #[arg(long)]
    test: Option<PathBuf>,
    #[arg(long)]
    version: Option<String>,
    #[arg(long)]
    public_addr: Option<String>,
    #[arg(long)]
    cert_file: Option<String>,
    #[arg(long)]
    key_file: Option<String>,
    #[arg(long)]
    data_dir: Option<String>,
    #[arg(long)]
    token: Option<String>,
    #[arg(long)]
    join_method: Option<String>,
    #[arg(long)]
    roles: Option<String>,
    #[arg(long)]
    auth_server: Option<String>,
    #[arg(long)]
    proxy: Option<String>,
    #[arg(long)]
    ca_pin: Vec<String>,
    #[arg(long)]
    node_name: Option<String>,
    #[arg(long, alias = "labels")]
    node_labels: Option<String>,
}

impl Cli {
    /// Does what was asked.
    pub fn execute(self) -> Result<ExitCode> {
        if let Command::Worker { arguments } = &self.command {
            return Ok(ssh_service::worker::run(arguments));
        }
        self.run().map(|()| ExitCode::SUCCESS)
    }

    fn run(self) -> Result<()> {
        match self.command {
            Command::Worker { .. } => Ok(()), // has its own exit code
            Command::Start(start) => start.execute(),
            Command::Configure(configure) => configure.execute(config::configure::sample),
            Command::Node(Node::Configure(configure)) => configure.execute(config::configure::node),
            Command::Install(Install::Systemd(unit)) => unit.print(),
            Command::Version { raw: true } => say(wire::VERSION),
            Command::Version { raw: false } => say(&format!("Teleport v{} rust", wire::VERSION)),
            Command::Status => status(),
            Command::Debug(debug) => debug.execute(),
            Command::Backend(BackendCommand::Clone { config }) => {
                let copied = cloning::run(&config)?;
                say(&format!("Copied {copied} items."))
            }
        }
    }
}

impl Start {
    fn execute(self) -> Result<()> {
        let source = match &self.config_string {
            Some(text) => Source::Base64 { name: "--config-string".into(), text: text.clone() },
            None => source(self.config.as_deref()),
        };
        let overrides = Overrides {
            roles: self.roles,
            token: self.token.map(Secret::new),
            auth_servers: self.auth_server,
            ca_pins: self.ca_pin,
            diag_addr: self.diag_addr,
            nodename: self.nodename,
            labels: self.labels,
            listen_ip: self.listen_ip,
            advertise_ip: self.advertise_ip,
            pid_file: self.pid_file,
            permit_user_env: self.permit_user_env,
            debug: self.debug,
            insecure: self.insecure,
        };
        let origin = Origin { source, overrides };
        run::run(origin.read()?, origin)
    }
}

/// Where the configuration is: a named file, the environment, or the default place.
fn source(file: Option<&Path>) -> Source {
    match (file, std::env::var(CONFIG_VARIABLE)) {
        (Some(path), _) => Source::File(path.to_owned()),
        (None, Ok(text)) if !text.is_empty() => Source::Base64 { name: CONFIG_VARIABLE.into(), text },
        _ => Source::Default,
    }
}

impl Debug {
    fn execute(self) -> Result<()> {
        let config = Config::load(&source(self.config.as_deref()), &Overrides::default(), &Environment::of_tool())?;
        if !config.debug_service {
            return Err(Failure("debug_service.enabled: the process answers no questions: it is off".into()));
        }
        let process = debug::Client::new(&config.global.data_dir);
        match self.what {
            DebugCommand::GetLogLevel => say(&process.log_level()?),
            DebugCommand::SetLogLevel { level } => {
                let severity = config::Severity::parse(&level).map_err(|e| Failure(format!("log level: {e}")))?;
                say(&process.set_log_level(severity)?)
            }
            DebugCommand::Profile { .. } => {
                Err(Failure("profiles are not part of this build, use perf(1) on the process".into()))
            }
        }
    }
}

type Generator = fn(&config::configure::Options, &str) -> Result<String, config::configure::ConfigureError>;

impl Configure {
    fn execute(self, generate: Generator) -> Result<()> {
        let environment = Environment::of_tool();
        if let Some(path) = &self.test {
            return match Config::load(&Source::File(path.clone()), &Overrides::default(), &environment) {
                Ok(_) => {
                    eprintln!("OK {}", path.display());
                    Ok(())
                }
                Err(error) => {
                    eprintln!("FAIL {}", path.display());
                    Err(error.into())
                }
            };
        }
        let options = config::configure::Options {
            cluster_name: self.cluster_name,
            version: self.version,
            acme: self.acme,
            acme_email: self.acme_email,
            public_addr: self.public_addr,
            cert_file: self.cert_file,
            key_file: self.key_file,
            data_dir: self.data_dir,
            token: self.token.map(Secret::new),
            join_method: self.join_method,
            roles: self.roles,
            auth_server: self.auth_server,
            proxy: self.proxy,
            ca_pins: self.ca_pin,
            node_name: self.node_name,
            node_labels: self.node_labels,
            ..Default::default()
        };
        let text = generate(&options, &environment.hostname).map_err(Failure::new)?;
        match self.output.as_str() {
            "stdout" | "" => say(text.trim_end()),
            "file" => write_new(Path::new(config::DEFAULT_FILE), &text),
            path => write_new(Path::new(path.strip_prefix("file://").unwrap_or(path)), &text),
        }
    }
}

impl SystemdUnit {
    fn print(self) -> Result<()> {
        let program = match self.teleport_path {
            Some(path) => path,
            None => std::env::current_exe()?,
        };
        let (program, environment, pid) = (program.display(), self.env_file.display(), self.pid_file.display());
        let limit = self.fd_limit;
        let text = format!(
            "[Unit]\nDescription=Teleport Service\nAfter=network.target\n\n\
             [Service]\nType=simple\nRestart=always\nRestartSec=5\nEnvironmentFile=-{environment}\n\
             ExecStart={program} start --config {file} --pid-file={pid}\n\
             KillSignal=SIGTERM\nPIDFile={pid}\nLimitNOFILE={limit}\n\n\
             [Install]\nWantedBy=multi-user.target\n",
            file = config::DEFAULT_FILE,
        );
        match self.output.as_str() {
            "stdout" | "" => say(text.trim_end()),
            path => write_new(Path::new(path), &text),
        }
    }
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|e| Failure(format!("creating {}: {e}", path.display())))?;
    file.write_all(text.as_bytes())?;
    say(&format!("Wrote {}", path.display()))
}

/// Says which session this terminal belongs to.
fn status() -> Result<()> {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let session = get("SSH_SESSION_ID");
    if session.is_empty() {
        return Err(Failure("this terminal is not in a session of this platform".into()));
    }
    say(&format!(
        "User ID     : {}, logged in as {}\nCluster Name: {}\nHost UUID   : {}\nSession ID  : {session}",
        get("SSH_TELEPORT_USER"),
        get("USER"),
        get("SSH_TELEPORT_CLUSTER_NAME"),
        get("SSH_TELEPORT_HOST_UUID"),
    ))
}

/// Prints a line; a reader that has gone away is no error.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
