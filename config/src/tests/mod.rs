#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad;
mod good;
mod written;

use crate::{Config, ConfigError, Environment, Overrides};

fn environment() -> Environment {
    Environment { hostname: "thishost".to_owned(), allow_no_second_factor: false }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(text, &Overrides::default())
}

fn parse_with(text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    Config::parse("t.yaml", text, overrides, &environment())
}

/// The single problems, or `ok`.
fn problems(text: &str, overrides: &Overrides) -> Vec<String> {
    match parse_with(text, overrides) {
        Ok(_) => vec!["ok".to_owned()],
        Err(error) => error.problems().iter().map(ToString::to_string).collect(),
    }
}
