//! Labels as arguments: `key=value,key2="a value, with a comma"`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Reads labels. Values may stand in double quotes.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let wrong = || Error::bad(format!("{text:?} is no list of labels: expected key=value,key2=value2"));
        let (key, tail) = rest.split_once('=').ok_or_else(wrong)?;
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(wrong)?,
            None => tail.split_at(tail.find(',').unwrap_or(tail.len())),
        };
        let key = key.trim().trim_matches('"');
        if key.is_empty() || key.contains(',') {
            return Err(wrong());
        }
        if labels.insert(key.to_owned(), value.trim().to_owned()).is_some() {
            return Err(Error::bad(format!("label {key:?} is given twice in {text:?}")));
        }
        rest = match tail.trim_start() {
            "" => "",
            tail => tail.strip_prefix(',').ok_or_else(wrong)?.trim_start(),
        };
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn labels_are_read_with_and_without_quotes() {
        let read = |text| parse(text).unwrap().into_iter().collect::<Vec<_>>();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(read("env=prod,team=a"), [pair("env", "prod"), pair("team", "a")]);
        assert_eq!(read("a=\"x, y\", b=z=1"), [pair("a", "x, y"), pair("b", "z=1")]);
        assert_eq!(read(""), []);
        assert_eq!(read("a="), [pair("a", "")]);
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for text in ["env", "=x", "a=b,c", "a=\"b", "a=1,a=2", "a=\"b\"c"] {
            assert!(parse(text).unwrap_err().to_string().contains("label"), "{text}");
        }
    }
}
