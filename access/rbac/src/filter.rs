//! Filters of lists: labels, words, and the predicate of `--query`.

use std::{borrow::Cow, cell::OnceCell, collections::BTreeMap};

use serde_json::Value as Json;
use wire::{
    error::{ErrorKind, Kinded},
    types::ServerV2,
};

use crate::{
    labels::Labels,
    language::{Dialect, EvalError, Expression, ExpressionError, Scope, Value},
};

/// What can be filtered.
pub trait Filtered {
    /// What `name` stands for: what users call the thing, for a server its host name.
    fn name(&self) -> &str;
    /// What `labels` stands for.
    fn labels(&self) -> Labels<'_>;
    /// The texts that words are searched in, besides name and labels.
    fn searched(&self) -> Vec<&str>;
    /// What `resource` stands for; only asked for when a predicate uses it.
    fn json(&self) -> Json;
}

impl Filtered for ServerV2 {
    fn name(&self) -> &str {
        self.spec.as_ref().map_or("", |s| &s.hostname)
    }

    fn labels(&self) -> Labels<'_> {
        Labels::of(self)
    }

    fn searched(&self) -> Vec<&str> {
        let name = self.metadata.as_ref().map(|m| m.name.as_str());
        let spec = self.spec.as_ref();
        let addresses = spec.into_iter().flat_map(|s| s.public_addrs.iter().chain([&s.addr])).map(String::as_str);
        let tunnel = spec.filter(|s| s.use_tunnel).map(|_| "tunnel");
        name.into_iter().chain(addresses).chain(tunnel).collect()
    }

    fn json(&self) -> Json {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The predicate is no expression.
    #[error("failed to parse predicate expression: {0}")]
    Syntax(#[from] ExpressionError),
    /// The predicate has no truth value.
    #[error("failed to evaluate predicate expression: {0}")]
    Evaluation(#[from] EvalError),
}

impl Kinded for FilterError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::BadParameter
    }
}

impl From<FilterError> for wire::error::Error {
    fn from(error: FilterError) -> Self {
        Self::bad_parameter(error.to_string())
    }
}

/// What a list is narrowed to. Everything that is given has to fit.
#[derive(Clone, Debug, Default)]
pub struct ResourceFilter {
    labels: BTreeMap<String, String>,
    words: Vec<String>,
    predicate: Option<Expression>,
}

impl ResourceFilter {
    /// A filter from exact labels, words that have to be found somewhere, and a predicate (empty for none).
    ///
    /// # Errors
    /// The predicate is no expression.
    pub fn new(labels: BTreeMap<String, String>, words: &[String], predicate: &str) -> Result<Self, FilterError> {
        let predicate = match predicate.trim() {
            "" => None,
            text => Some(Expression::parse(text, Dialect::Filter)?),
        };
        let words = words.iter().map(|w| w.trim().to_lowercase()).filter(|w| !w.is_empty()).collect();
        Ok(Self { labels, words, predicate })
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.words.is_empty() && self.predicate.is_none()
    }

    /// Whether a resource passes.
    ///
    /// # Errors
    /// The predicate has no truth value.
    pub fn matches(&self, resource: &dyn Filtered) -> Result<bool, FilterError> {
        let labels = resource.labels();
        if !self.labels.iter().all(|(key, value)| labels.get(key) == Some(value)) {
            return Ok(false);
        }
        if !self.words.is_empty() && !finds_all(resource, self.words.iter().map(String::as_str)) {
            return Ok(false);
        }
        match &self.predicate {
            None => Ok(true),
            Some(predicate) => Ok(predicate.holds(&FilterScope { resource, json: OnceCell::new() })?),
        }
    }
}

/// Whether every word (in lower case) is part of some text of the resource.
fn finds_all<'w>(resource: &dyn Filtered, words: impl Iterator<Item = &'w str>) -> bool {
    let mut missing: Vec<&str> = words.collect();
    // One text for all: lists are searched item by item.
    let mut lower = String::new();
    let mut look = |parts: &[&str]| {
        lower.clear();
        lower.extend(parts.iter().copied());
        if lower.is_ascii() {
            lower.make_ascii_lowercase();
        } else {
            lower = lower.to_lowercase();
        }
        missing.retain(|word| !lower.contains(word));
        missing.is_empty()
    };
    look(&[resource.name()])
        || resource.searched().iter().any(|text| look(&[text]))
        || resource.labels().iter().any(|(key, value)| look(&[key, "=", value]))
}

struct FilterScope<'a> {
    resource: &'a dyn Filtered,
    json: OnceCell<Json>,
}

impl Scope for FilterScope<'_> {
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError> {
        match path {
            ["name"] => Ok(Value::text(self.resource.name())),
            ["labels", key] => {
                Ok(self.resource.labels().get(key).map_or(Value::Absent, |v| Value::Text(Cow::Borrowed(v))))
            }
            ["resource", rest @ ..] => {
                let mut value = Some(self.json.get_or_init(|| self.resource.json()));
                for word in rest {
                    value = value.and_then(|v| v.get(*word));
                }
                Ok(value.map_or(Value::Absent, Value::json))
            }
            _ => Err(EvalError::Undefined(path.join("."))),
        }
    }

    fn search(&self, words: &[Cow<'_, str>]) -> bool {
        let words: Vec<String> = words.iter().map(|w| w.to_lowercase()).collect();
        finds_all(self.resource, words.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn node() -> ServerV2 {
        serde_json::from_value(json!({
            "kind": "node", "version": "v2",
            "metadata": {"name": "uuid-1", "labels": {"env": "prod", "owner": "tpbob", "kernel": "hidden"}},
            "spec": {"hostname": "lab1", "addr": "10.0.0.1:3022",
                     "cmd_labels": {"kernel": {"period": "1m0s", "command": ["uname"], "result": "Linux"}}}
        }))
        .unwrap()
    }

    fn matches(predicate: &str) -> Result<bool, FilterError> {
        ResourceFilter::new(BTreeMap::new(), &[], predicate)?.matches(&node())
    }

    #[test]
    fn predicates_select_by_name_labels_words_and_fields() {
        for (predicate, selected) in [
            ("", true),
            (r#"labels["env"] == "prod" && labels.owner == "tpbob""#, true),
            (r#"labels["env"] != "prod""#, false),
            (r#"labels.missing == """#, true),
            (r#"hasPrefix(name, "lab")"#, true),
            (r#"name == "lab1""#, true),
            (r#"search("BOB")"#, true),
            (r#"search("bob", "nothing")"#, false),
            ("exists(labels.env)", true),
            ("!exists(labels.stage)", true),
            (r#"labels.kernel == "Linux""#, true),
            (r#"equals(resource.metadata.name, "uuid-1")"#, true),
            (r#"resource.spec.hostname == "lab1" || false"#, true),
            (r#"(name == "x") || (labels["env"] == "prod")"#, true),
            (r#"contains(split(labels.env, "r"), "od")"#, true),
            ("true", true),
        ] {
            assert_eq!(matches(predicate), Ok(selected), "{predicate}");
        }
    }

    #[test]
    fn refusals_say_predicate_expression() {
        for predicate in [
            "labels[",
            "name ==",
            "name = 1",
            "nosuch(1)",
            "user.name == \"x\"",
            "name",
            "search()",
            "exists(\"x\")",
            "labels.a.b == \"x\"",
            "((((",
            "1 2",
        ] {
            let error = matches(predicate).unwrap_err().to_string();
            assert!(error.contains("predicate expression"), "{error}");
        }
    }

    #[test]
    fn labels_and_words_narrow_as_well() {
        let filter = |labels: &[(&str, &str)], words: &[&str]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            ResourceFilter::new(labels, &words, "").unwrap().matches(&node()).unwrap()
        };
        assert!(filter(&[("env", "prod"), ("kernel", "Linux")], &["LAB", "10.0"]));
        assert!(!filter(&[("env", "test")], &[]));
        assert!(!filter(&[], &["lab", "nowhere"]));
    }
}
