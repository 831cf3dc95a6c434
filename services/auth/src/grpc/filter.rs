//! Which of the listed resources a request asks for: labels, words, and a query.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rbac::language::{Dialect, EvalError, Expression, Scope, Value};
use resources::Resource;
use wire::error::{Error, Result};
use wire::types::ServerV2;

/// Longest query, in bytes.
const MAX_QUERY: usize = 4096;
/// Most words of one search.
const MAX_WORDS: usize = 64;

/// What a list request asks for, parsed once for all resources.
pub struct Filter {
    labels: BTreeMap<String, String>,
    words: Vec<String>,
    query: Option<Expression>,
}

impl Filter {
    /// Parses the parts of a request.
    ///
    /// # Errors
    /// `BadParameter` when the query is none; the text names it `predicate expression`, which clients recognise.
    pub fn new(labels: BTreeMap<String, String>, words: &[String], query: &str) -> Result<Self> {
        if query.len() > MAX_QUERY || words.len() > MAX_WORDS {
            return Err(Error::bad_parameter("the predicate expression or the search is too long"));
        }
        let parse = |query| {
            Expression::parse(query, Dialect::Filter)
                .map_err(|error| Error::bad_parameter(format!("failed to parse predicate expression: {error}")))
        };
        let query = (!query.trim().is_empty()).then(|| parse(query)).transpose()?;
        let words = words.iter().map(|word| word.to_lowercase()).collect();
        Ok(Self { labels, words, query })
    }

    /// Whether a server is asked for.
    ///
    /// # Errors
    /// `BadParameter` when the query compares what cannot be compared.
    pub fn accepts(&self, node: &ServerV2) -> Result<bool> {
        let node = Node(node);
        let labelled = self.labels.iter().all(|(key, wanted)| {
            key == "*" && wanted == "*" || node.label(key).is_some_and(|value| wanted == "*" || value == wanted)
        });
        if !labelled || !self.words.iter().all(|word| node.has_word(word)) {
            return Ok(false);
        }
        let Some(query) = &self.query else { return Ok(true) };
        query.holds(&node).map_err(|error| Error::bad_parameter(format!("predicate expression: {error}")))
    }
}

/// The labels of a server: results of commands hide static ones of the same name.
pub fn labels(node: &ServerV2) -> BTreeMap<&str, &str> {
    let mut labels: BTreeMap<&str, &str> =
        node.metadata().labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let commands = node.spec.iter().flat_map(|spec| &spec.cmd_labels);
    labels.extend(commands.map(|(key, command)| (key.as_str(), command.result.as_str())));
    labels
}

/// A server as queries see it.
struct Node<'a>(&'a ServerV2);

impl Node<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let command = self.0.spec.as_ref().and_then(|spec| spec.cmd_labels.get(key));
        command.map(|command| command.result.as_str()).or_else(|| self.0.metadata().labels.get(key).map(String::as_str))
    }

    fn hostname(&self) -> &str {
        self.0.spec.as_ref().map_or("", |spec| &spec.hostname)
    }

    /// Whether a lower-case word is part of a name, an address or a label.
    fn has_word(&self, word: &str) -> bool {
        let contains = |text: &str| contains_ignoring_case(text, word);
        let Some(spec) = &self.0.spec else { return contains(self.0.name()) };
        contains(self.0.name())
            || contains(&spec.hostname)
            || contains(&spec.addr)
            || spec.public_addrs.iter().any(|address| contains(address))
            || spec.use_tunnel && "tunnel".contains(word)
            || labels(self.0).iter().any(|(key, value)| contains(key) || contains(value))
    }
}

impl Scope for Node<'_> {
    /// A server's name is the one people know it by: its host name.
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError> {
        let metadata = self.0.metadata();
        let spec = self.0.spec.as_ref();
        Ok(match path {
            ["name"] if !self.hostname().is_empty() => Value::text(self.hostname()),
            ["name"] | ["resource", "metadata", "name"] => Value::text(&metadata.name),
            ["labels", key] | ["resource", "metadata", "labels", key] => {
                self.label(key).map_or(Value::Absent, Value::text)
            }
            ["resource", "kind"] => Value::text(self.0.kind()),
            ["resource", "sub_kind"] => Value::text(self.0.sub_kind()),
            ["resource", "version"] => Value::text(self.0.version()),
            ["resource", "metadata", "description"] => Value::text(&metadata.description),
            ["resource", "spec", "hostname"] => Value::text(self.hostname()),
            ["resource", "spec", "addr"] => Value::text(spec.map_or("", |spec| &spec.addr)),
            ["resource", "spec", "version"] => Value::text(spec.map_or("", |spec| &spec.version)),
            ["resource", "spec", "public_addrs"] => {
                Value::List(spec.iter().flat_map(|spec| &spec.public_addrs).map(|a| Cow::Borrowed(a.as_str())).collect())
            }
            ["resource", "spec", "use_tunnel"] => Value::Bool(spec.is_some_and(|spec| spec.use_tunnel)),
            ["resource"] | ["resource", "metadata" | "spec"] | ["resource", "metadata", "labels"] => Value::Map,
            path => return Err(EvalError::Undefined(path.join("."))),
        })
    }

    fn search(&self, words: &[Cow<'_, str>]) -> bool {
        words.iter().all(|word| self.has_word(&word.to_lowercase()))
    }
}

/// Whether `text` contains the lower-case `word`, whatever the case; without copying the usual plain text.
fn contains_ignoring_case(text: &str, word: &str) -> bool {
    if word.is_empty() {
        return true;
    }
    if !text.is_ascii() || !word.is_ascii() {
        return text.to_lowercase().contains(word);
    }
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use wire::types::{CommandLabelV2, Metadata, ServerSpecV2};

    use super::*;

    fn node() -> ServerV2 {
        let command = CommandLabelV2 { result: "5.10".to_owned(), ..Default::default() };
        ServerV2 {
            kind: "node".to_owned(),
            metadata: Some(Metadata {
                name: "5c2a".to_owned(),
                labels: [("env", "prod"), ("kernel", "static")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                ..Default::default()
            }),
            spec: Some(ServerSpecV2 {
                hostname: "Lab-1".to_owned(),
                use_tunnel: true,
                cmd_labels: [("kernel".to_owned(), command)].into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn accepts(labels: &[(&str, &str)], words: &[&str], query: &str) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Filter::new(labels, &words, query).unwrap().accepts(&node()).unwrap()
    }

    #[test]
    fn labels_words_and_query_must_all_fit() {
        assert!(accepts(&[], &[], ""));
        assert!(accepts(&[("env", "prod")], &["LAB", "5.10", "tunnel"], r#"hasPrefix(name, "Lab")"#));
        assert!(!accepts(&[("env", "dev")], &[], ""));
        assert!(!accepts(&[], &["lab", "nothing"], ""));
        assert!(!accepts(&[], &[], r#"labels["env"] != "prod""#));
        assert!(accepts(&[], &[], r#"(name == "Lab-1") || (labels["x"] == "y")"#));
        assert!(accepts(&[], &[], r#"search("lab") && exists(labels.env)"#));
    }

    #[test]
    fn the_result_of_a_command_hides_a_static_label() {
        assert!(accepts(&[("kernel", "5.10")], &[], ""));
        assert!(!accepts(&[("kernel", "static")], &[], ""));
    }

    #[test]
    fn what_is_no_query_is_refused_in_the_words_clients_recognise() {
        let error = Filter::new(BTreeMap::new(), &[], "name ==").err().unwrap();
        assert!(error.message.contains("predicate expression"), "{error}");
        assert!(Filter::new(BTreeMap::new(), &[], &"(".repeat(5000)).is_err());
    }
}
