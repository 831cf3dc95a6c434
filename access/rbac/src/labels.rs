use std::{borrow::Cow, cell::Cell, collections::BTreeMap};

use wire::{
    types::{CommandLabelV2, ServerV2},
    wrappers::LabelValues,
};

use crate::{
    language::{Dialect, EvalError, Expression, Scope, Value},
    pattern::Pattern,
    template::Template,
    traits::Traits,
};

/// The labels of a resource. A label whose value comes from a command hides a fixed one of the same key.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    fixed: &'a BTreeMap<String, String>,
    commands: Option<&'a BTreeMap<String, CommandLabelV2>>,
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl<'a> Labels<'a> {
    /// Labels with fixed values only.
    pub fn fixed(labels: &'a BTreeMap<String, String>) -> Self {
        Self { fixed: labels, commands: None }
    }

    /// Fixed labels and labels whose values come from commands.
    pub fn with_commands(labels: &'a BTreeMap<String, String>, commands: &'a BTreeMap<String, CommandLabelV2>) -> Self {
        Self { fixed: labels, commands: Some(commands).filter(|c| !c.is_empty()) }
    }

    /// The labels of a server.
    pub fn of(server: &'a ServerV2) -> Self {
        let fixed = server.metadata.as_ref().map_or(&NO_LABELS, |m| &m.labels);
        match &server.spec {
            Some(spec) => Self::with_commands(fixed, &spec.cmd_labels),
            None => Self::fixed(fixed),
        }
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let dynamic = self.commands.and_then(|c| c.get(key)).map(|c| c.result.as_str());
        dynamic.or_else(|| self.fixed.get(key).map(String::as_str))
    }

    /// All labels, ordered by kind and key.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let commands = self.commands;
        let dynamic = commands.into_iter().flatten().map(|(k, c)| (k.as_str(), c.result.as_str()));
        let hidden = move |key: &str| commands.is_some_and(|c| c.contains_key(key));
        dynamic.chain(self.fixed.iter().filter(move |(k, _)| !hidden(k)).map(|(k, v)| (k.as_str(), v.as_str())))
    }
}

/// How many keys of selectors are looked up once for all roles; rarer ones are looked up each time.
const SLOTS: usize = 16;

/// The keys that the selectors of a set of roles name, numbered in the order of their first use.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<String>);

impl Keys {
    fn number(&mut self, key: &str) -> usize {
        self.0.iter().position(|k| k == key).unwrap_or_else(|| {
            self.0.push(key.to_owned());
            self.0.len() - 1
        })
    }
}

/// The labels of a resource during one decision: each key is looked up once, however many roles name it.
pub(crate) struct Lookup<'a> {
    pub(crate) labels: Labels<'a>,
    found: [Cell<Option<Option<&'a str>>>; SLOTS],
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(labels: Labels<'a>) -> Self {
        Self { labels, found: [const { Cell::new(None) }; SLOTS] }
    }

    fn get(&self, key: &Key) -> Option<&'a str> {
        let Some(slot) = self.found.get(key.number) else { return self.labels.get(&key.name) };
        slot.get().unwrap_or_else(|| {
            let value = self.labels.get(&key.name);
            slot.set(Some(value));
            value
        })
    }
}

/// A key of a selector.
#[derive(Debug)]
pub(crate) struct Key {
    name: String,
    number: usize,
}

/// A label selector of a role, with its templates parsed.
#[derive(Clone, Debug)]
pub(crate) enum SelectorTemplate {
    /// Matches nothing.
    Empty,
    /// `"*": "*"` matches everything, also what has no labels.
    Everything,
    Entries(Vec<(Template, Vec<Template>)>),
}

/// A label selector of one user.
#[derive(Debug)]
pub(crate) enum Selector {
    Empty,
    Everything,
    /// Every key has to exist with a value that fits one of its patterns.
    Entries(Vec<(Key, Vec<Pattern>)>),
}

impl SelectorTemplate {
    pub(crate) fn parse(labels: Option<&LabelValues>) -> Result<Self, String> {
        let Some(labels) = labels.filter(|l| !l.values.is_empty()) else { return Ok(Self::Empty) };
        let everything = labels.values.get("*").is_some_and(|v| v.values.iter().any(|v| v == "*"));
        if everything {
            return Ok(Self::Everything);
        }
        if labels.values.contains_key("*") {
            return Err("selector *:<value> is not supported".into());
        }
        let parse = |text: &String| Template::parse(text).map_err(|e| e.to_string());
        let entry = |(key, values): (&String, &wire::wrappers::StringValues)| {
            Ok((parse(key)?, values.values.iter().map(parse).collect::<Result<Vec<_>, String>>()?))
        };
        let entries: Vec<(Template, Vec<Template>)> = labels.values.iter().map(entry).collect::<Result<_, String>>()?;
        // Patterns that no trait can change are checked now, so that problems show without a user.
        for template in entries.iter().flat_map(|(_, values)| values).filter(|t| t.is_fixed()) {
            template.patterns(&Traits::default())?;
        }
        Ok(Self::Entries(entries))
    }

    pub(crate) fn expand(&self, traits: &Traits, keys: &mut Keys) -> Result<Selector, String> {
        let entries = match self {
            Self::Empty => return Ok(Selector::Empty),
            Self::Everything => return Ok(Selector::Everything),
            Self::Entries(entries) => entries,
        };
        let mut expanded = Vec::with_capacity(entries.len());
        for (key, values) in entries {
            let name = key.expand(traits).into_iter().next().unwrap_or_default();
            let key = Key { number: keys.number(&name), name };
            let mut patterns = Vec::new();
            for value in values {
                patterns.extend(value.patterns(traits)?);
            }
            expanded.push((key, patterns));
        }
        Ok(Selector::Entries(expanded))
    }
}

impl Selector {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(crate) fn matches(&self, labels: &Lookup<'_>) -> bool {
        match self {
            Self::Empty => false,
            Self::Everything => true,
            Self::Entries(entries) => entries
                .iter()
                .all(|(key, patterns)| labels.get(key).is_some_and(|value| patterns.iter().any(|p| p.matches(value)))),
        }
    }

    /// Why the labels do not fit, in words.
    pub(crate) fn mismatch(&self, labels: &Lookup<'_>) -> Option<String> {
        let Self::Entries(entries) = self else {
            return self.is_empty().then(|| "no labels are given".to_owned());
        };
        entries.iter().find_map(|(key, patterns)| match labels.get(key) {
            None => Some(format!("the resource has no label {:?}", key.name)),
            Some(value) if !patterns.iter().any(|p| p.matches(value)) => {
                Some(format!("label {:?} is {value:?}, which fits none of its values", key.name))
            }
            Some(_) => None,
        })
    }
}

/// Parses the label expression of a role; an empty text is none.
pub(crate) fn parse_expression(text: &str) -> Result<Option<Expression>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Expression::parse(text, Dialect::Labels).map(Some).map_err(|e| e.to_string())
}

/// What the names of a label expression stand for.
pub(crate) struct LabelScope<'a> {
    pub labels: Labels<'a>,
    pub traits: &'a Traits,
}

impl Scope for LabelScope<'_> {
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError> {
        match path {
            ["labels", key] => Ok(self.labels.get(key).map_or(Value::Absent, |v| Value::Text(Cow::Borrowed(v)))),
            ["user", "spec", "traits", name] => Ok(Value::list(self.traits.get(name))),
            _ => Err(EvalError::Undefined(path.join("."))),
        }
    }

    fn labels_matching(&self, accepts: &dyn Fn(&str) -> bool) -> Vec<String> {
        self.labels.iter().filter(|(key, _)| accepts(key)).map(|(_, value)| value.to_owned()).collect()
    }
}
