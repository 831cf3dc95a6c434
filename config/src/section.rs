//! Reading a map key by key.
//!
//! A [`Section`] hands out the values of a map by key and type. It notes every problem instead of stopping,
//! and remembers which keys it was asked for: these are the known ones, so that what is left in the map is
//! unknown. Code that reads a section therefore asks for all of its keys, always.

use std::{cell::RefCell, path::PathBuf, time::Duration};

use crate::{
    HostPort,
    error::Problem,
    scalar,
    yaml::{Entry, Node, Value, shorten},
};

/// A type with a fixed set of names.
pub(crate) trait Choice: Sized {
    /// The names, as the file spells them.
    const NAMES: &'static [&'static str];
    /// The value with this name, whatever its case.
    fn from_name(name: &str) -> Option<Self>;
}

/// Defines an enum whose variants have names in the file.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal $(| $alias:literal)*,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* #[doc = concat!("`", $text, "`")] $variant,)+
        }

        impl $name {
            /// The name, as the configuration file spells it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl $crate::section::Choice for $name {
            const NAMES: &'static [&'static str] = &[$($text),+];

            fn from_name(name: &str) -> Option<Self> {
                $(if [$text $(, $alias)*].iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    return Some(Self::$variant);
                })+
                None
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use choices;

/// What all sections of one file share.
pub(crate) struct Context {
    pub(crate) file: String,
    pub(crate) problems: RefCell<Vec<Problem>>,
    pub(crate) warnings: RefCell<Vec<String>>,
}

impl Context {
    pub(crate) fn new(file: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems: RefCell::new(problems), warnings: RefCell::default() }
    }

    pub(crate) fn note(&self, line: usize, key: &str, message: String, syntax: bool) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            message,
            syntax,
        });
    }
}

/// A map of the file, or its absence.
pub(crate) struct Section<'a> {
    context: &'a Context,
    entries: &'a [Entry],
    path: String,
    line: usize,
    present: bool,
    asked: RefCell<Vec<&'a str>>,
}

impl<'a> Section<'a> {
    /// Reads a map with `read` and then notes the keys that `read` did not ask for.
    pub(crate) fn read<T>(
        context: &'a Context,
        path: String,
        node: Option<&'a Node>,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        let (entries, line, present): (&[Entry], _, _) = match node {
            None => (&[], 0, false),
            Some(Node { value: Value::Null, line }) => (&[], *line, false),
            Some(Node { value: Value::Map(entries), line }) => (entries, *line, true),
            Some(other) => {
                let message = format!("expected a map, found {}", other.describe());
                context.note(other.line, &path, message, true);
                (&[], other.line, false)
            }
        };
        let section = Section { context, entries, path, line, present, asked: RefCell::default() };
        let result = read(&section);
        section.note_unknown_keys();
        result
    }

    fn note_unknown_keys(&self) {
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|entry| !asked.contains(&entry.key.as_str())) {
            let message = match nearest(&entry.key, &asked) {
                Some(known) => format!("unknown key, did you mean {known:?}?"),
                None => {
                    let mut known: Vec<&str> = asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("unknown key, expected one of {}", known.join(", "))
                }
            };
            self.context.note(entry.line, &self.path_of(&entry.key), message, true);
        }
    }

    /// Whether the section is in the file and is a map.
    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    /// Whether the key is in the file with something other than nothing.
    pub(crate) fn has(&self, key: &'a str) -> bool {
        self.value(key).is_some()
    }

    /// Whether the value of the key is a list.
    pub(crate) fn is_list(&self, key: &'a str) -> bool {
        matches!(self.value(key), Some(Node { value: Value::List(_), .. }))
    }

    /// Every key of the map with its value, for maps whose keys are the user's.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let entries = self.entries;
        self.asked.borrow_mut().extend(entries.iter().map(|entry| entry.key.as_str()));
        entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// Accepts a key whatever its value.
    pub(crate) fn ignore(&self, key: &'a str) {
        self.asked.borrow_mut().push(key);
    }

    /// Accepts a key that has no effect, with a warning when it is there.
    pub(crate) fn ignore_with_warning(&self, key: &'a str, reason: &str) {
        if let Some(node) = self.value(key) {
            let warning = format!("{}:{}: {}: {reason}", self.context.file, node.line, self.path_of(key));
            self.context.warnings.borrow_mut().push(warning);
        }
    }

    /// Notes that the value of `key` makes no sense.
    pub(crate) fn reject(&self, key: &str, message: impl Into<String>) {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let line = entry.map_or(self.line, |entry| entry.line);
        self.context.note(line, &self.path_of(key), message.into(), false);
    }

    /// Notes that the section as a whole makes no sense.
    pub(crate) fn reject_all(&self, message: impl Into<String>) {
        self.context.note(self.line, &self.path, message.into(), false);
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &'a str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        let node = &self.entries.iter().find(|entry| entry.key == key)?.value;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    fn wrong_type(&self, path: &str, node: &Node, expected: &str) {
        let message = format!("expected {expected}, found {}", node.describe());
        self.context.note(node.line, path, message, true);
    }

    /// The text of a scalar; empty text counts as absent.
    fn scalar(&self, path: &str, node: &'a Node, expected: &str) -> Option<&'a str> {
        match &node.value {
            Value::Scalar(text) if text.is_empty() => None,
            Value::Scalar(text) => Some(text),
            _ => {
                self.wrong_type(path, node, expected);
                None
            }
        }
    }

    /// The value of `key`, read by `read`, whose error says what was expected.
    pub(crate) fn parsed<T>(&self, key: &'a str, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let node = self.value(key)?;
        let text = self.scalar(&self.path_of(key), node, expected)?;
        let value = read(text);
        if value.is_none() {
            self.wrong_type(&self.path_of(key), node, expected);
        }
        value
    }

    pub(crate) fn text(&self, key: &'a str) -> Option<String> {
        self.parsed(key, "text", |text| Some(text.to_owned()))
    }

    pub(crate) fn path(&self, key: &'a str) -> Option<PathBuf> {
        self.parsed(key, "a path", |text| Some(PathBuf::from(text)))
    }

    pub(crate) fn flag(&self, key: &'a str) -> Option<bool> {
        self.parsed(key, "yes or no", scalar::flag)
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, key: &'a str) -> Option<T> {
        self.parsed(key, "a whole number", |text| T::try_from(text.parse().ok()?).ok())
    }

    pub(crate) fn duration(&self, key: &'a str) -> Option<Duration> {
        self.parsed(key, "a duration such as 30s or 1h30m", scalar::duration)
    }

    pub(crate) fn choice<T: Choice>(&self, key: &'a str) -> Option<T> {
        self.parsed(key, &one_of(T::NAMES), T::from_name)
    }

    pub(crate) fn address(&self, key: &'a str, default_port: u16) -> Option<HostPort> {
        let node = self.value(key)?;
        let path = self.path_of(key);
        let text = self.scalar(&path, node, "an address")?;
        self.read_address(&path, node, text, default_port)
    }

    fn read_address(&self, path: &str, node: &Node, text: &str, default_port: u16) -> Option<HostPort> {
        match HostPort::parse(text, default_port) {
            Ok(address) => Some(address),
            Err(reason) => {
                let text = shorten(text);
                let message = format!("expected host:port, found {text:?}: {reason}");
                self.context.note(node.line, path, message, false);
                None
            }
        }
    }

    /// Addresses, given as one or as a list.
    pub(crate) fn addresses(&self, key: &'a str, default_port: u16) -> Vec<HostPort> {
        self.each(key, true, |path, node| {
            let text = self.scalar(path, node, "an address")?;
            self.read_address(path, node, text, default_port)
        })
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &'a str) -> Vec<String> {
        self.each(key, false, |path, node| self.scalar(path, node, "text").map(str::to_owned))
    }

    /// Texts, given as one or as a list.
    pub(crate) fn one_or_more_texts(&self, key: &'a str) -> Vec<String> {
        self.each(key, true, |path, node| self.scalar(path, node, "text").map(str::to_owned))
    }

    /// A list of texts from a fixed set.
    pub(crate) fn names(&self, key: &'a str, known: &[&'static str]) -> Vec<&'static str> {
        self.each(key, false, |path, node| {
            let text = self.scalar(path, node, "text")?;
            let name = known.iter().find(|name| name.eq_ignore_ascii_case(text)).copied();
            if name.is_none() {
                self.wrong_type(path, node, &one_of(known));
            }
            name
        })
    }

    /// A list, each item read by `read`, which may note a problem for the item's path and line.
    pub(crate) fn items<T>(&self, key: &'a str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.each(key, false, |path, node| {
            let text = self.scalar(path, node, "text")?;
            read(text).map_err(|message| self.context.note(node.line, path, message, false)).ok()
        })
    }

    /// A map of texts.
    pub(crate) fn labels(&self, key: &'a str) -> Vec<(String, String)> {
        self.section(key, |section| {
            let read = |(key, node): (&'a str, &'a Node)| {
                let value = match &node.value {
                    Value::Null => String::new(),
                    Value::Scalar(text) => text.clone(),
                    _ => {
                        section.wrong_type(&section.path_of(key), node, "text");
                        return None;
                    }
                };
                Some((key.to_owned(), value))
            };
            section.entries().filter_map(read).collect()
        })
    }

    /// A map below this one.
    pub(crate) fn section<T>(&self, key: &'a str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        let node = self.value(key);
        Section::read(self.context, self.path_of(key), node, read)
    }

    /// A list of maps.
    pub(crate) fn sections<T>(&self, key: &'a str, read: impl Fn(&Section<'a>) -> T) -> Vec<T> {
        self.each(key, false, |path, node| Some(Section::read(self.context, path.to_owned(), Some(node), &read)))
    }

    /// A map whose keys are the user's and whose values are maps.
    pub(crate) fn named_sections<T>(&self, key: &'a str, read: impl Fn(&str, &Section<'a>) -> T) -> Vec<T> {
        self.section(key, |section| {
            let each = section.entries().map(|(name, node)| {
                let path = section.path_of(name);
                Section::read(self.context, path, Some(node), |one| read(name, one))
            });
            each.collect()
        })
    }

    fn each<T>(&self, key: &'a str, or_one: bool, read: impl Fn(&str, &'a Node) -> Option<T>) -> Vec<T> {
        let Some(node) = self.value(key) else { return Vec::new() };
        let path = self.path_of(key);
        match &node.value {
            Value::List(items) => {
                items.iter().enumerate().filter_map(|(index, item)| read(&format!("{path}[{index}]"), item)).collect()
            }
            Value::Scalar(text) if or_one && text.is_empty() => Vec::new(),
            Value::Scalar(_) if or_one => read(&path, node).into_iter().collect(),
            _ => {
                self.wrong_type(&path, node, if or_one { "text or a list" } else { "a list" });
                Vec::new()
            }
        }
    }
}

/// `a, b or c`.
pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The known name that `name` most probably was to be.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let most = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), *known))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, known)| known)
}
