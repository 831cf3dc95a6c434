use std::borrow::Cow;

use serde_json::Value as Json;

/// A value during evaluation; borrowed from the scope where possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Something that is not there; equals the empty text and the empty list.
    Absent,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list of texts.
    List(Vec<Cow<'a, str>>),
    /// A list of texts that the scope holds.
    Slice(&'a [String]),
    /// A map: only its entries can be used.
    Map,
}

impl<'a> Value<'a> {
    /// A borrowed text.
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// A borrowed list.
    pub fn list(items: &'a [String]) -> Self {
        Self::Slice(items)
    }

    /// The value JSON stands for. Numbers inside lists are texts.
    pub fn json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Absent,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => Self::Number(n.as_f64().unwrap_or(f64::NAN)),
            Json::String(s) => Self::text(s),
            Json::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| match item {
                        Json::String(s) => Cow::Borrowed(s.as_str()),
                        other => Cow::Owned(other.to_string()),
                    })
                    .collect(),
            ),
            Json::Object(_) => Self::Map,
        }
    }

    /// The texts of a list; a text is the list of itself, nothing is the empty list.
    pub fn into_list(self) -> Option<Vec<Cow<'a, str>>> {
        match self {
            Self::Absent => Some(Vec::new()),
            Self::Text(text) => Some(vec![text]),
            Self::List(list) => Some(list),
            Self::Slice(items) => Some(items.iter().map(|i| Cow::Borrowed(i.as_str())).collect()),
            _ => None,
        }
    }

    /// Whether a text is in the list; `None` when this is no list.
    pub fn contains(&self, item: &str) -> Option<bool> {
        match self {
            Self::Absent => Some(false),
            Self::Text(text) => Some(text == item),
            Self::List(list) => Some(list.iter().any(|i| i == item)),
            Self::Slice(items) => Some(items.iter().any(|i| i == item)),
            _ => None,
        }
    }

    /// The text; nothing is the empty text.
    pub fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Absent => Some(Cow::Borrowed("")),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether two values are equal; values of different kinds are not.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Absent, Self::Text(t)) | (Self::Text(t), Self::Absent) => t.is_empty(),
            (Self::Absent, Self::List(l)) | (Self::List(l), Self::Absent) => l.is_empty(),
            (Self::Absent, Self::Slice(l)) | (Self::Slice(l), Self::Absent) => l.is_empty(),
            (Self::List(a), Self::Slice(b)) | (Self::Slice(b), Self::List(a)) => a.iter().eq(b.iter()),
            (Self::Map, _) | (_, Self::Map) => false,
            (a, b) => a == b,
        }
    }

    /// The kind of the value, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) | Self::Slice(_) => "a list",
            Self::Map => "a map",
        }
    }
}
