//! Labels of a server: fixed ones and those a command gives.

use std::{collections::BTreeMap, time::Duration};

use crate::{scalar, section::Section};

/// How often a command runs when the configuration does not say.
const DEFAULT_PERIOD: Duration = Duration::from_secs(60);

/// A label whose value is the output of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLabel {
    /// Name of the label.
    pub name: String,
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
    /// Time between two runs, at least 1 s.
    pub period: Duration,
}

/// The labels of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Labels with fixed values.
    pub fixed: BTreeMap<String, String>,
    /// Labels with values from commands.
    pub commands: Vec<CommandLabel>,
}

impl Labels {
    /// Reads `key=value,key2=value2`; a value `[period:command arguments]` makes a label from a command.
    ///
    /// # Errors
    /// What is wrong, as one clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut labels = Self::default();
        for part in split_outside_brackets(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let (name, value) = part.split_once('=').ok_or_else(|| format!("expected key=value, found {part:?}"))?;
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            check_name(name)?;
            match value.strip_prefix('[').and_then(|value| value.strip_suffix(']')) {
                Some(spec) => labels.commands.push(parse_command(name, spec)?),
                None => drop(labels.fixed.insert(name.to_owned(), value.to_owned())),
            }
        }
        Ok(labels)
    }

    /// Reads the keys `labels` and `commands`.
    pub(crate) fn read(section: &Section<'_>, labels: &'static str, commands: &'static str) -> Self {
        let fixed = section.labels(labels);
        for (name, _) in &fixed {
            if let Err(reason) = check_name(name) {
                section.reject(labels, reason);
            }
        }
        let commands = section.sections(commands, |command| {
            let name = command.text("name").unwrap_or_default();
            let argv = command.texts("command");
            let period = command.duration("period").unwrap_or(DEFAULT_PERIOD);
            if let Err(reason) = check_name(&name) {
                command.reject("name", reason);
            }
            if argv.is_empty() {
                command.reject("command", "expected a program and its arguments, found nothing");
            }
            if period < Duration::from_secs(1) {
                command.reject("period", "expected at least 1s");
            }
            CommandLabel { name, command: argv, period }
        });
        Self { fixed: fixed.into_iter().collect(), commands }
    }
}

fn parse_command(name: &str, spec: &str) -> Result<CommandLabel, String> {
    let expected = || format!("label {name:?}: expected [period:command arguments], found [{spec}]");
    let (period, command) = spec.split_once(':').ok_or_else(expected)?;
    let period = scalar::duration(period.trim()).ok_or_else(expected)?;
    let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() || period < Duration::from_secs(1) {
        return Err(expected());
    }
    Ok(CommandLabel { name: name.to_owned(), command, period })
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

/// Names of labels may have letters, digits and a few signs.
fn check_name(name: &str) -> Result<(), String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "/._:*-".contains(c);
    if name.is_empty() {
        Err("name of a label is empty".to_owned())
    } else if name.chars().all(valid) {
        Ok(())
    } else {
        Err(format!("invalid label key {name:?}, expected letters, digits and / . _ : * -"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn labels_of_the_command_line_are_fixed_or_commands() {
        let labels = Labels::parse(r#"env=prod, tier="one",up=[1m:uptime -p, -s],empty="#).unwrap();
        let fixed: Vec<_> = labels.fixed.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(fixed, ["empty=", "env=prod", "tier=one"]);
        assert_eq!(
            labels.commands,
            [CommandLabel {
                name: "up".to_owned(),
                command: ["uptime", "-p,", "-s"].map(str::to_owned).to_vec(),
                period: Duration::from_secs(60),
            }]
        );
        assert_eq!(Labels::parse("").unwrap(), Labels::default());
    }

    #[test]
    fn what_is_no_label_says_why() {
        for (text, reason) in [
            ("env", "expected key=value, found \"env\""),
            ("a b=c", "invalid label key \"a b\", expected letters, digits and / . _ : * -"),
            ("=c", "name of a label is empty"),
            ("x=[soon:uptime]", "label \"x\": expected [period:command arguments], found [soon:uptime]"),
            ("x=[1m:]", "label \"x\": expected [period:command arguments], found [1m:]"),
            ("x=[1ms:a]", "label \"x\": expected [period:command arguments], found [1ms:a]"),
        ] {
            assert_eq!(Labels::parse(text).unwrap_err(), reason);
        }
    }
}
