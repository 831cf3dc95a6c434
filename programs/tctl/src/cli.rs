//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use resources::kind;

use crate::api::Api;
use crate::commands::{
    self, access, acl, alerts, audit, auth, bots, create, devices, edit, get, inventory, listed, loadtest, lock, nodes,
    notifications, recordings, requests, rm, tokens, top, update, users,
};
use crate::connect::{Wanted, connect};
use crate::error::Result;
use crate::output;

/// Administers a Teleport cluster.
#[derive(Debug, Parser)]
#[command(name = "tctl", arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// Flags of all commands.
#[derive(Args, Debug)]
pub struct Global {
    /// Say more on standard error.
    #[arg(short, long, global = true)]
    pub debug: bool,
    /// Configuration file of the Auth Service on this host [default: /etc/teleport.yaml].
    #[arg(short, long, global = true, value_name = "FILE", env = "TELEPORT_CONFIG_FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Address of the Auth Service or of a proxy.
    #[arg(long, global = true, value_name = "ADDRESS", env = "TELEPORT_AUTH_SERVER", hide_env_values = true)]
    #[arg(value_delimiter = ',')]
    auth_server: Vec<String>,
    /// Identity file to use in place of this host's own credentials.
    #[arg(short, long, global = true, value_name = "FILE", env = "TELEPORT_IDENTITY_FILE", hide_env_values = true)]
    identity: Option<PathBuf>,
    /// Do not verify the certificate of a proxy's web port.
    #[arg(long, global = true)]
    insecure: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the cluster, its authorities and the pin for joining.
    Status,
    /// Manage local users.
    #[command(subcommand)]
    Users(users::Users),
    /// Manage tokens that let services join the cluster.
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    /// List servers, or let one join.
    #[command(subcommand)]
    Nodes(nodes::Nodes),
    /// Show resources.
    Get(get::Get),
    /// Create resources from a file or standard input.
    Create(create::Create),
    /// Change a resource in an editor.
    Edit(edit::Edit),
    /// Change labels or the expiry of a resource.
    Update(update::Update),
    /// Remove resources.
    Rm(rm::Rm),
    /// Authorities and credentials.
    #[command(subcommand)]
    Auth(auth::Auth),
    /// Proxies of the cluster.
    #[command(subcommand)]
    Proxy(auth::Proxy),
    /// Instances of this software in the cluster.
    #[command(subcommand)]
    Inventory(inventory::Inventory),
    /// Machines that log in.
    #[command(subcommand)]
    Bots(bots::Bots),
    /// Applications that agents serve.
    #[command(subcommand)]
    Apps(listed::Listed),
    /// Databases that agents serve.
    #[command(subcommand)]
    Db(listed::Listed),
    /// Kubernetes clusters that agents serve.
    #[command(subcommand)]
    Kube(listed::Listed),
    /// Windows desktops.
    #[command(subcommand, name = "windows_desktops", aliases = ["desktop", "desktops", "windows_desktop"])]
    WindowsDesktops(listed::Listed),
    /// Keep somebody or something out.
    Lock(lock::Lock),
    /// What roles decide, and why.
    #[command(subcommand)]
    Access(access::Access),
    /// Access lists and their members.
    #[command(subcommand)]
    Acl(acl::Acl),
    /// Devices that can be trusted.
    #[command(subcommand)]
    Devices(devices::Devices),
    /// Messages to the users of the cluster.
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    /// Whether the audit log is what was written.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Recorded sessions.
    #[command(subcommand)]
    Recordings(recordings::Recordings),
    /// Requests of users for more access.
    #[command(subcommand, alias = "request")]
    Requests(requests::Requests),
    /// Texts for users, which the web interface shows.
    #[command(subcommand)]
    Notifications(notifications::Notifications),
    /// Show what a process says about itself at its diagnostics address.
    Top(top::Top),
    /// Artificial load, to see what a cluster can take.
    #[command(subcommand)]
    Loadtest(loadtest::Loadtest),
    /// Show the version of this program.
    Version,
    #[command(external_subcommand)]
    Other(Vec<String>),
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> Result<()> {
        let wanted = self.global.wanted();
        let command = match self.command {
            Command::Version => {
                output::say(&commands::version::text());
                return Ok(());
            }
            Command::Other(words) => return Err(commands::other::refuse(&words)),
            // Policies can be tested where there is no cluster.
            Command::Access(command) => return command.run(&wanted).await,
            // The process answers itself.
            Command::Top(command) => return command.run().await,
            Command::Audit(ref command) if command.run_offline()? => return Ok(()),
            other => other,
        };
        let api = connect(&wanted).await?;
        let shows_alerts = matches!(command, Command::Alerts(_));
        command.run(&api).await?;
        if !shows_alerts {
            for message in api.severe_alerts().await {
                output::complain(&format!("\nALERT: {}", output::text::lines(&message)));
            }
        }
        Ok(())
    }
}

impl Global {
    fn wanted(&self) -> Wanted {
        // A variable that is set to nothing says nothing.
        let given = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
        Wanted {
            config: given(&self.config),
            servers: self.auth_server.iter().filter(|s| !s.is_empty()).cloned().collect(),
            identity: given(&self.identity),
            insecure: self.insecure,
        }
    }
}

impl Command {
    async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Status => commands::status::run(api).await,
            Self::Users(command) => command.run(api).await,
            Self::Tokens(command) => command.run(api).await,
            Self::Nodes(command) => command.run(api).await,
            Self::Get(command) => command.run(api).await,
            Self::Create(command) => command.run(api).await,
            Self::Edit(command) => command.run(api).await,
            Self::Update(command) => command.run(api).await,
            Self::Rm(command) => command.run(api).await,
            Self::Auth(command) => command.run(api).await,
            Self::Proxy(command) => command.run(api).await,
            Self::Inventory(command) => command.run(api).await,
            Self::Bots(command) => command.run(api).await,
            Self::Apps(command) => command.run(api, kind::APP_SERVER).await,
            Self::Db(command) => command.run(api, kind::DB_SERVER).await,
            Self::Kube(command) => command.run(api, kind::KUBE_SERVER).await,
            Self::WindowsDesktops(command) => command.run(api, kind::WINDOWS_DESKTOP).await,
            Self::Lock(command) => command.run(api).await,
            Self::Acl(command) => command.run(api).await,
            Self::Devices(command) => command.run(api).await,
            Self::Alerts(command) => command.run(api).await,
            Self::Recordings(command) => command.run(api).await,
            Self::Requests(command) => command.run(api).await,
            Self::Audit(command) => command.run(api).await,
            Self::Notifications(command) => command.run(api).await,
            Self::Loadtest(command) => command.run(api).await,
            Self::Access(_) | Self::Top(_) | Self::Version | Self::Other(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for line in
            ["tctl -c f --insecure nodes ls", "tctl nodes ls -c f --insecure", "tctl nodes --config=f ls --insecure"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((cli.global.config, cli.global.insecure), (Some("f".into()), true), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_stands_before_the_usage() {
        for (line, word) in [("tctl get", "required"), ("tctl get roles --format=xml", "xml"), ("tctl rm", "required")]
        {
            let said = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            let (reason, usage) = (said.find(word).unwrap(), said.find("Usage").unwrap_or(usize::MAX));
            assert!(reason < usage, "{said}");
        }
    }
}
