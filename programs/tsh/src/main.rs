//! `tsh`: log in to a cluster and use what it protects.

mod args;
mod ask;
mod commands;
mod context;
mod output;
mod progress;
mod table;

use std::os::unix::process::CommandExt;
use std::process::exit;

use clap::Parser;
use clap::error::ErrorKind;
use client::advice::advise;
use client::home::Home;
use client::{Error, aliases, text};

use args::{Cli, Command};
use context::Context;

/// Exit code of a command that failed.
const FAILURE: i32 = 1;

/// Aliases that led here, separated by commas: they are not expanded again.
const EXPANDED: &str = "TSH_UNALIAS";

fn main() {
    if let Some(code) = alias() {
        exit(code);
    }
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

/// Runs the command line that the first word stands for, if it is an alias; with what came of it where that did not work.
fn alias() -> Option<i32> {
    let mut arguments = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
    let name = arguments.next()?.ok().filter(|name| !name.starts_with('-'))?;
    let words = arguments.collect::<Result<Vec<_>, _>>().ok()?;
    let expanded = std::env::var(EXPANDED).unwrap_or_default();
    if !may_expand(&name, &expanded) {
        return None;
    }
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_else(|_| "tsh".to_owned());
    let line = match aliases::expand(&Home::from_environment(), &name, &words, &program) {
        Ok(line) => line?,
        Err(error) => {
            eprintln!("ERROR: {}", text::lines(&error.to_string()));
            return Some(FAILURE);
        }
    };
    let (program, arguments) = line.split_first()?;
    let marked = if expanded.is_empty() { name.clone() } else { format!("{expanded},{name}") };
    let error = std::process::Command::new(program).args(arguments).env(EXPANDED, marked).exec();
    eprintln!("ERROR: alias {}: running {}: {error}", text::line(&name), text::line(program));
    Some(FAILURE)
}

/// Whether a word may stand for an alias, where those in `expanded` have led here. With a comma in its name an alias could
/// not be told from two, and would lead to itself for ever.
fn may_expand(name: &str, expanded: &str) -> bool {
    !name.contains(',') && expanded.split(',').all(|earlier| earlier != name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_leads_to_itself_no_second_time() {
        assert!(may_expand("web", "") && may_expand("web", "websites,db"));
        assert!(!may_expand("web", "db,web"));
        assert!(!may_expand("a,b", "") && !may_expand("a,b", "a,b"));
    }
}
