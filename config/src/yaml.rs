//! YAML as a tree that knows where each part stands in the file.
//!
//! Scalars stay text: what `yes` or `off` means is decided by the key that holds it.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::Problem;

/// Most bytes a configuration may have.
const MAX_BYTES: usize = 4 << 20;

/// Most values after aliases are resolved, so that aliases of aliases cannot fill the memory.
const MAX_NODES: usize = 200_000;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) line: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `null` or `~`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) value: Node,
}

impl Node {
    /// What it is, for messages, with the text of a scalar.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar(text) => format!("{:?}", shorten(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// The beginning of a long text.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads one YAML document. Duplicate keys go to `problems`; other errors end the reading.
pub(crate) fn parse(file: &str, text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let problem =
        |line, message: String| Problem { file: file.to_owned(), line, key: String::new(), message, syntax: true };
    if text.len() > MAX_BYTES {
        return Err(problem(0, format!("file is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let mut tree = Tree::default();
    let mut duplicates = Vec::new();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) =
            event.map_err(|error| problem(error.marker().line(), format!("not valid YAML: {}", error.info())))?;
        let line = span.start.line();
        tree.take(event, &span, &mut duplicates).map_err(|message| problem(line, message))?;
    }
    problems.extend(duplicates.into_iter().map(|duplicate| Problem {
        key: duplicate.path,
        ..problem(duplicate.line, format!("key appears twice, first on line {}", duplicate.first))
    }));
    Ok(tree.root.unwrap_or(Node { value: Value::Null, line: 1 }))
}

struct Duplicate {
    path: String,
    line: usize,
    first: usize,
}

/// A list or map that is not complete.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map: the key whose value comes next.
    key: Option<(String, usize)>,
}

#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: &Span, duplicates: &mut Vec<Duplicate>) -> Result<(), String> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar(text.to_owned()),
                };
                self.place(Node { value, line }, anchor, 1, duplicates)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Value::List(Vec::new()), line, anchor);
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open(Value::Map(Vec::new()), line, anchor);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.place(merge(node)?, anchor, 1, duplicates),
                None => Ok(()),
            },
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, size)) => self.place(Node { line, ..node }, 0, size, duplicates),
                None => Err("alias refers to the value it is part of".to_owned()),
            },
            Event::DocumentStart(..) if self.root.is_some() => {
                Err("expected one YAML document, found another".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, value: Value, line: usize, anchor: usize) {
        self.open.push(Open { node: Node { value, line }, anchor, key: None });
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, node: Node, anchor: usize, size: usize, duplicates: &mut Vec<Duplicate>) -> Result<(), String> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(format!("file has more than {MAX_NODES} values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        let path = self.path();
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, line))) => {
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    duplicates.push(Duplicate { path, line, first: first.line });
                } else {
                    entries.push(Entry { key, line, value: node });
                }
            }
            (Value::Map(_), None) => match node.value {
                Value::Scalar(key) => parent.key = Some((key, node.line)),
                Value::Null => parent.key = Some(("null".to_owned(), node.line)),
                _ => return Err("key is a list or a map, expected text".to_owned()),
            },
            (Value::Null | Value::Scalar(_), _) => {}
        }
        Ok(())
    }

    /// The keys that lead to the innermost open map.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in self.open.iter().rev().skip(1).rev() {
            match (&open.node.value, &open.key) {
                (Value::List(items), _) => path.push_str(&format!("[{}]", items.len())),
                (_, Some((key, _))) if path.is_empty() => path.push_str(key),
                (_, Some((key, _))) => path.push_str(&format!(".{key}")),
                _ => {}
            }
        }
        path
    }
}

/// Replaces the key `<<` by what the map it names has and this one lacks.
fn merge(node: Node) -> Result<Node, String> {
    let Value::Map(entries) = node.value else { return Ok(node) };
    let (merges, mut entries): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.key == "<<");
    for Entry { value, .. } in merges {
        let sources = match value.value {
            Value::List(items) => items,
            _ => vec![value],
        };
        for source in sources {
            let Value::Map(inherited) = source.value else {
                return Err("key \"<<\" needs a map to merge".to_owned());
            };
            for entry in inherited {
                if entries.iter().all(|own| own.key != entry.key) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(Node { value: Value::Map(entries), line: node.line })
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
        Value::Null | Value::Scalar(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Result<Node, String>, Vec<String>) {
        let mut problems = Vec::new();
        let node = parse("f", text, &mut problems).map_err(|problem| problem.to_string());
        (node, problems.iter().map(ToString::to_string).collect())
    }

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Scalar(text) => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
            }
            Value::Map(entries) => {
                let entries = entries.iter().map(|e| format!("{}: {}", e.key, show(&e.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    #[test]
    fn scalars_stay_text() {
        let (node, _) = read("a: yes\nb: 'null'\nc: ~\nd:\ne: 010\nf: [off, {g: 1.50}]\n");
        assert_eq!(
            show(&node.unwrap()),
            r#"{a: "yes", b: "null", c: null, d: null, e: "010", f: ["off", {g: "1.50"}]}"#
        );
    }

    #[test]
    fn duplicates_are_named_with_both_lines() {
        let (_, problems) = read("a: 1\nb:\n  c:\n  - d: 1\n    d: 2\na: 3\n");
        assert_eq!(
            problems,
            ["f:5: b.c[0].d: key appears twice, first on line 4", "f:6: a: key appears twice, first on line 1",]
        );
    }

    #[test]
    fn broken_files_say_where() {
        assert!(read("version: [v3\n").0.unwrap_err().contains("not valid YAML"));
        assert_eq!(read("a: 1\n---\nb: 2\n").0.unwrap_err(), "f:2: expected one YAML document, found another");
        assert_eq!(read("? [a]\n: b\n").0.unwrap_err(), "f:1: key is a list or a map, expected text");
        assert!(read("a: *nowhere\n").0.unwrap_err().starts_with("f:1: not valid YAML"));
    }

    #[test]
    fn aliases_and_merges_are_resolved_within_bounds() {
        let (node, _) = read("base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n");
        assert_eq!(show(&node.unwrap()), r#"{base: {a: "1", b: "2"}, mine: {b: "3", a: "1"}}"#);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(read(&bomb).0.unwrap_err().contains("more than 200000 values"));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = read(&text);
        }

        #[test]
        fn random_yaml_never_panics(text in "[a-c:\\-\\[\\]{},&*<>|'\"!%? \n\t#~0]{0,60}") {
            let _ = read(&text);
        }
    }
}
