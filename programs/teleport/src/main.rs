//! `teleport`: the daemon, any set of services in one process.

mod auth;
mod cli;
mod cloning;
mod debug;
mod diagnostics;
mod error;
mod exchange;
mod keys;
mod logging;
mod member;
mod metrics;
mod node;
mod proxy;
mod reload;
mod rotation;
mod run;
mod storage;
mod usage;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ERROR: {error}");
            ExitCode::FAILURE
        }
    }
}
