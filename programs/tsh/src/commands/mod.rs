//! The commands, thin: each calls the library and prints.

mod config;
mod env;
mod latency;
mod list;
mod login;
mod mfa;
mod play;
mod proxy;
mod recordings;
mod request;
mod resolve;
mod scp;
mod ssh;
mod status;
pub mod version;

use client::{Error, Result, text};

use crate::args::{Command, LatencyCommand, ProxyCommand, RecordingsCommand, SessionsCommand};
use crate::context::Context;

/// Commands that later builds have.
const LATER: &[&str] = &[
    "app",
    "apps",
    "aws",
    "az",
    "bench",
    "daemon",
    "db",
    "device",
    "gcloud",
    "git",
    "gsutil",
    "headless",
    "kube",
    "kubectl",
    "puttyconfig",
    "scan",
    "show",
    "svid",
    "vnet",
    "webauthnwin",
    "workload-identity",
];

/// Does what a command says; returns the exit code.
pub async fn run(context: &Context, command: Command) -> Result<i32> {
    if let Some(refusal) = context.global.refusal() {
        return Err(Error::other(text::line(&refusal)));
    }
    match command {
        Command::Login(args) => login::login(context, &args).await,
        Command::Logout => login::logout(context).await,
        Command::Status(args) => status::status(context, &args),
        Command::Ssh(args) => ssh::ssh(context, &args).await,
        Command::Scp(args) => scp::scp(context, &args).await,
        Command::Join(args) => ssh::join(context, &args).await,
        Command::Ls(args) => list::ls(context, &args).await,
        Command::Clusters(args) => list::clusters(context, &args).await,
        Command::Sessions(args) => match args.command {
            SessionsCommand::Ls(args) => list::sessions(context, &args).await,
        },
        Command::Recordings(args) => match args.command {
            RecordingsCommand::Ls(args) => list::recordings(context, &args).await,
            RecordingsCommand::Export(args) => recordings::export(context, &args).await,
            RecordingsCommand::Search(args) => recordings::search(context, &args).await,
        },
        Command::Play(args) => play::play(context, &args).await,
        Command::Mfa(args) => mfa::mfa(context, &args.command).await,
        Command::Request(args) => request::request(context, &args.command).await,
        Command::Resolve(args) => resolve::resolve(context, &args).await,
        Command::Latency(args) => match args.command {
            LatencyCommand::Ssh(args) => latency::ssh(context, &args).await,
        },
        Command::Config(args) => config::config(context, &args).await,
        Command::Proxy(args) => match args.command {
            ProxyCommand::Ssh(args) => proxy::ssh(context, &args).await,
            ProxyCommand::Other(words) => Err(later("tsh proxy", words.first())),
        },
        Command::Env(args) => env::env(context, &args),
        Command::Version(args) => version::version(context, &args).await,
        Command::Other(words) => match words.first() {
            Some(name) if LATER.contains(&name.as_str()) => Err(later("tsh", Some(name))),
            name => {
                let name = name.map(|name| text::line(name).into_owned()).unwrap_or_default();
                Err(Error::other(format!("there is no command {name:?}: 'tsh help' lists the commands")))
            }
        },
    }
}

fn later(program: &str, name: Option<&String>) -> Error {
    let name = name.map(|name| text::line(name).into_owned()).unwrap_or_default();
    Error::other(format!("'{program} {name}' is not part of this build yet"))
}
