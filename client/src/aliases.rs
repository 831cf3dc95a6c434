//! Commands of the user's own: `aliases` in `config/config.yaml` of the client's folder.
//!
//! An alias is a command line. `$0`, `$1` and so on stand for the words that follow it; words that none of them stands
//! for are appended. `$TSH` is this program.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::home::{Home, read};

/// The program itself, in the text of an alias.
const SELF: &str = "$TSH";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    aliases: BTreeMap<String, String>,
}

/// The command line that a word stands for, with the words that follow it; `None` when it is no alias. `program` is the
/// path of this program.
///
/// # Errors
/// When the configuration cannot be read, or words are missing.
pub fn expand(home: &Home, name: &str, words: &[String], program: &str) -> Result<Option<Vec<String>>> {
    let path = home.path().join("config").join("config.yaml");
    let Some(text) = read(&path)?.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let bad = |problem: String| Error::other(format!("{}: {problem}", path.display()));
    let settings: Settings = serde_saphyr::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let Some(alias) = settings.aliases.get(name) else { return Ok(None) };
    expanded(alias, words, program).map(Some).map_err(|problem| bad(format!("aliases.{name}: {problem}")))
}

fn expanded(alias: &str, words: &[String], program: &str) -> Result<Vec<String>, String> {
    let parts = shlex::split(alias).filter(|parts| !parts.is_empty());
    let parts = parts.ok_or_else(|| format!("expected a command line, found {alias:?}"))?;
    let mut used = vec![false; words.len()];
    let mut line = Vec::with_capacity(parts.len() + words.len());
    for (index, part) in parts.iter().enumerate() {
        // The program's own name at the beginning is the program, wherever it is.
        let part = if index == 0 && part == "tsh" { program.to_owned() } else { part.replace(SELF, program) };
        line.push(filled(&part, words, &mut used)?);
    }
    let left = words.iter().zip(&used).filter(|(_, used)| !**used).map(|(word, _)| word.clone());
    line.extend(left);
    Ok(line)
}

/// A part with the words that it names.
fn filled(part: &str, words: &[String], used: &mut [bool]) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = after.split_at(digits);
        rest = behind;
        match number.parse::<usize>() {
            Ok(index) => {
                let missing = || format!("expected at least {} words after it, found {}", index + 1, words.len());
                text.push_str(words.get(index).ok_or_else(missing)?);
                if let Some(used) = used.get_mut(index) {
                    *used = true;
                }
            }
            Err(_) => {
                text.push('$');
                text.push_str(number);
            }
        }
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn line(alias: &str, words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        expanded(alias, &words, "/bin/tsh")
    }

    #[test]
    fn words_take_their_places_and_the_rest_follows() {
        assert_eq!(line("tsh login", &["--user=a"]).unwrap(), ["/bin/tsh", "login", "--user=a"]);
        assert_eq!(line("tsh ssh $0@web", &["root", "uptime"]).unwrap(), ["/bin/tsh", "ssh", "root@web", "uptime"]);
        assert_eq!(line("sh -c '$TSH ls | grep $0'", &["x y"]).unwrap(), ["sh", "-c", "/bin/tsh ls | grep x y"]);
        assert_eq!(line("echo $HOME $1$0", &["a", "b", "c"]).unwrap(), ["echo", "$HOME", "ba", "c"]);
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        assert_eq!(line("tsh ssh $1", &["a"]).unwrap_err(), "expected at least 2 words after it, found 1");
        assert!(line("", &[]).is_err() && line("tsh 'ssh", &[]).is_err());
        assert!(line("tsh $99999999999999999999999", &["a"]).is_ok());
    }
}
