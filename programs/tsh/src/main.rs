//! `tsh`: log in to a cluster and use what it protects.

mod args;
mod ask;
mod commands;
mod context;
mod output;
mod progress;
mod table;

use std::process::exit;

use clap::Parser;
use clap::error::ErrorKind;
use client::advice::advise;
use client::{Error, text};

use args::{Cli, Command};
use context::Context;

/// Exit code of a command that failed.
const FAILURE: i32 = 1;

fn main() {
    let cli = Cli::try_parse().unwrap_or_else(|error| usage(&error));
    if cli.global.debug {
        log_to_stderr();
    }
    let result = match &cli.command {
        // What needs no connection does without a runtime.
        Command::Version(args) if args.client => commands::version::client(args),
        _ => run(cli),
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("ERROR: {}", text::lines(&error.to_string()));
        FAILURE
    });
    // Threads may still wait for standard input: there is nothing to wait for.
    exit(code)
}

fn run(cli: Cli) -> Result<i32, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("starting"))?;
    let context = Context::new(cli.global);
    let result = runtime.block_on(async {
        match commands::run(&context, cli.command).await {
            Err(error) => Err(advise(error, &context.selection(None)).await),
            done => done,
        }
    });
    runtime.shutdown_background();
    result
}

/// Prints what is wrong with the command line, or the help that was asked for.
fn usage(error: &clap::Error) -> ! {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print(); // whoever asked for help and does not read it has lost nothing
        exit(0)
    }
    let text = error.render().to_string();
    eprint!("ERROR: {}", text.strip_prefix("error: ").unwrap_or(&text));
    exit(FAILURE)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TELEPORT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("debug,h2=info,hyper=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
