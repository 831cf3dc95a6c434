//! What commands show: text, JSON or YAML.

pub mod table;
pub mod text;
pub mod time;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use resources::AnyResource;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::error::{Error, Result};

pub use table::Table;

/// How a command shows what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For files.
    Yaml,
}

/// Writes to standard output. Whoever closed it wants no more, so failures are not reported.
pub fn say(text: &str) {
    raw(text.as_bytes());
}

/// The same for what is no text.
pub fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person reads standard output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// JSON with this many blanks for each level, and a newline at the end.
pub fn json<T: Serialize + ?Sized>(value: &T, indent: usize) -> Result<String> {
    let blanks = vec![b' '; indent];
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(&blanks));
    value.serialize(&mut writer).map_err(|e| Error::other(format!("cannot write JSON: {e}")))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(|e| Error::other(format!("cannot write JSON: {e}")))
}

/// One YAML document.
pub fn yaml<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    // By way of JSON: the same shapes in both.
    let value = serde_json::to_value(value).map_err(|e| Error::other(format!("cannot write YAML: {e}")))?;
    let mut text = serde_saphyr::to_string(&value).map_err(|e| Error::other(format!("cannot write YAML: {e}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Resources in a format; `table` makes the text.
pub fn resources(found: &[AnyResource], format: Format, table: impl FnOnce() -> String) -> Result<String> {
    match format {
        Format::Text => Ok(table()),
        Format::Json => json(found, 4),
        Format::Yaml => Ok(resources::to_yaml(found)?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn json_is_indented_as_each_command_wants_it() {
        assert_eq!(json(&serde_json::json!({"a": [1]}), 1).unwrap(), "{\n \"a\": [\n  1\n ]\n}\n");
        assert_eq!(json(&Vec::<String>::new(), 4).unwrap(), "[]\n");
    }
}
