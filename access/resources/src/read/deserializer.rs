use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
};
use serde_json::{Map, Value};
use wire::fields::Field;

use super::nearest;
use crate::ResourceError;

/// Where a value stands in its document, as a list linked towards the root.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => write_name(f, name),
            Self::Field(parent, name) => {
                write!(f, "{parent}.")?;
                write_name(f, name)
            }
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Names that would be mistaken for structure or move the cursor are quoted.
fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if name.chars().all(|c| c.is_alphanumeric() || "_-*/:".contains(c)) && !name.is_empty() {
        f.write_str(name)
    } else {
        write!(f, "{name:?}")
    }
}

/// A problem, with its path as soon as it is known.
#[derive(Debug)]
pub(super) struct Problem {
    path: Option<String>,
    message: String,
}

impl Problem {
    fn new(path: Path<'_>, message: impl Into<String>) -> Self {
        Self { path: Some(path.to_string()), message: message.into() }
    }

    /// Gives a problem that was found by somebody who knows no paths the path of the value they were given.
    fn at(mut self, path: Path<'_>) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: None, message: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { path: None, message: format!("expected {expected}, found {}", describe_unexpected(&found)) }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

impl From<Problem> for ResourceError {
    fn from(problem: Problem) -> Self {
        match problem.path {
            Some(path) if !path.is_empty() => Self::field(path, problem.message),
            _ => Self::invalid(problem.message),
        }
    }
}

/// A value as it is called in messages.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("{s:?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a map".into(),
    }
}

fn describe_unexpected(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Float(n) => format!("the number {n}"),
        Unexpected::Str(s) => format!("{s:?}"),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a map".into(),
        other => other.to_string(),
    }
}

/// A deserializer over a JSON value that knows its path and collects fields that do not exist.
pub(super) struct Reader<'a> {
    value: Value,
    path: Path<'a>,
    unknown: &'a RefCell<Vec<ResourceError>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(value: Value, path: Path<'a>, unknown: &'a RefCell<Vec<ResourceError>>) -> Self {
        Self { value, path, unknown }
    }

    fn expected<T>(&self, what: &str) -> Result<T, Problem> {
        let hint = match (&self.value, what) {
            (Value::Number(_) | Value::Bool(_), "text") => ": put it in quotes",
            _ => "",
        };
        Err(Problem::new(self.path, format!("expected {what}, found {}{hint}", describe(&self.value))))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let path = self.path;
        match &self.value {
            Value::Null => visitor.visit_u64(0),
            Value::Number(n) if n.is_u64() => visitor.visit_u64(n.as_u64().unwrap_or_default()),
            Value::Number(n) if n.is_i64() => visitor.visit_i64(n.as_i64().unwrap_or_default()),
            _ => return self.expected("a whole number"),
        }
        .map_err(|e: Problem| e.at(path))
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let path = self.path;
        match self.value {
            Value::Null => visitor.visit_string(String::new()).map_err(|e: Problem| e.at(path)),
            Value::String(s) => visitor.visit_string(s).map_err(|e: Problem| e.at(path)),
            _ => self.expected("text"),
        }
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        known: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Problem> {
        let (path, unknown) = (self.path, self.unknown);
        match self.value {
            Value::Null => visitor.visit_map(Fields::new(Map::new(), path, unknown)),
            Value::Object(mut map) => {
                if let Some(known) = known {
                    map.retain(|name, value| {
                        if !known.contains(&name.as_str()) {
                            unknown.borrow_mut().push(unknown_field(path, name, known.iter().copied()));
                            return false;
                        }
                        !value.is_null()
                    });
                }
                visitor.visit_map(Fields::new(map, path, unknown))
            }
            _ => return self.expected("a map"),
        }
        .map_err(|e: Problem| e.at(path))
    }

    /// As [`fields`](Self::fields), for a message that holds fields of others beside its own: those reach it without
    /// passing here again, so they are looked through at once.
    fn flattened<'de, V: Visitor<'de>>(mut self, visitor: V, known: &[Field]) -> Result<V::Value, Problem> {
        if let Value::Object(map) = &mut self.value {
            let (path, unknown) = (self.path, self.unknown);
            map.retain(|name, value| match known.iter().find(|field| field.0 == name) {
                Some((_, nested, taken)) => {
                    if *taken {
                        find_unknown(value, nested, Path::Field(&path, name), unknown);
                    }
                    !value.is_null()
                }
                None => {
                    unknown.borrow_mut().push(unknown_field(path, name, known.iter().map(|field| field.0)));
                    false
                }
            });
        }
        self.fields(visitor, None)
    }
}

/// Notes the fields within a value that its message does not have.
fn find_unknown(value: &Value, message: &str, path: Path<'_>, unknown: &RefCell<Vec<ResourceError>>) {
    let Some(known) = wire::fields::of(message) else { return };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match known.iter().find(|field| field.0 == name) {
                    Some((_, nested, _)) => find_unknown(value, nested, Path::Field(&path, name), unknown),
                    None => {
                        unknown.borrow_mut().push(unknown_field(path, name, known.iter().map(|field| field.0)));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find_unknown(item, message, Path::Item(&path, index), unknown);
            }
        }
        _ => {}
    }
}

fn unknown_field<'n>(path: Path<'_>, name: &str, known: impl IntoIterator<Item = &'n str>) -> ResourceError {
    let problem = match nearest(name, known) {
        Some(near) => format!("unknown field; did you mean {near:?}?"),
        None => "unknown field".to_owned(),
    };
    ResourceError::field(Path::Field(&path, name).to_string(), problem)
}

macro_rules! forward {
    ($method:ident: $($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> { self.$method(visitor) })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let (path, unknown) = (self.path, self.unknown);
        let found = describe(&self.value);
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(b),
            Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), _, _) => visitor.visit_u64(n),
                (_, Some(n), _) => visitor.visit_i64(n),
                (_, _, n) => visitor.visit_f64(n.unwrap_or_default()),
            },
            Value::String(s) => visitor.visit_string(s),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0, path, unknown }),
            Value::Object(map) => visitor.visit_map(Fields::new(map, path, unknown)),
        }
        .map_err(|e: Problem| untagged(e, &found).at(path))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let word = match &self.value {
            Value::Null => Some(false),
            Value::Bool(b) => Some(*b),
            Value::String(s) => match s.to_ascii_lowercase().as_str() {
                "yes" | "yeah" | "y" | "true" | "1" | "on" => Some(true),
                "no" | "nope" | "n" | "false" | "0" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        match word {
            Some(b) => visitor.visit_bool(b),
            None => self.expected("true or false"),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(n) => visitor.visit_f64(n.as_f64().unwrap_or_default()),
            _ => self.expected("a number"),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let (path, unknown) = (self.path, self.unknown);
        match self.value {
            Value::Null => visitor.visit_seq(Items { items: Vec::new().into_iter(), index: 0, path, unknown }),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0, path, unknown }),
            _ => return self.expected("a list"),
        }
        .map_err(|e: Problem| e.at(path))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let expected = (&visitor as &dyn Expected).to_string();
        match wire::fields::of(&expected) {
            Some(known) => self.flattened(visitor, known),
            None => self.fields(visitor, None),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.fields(visitor, Some(fields))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let path = self.path;
        self.value.deserialize_enum(name, variants, visitor).map_err(|e| Problem::new(path, e.to_string()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_any(visitor)
    }

    forward! { number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
    deserialize_u32 deserialize_u64 }
    forward! { text: deserialize_str deserialize_string deserialize_identifier deserialize_char }
    forward! { deserialize_f64: deserialize_f32 }
    forward! { deserialize_any: deserialize_unit deserialize_ignored_any deserialize_bytes deserialize_byte_buf }
}

/// Says in words what the choice between several forms says in type names.
fn untagged(problem: Problem, found: &str) -> Problem {
    if !problem.message.starts_with("data did not match any variant") {
        return problem;
    }
    let expected = if problem.message.contains("OneOrMany") { "text or a list of texts" } else { "a plain value" };
    Problem { path: problem.path, message: format!("expected {expected}, found {found}") }
}

struct Items<'a> {
    items: std::vec::IntoIter<Value>,
    index: usize,
    path: Path<'a>,
    unknown: &'a RefCell<Vec<ResourceError>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some(value) = self.items.next() else {
            return Ok(None);
        };
        let path = Path::Item(&self.path, self.index);
        self.index += 1;
        let found = describe(&value);
        let item = seed.deserialize(Reader::new(value, path, self.unknown));
        item.map(Some).map_err(|e| untagged(e, &found).at(path))
    }
}

struct Fields<'a> {
    entries: serde_json::map::IntoIter,
    current: Option<(String, Value)>,
    path: Path<'a>,
    unknown: &'a RefCell<Vec<ResourceError>>,
}

impl<'a> Fields<'a> {
    fn new(map: Map<String, Value>, path: Path<'a>, unknown: &'a RefCell<Vec<ResourceError>>) -> Self {
        Self { entries: map.into_iter(), current: None, path, unknown }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some((name, value)) = self.entries.next() else {
            return Ok(None);
        };
        let key = seed.deserialize(name.clone().into_deserializer());
        self.current = Some((name, value));
        key.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (name, value) = self.current.take().unwrap_or_default();
        let path = Path::Field(&self.path, &name);
        let found = describe(&value);
        seed.deserialize(Reader::new(value, path, self.unknown)).map_err(|e| untagged(e, &found).at(path))
    }
}
