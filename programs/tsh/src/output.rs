//! Printing results.

use std::io::{self, Write};
use std::process::exit;

use client::Error;
use serde::Serialize;

use crate::args::Format;

/// Exit code of a program whose reader has gone, as the shell sees it.
const PIPE_CLOSED: i32 = 141;

/// Prints a text to standard output, as a whole.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `tsh ls | head`: there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit(PIPE_CLOSED),
        result => result.map_err(Error::io("writing to standard output")),
    }
}

/// Prints in the format that was asked for; `text` makes the form for people.
pub fn print_as<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<(), Error> {
    match format {
        Format::Text => print(&text()),
        Format::Json => print(&json(value)?),
        Format::Yaml => print(&yaml(value)?),
        Format::Names => Err(Error::other("format names is for 'tsh ls'")),
    }
}

/// JSON, indented by two spaces.
pub fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::other(format!("writing JSON: {e}")))?;
    Ok(text + "\n")
}

/// YAML.
pub fn yaml<T: Serialize>(value: &T) -> Result<String, Error> {
    let text = serde_saphyr::to_string(value).map_err(|e| Error::other(format!("writing YAML: {e}")))?;
    Ok(text.trim_end().to_owned() + "\n")
}
