//! `tctl`: the administrator's client of a cluster.
//!
//! * [`cli`]: the command line; [`commands`]: one module for each command.
//! * [`connect`]: whose credentials a run uses and how it reaches the Auth Service; [`api`]: the calls it makes there.
//! * [`resource`]: reading, writing and removing resources of any kind.
//! * [`output`]: tables, JSON and YAML.

mod api;
mod cli;
mod commands;
mod connect;
mod error;
mod output;
mod resource;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

use clap::Parser;
use cli::Cli;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    // Usage errors end here, with the reason before the usage.
    let cli = Cli::parse();
    let level = if cli.global.debug { LevelFilter::DEBUG } else { LevelFilter::OFF };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("ERROR: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("ERROR: {error}"));
            ExitCode::FAILURE
        }
    }
}
