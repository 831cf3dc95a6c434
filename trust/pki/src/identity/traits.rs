//! Traits as text.

use std::collections::BTreeMap;

use prost::Message as _;
use serde::Serialize;

/// Facts about a user, each with several values, such as `logins` or `groups`.
pub type Traits = BTreeMap<String, Vec<String>>;

/// JSON as Go's encoder writes it: `<`, `>`, `&` and the two line separators are escaped, so that the text can
/// stand inside HTML. Readers do not care, but equal values then have equal bytes everywhere.
///
/// Returns `null` for values that cannot be written as JSON, which the types used here never are.
#[must_use]
pub fn go_json<T: Serialize + ?Sized>(value: &T) -> String {
    let plain = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    let mut escaped = String::with_capacity(plain.len() + 32);
    // Outside of strings none of these characters occur in JSON, so no context is needed.
    for character in plain.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The JSON text of traits; `null` when there are none at all.
#[must_use]
pub fn traits_to_json(traits: Option<&Traits>) -> String {
    go_json(&traits)
}

/// Reads traits: JSON, or the protobuf message that very old clusters wrote.
///
/// # Errors
/// The JSON parser's reason when the text is neither.
pub fn traits_from_text(text: &str) -> Result<Option<Traits>, serde_json::Error> {
    // A trait without values may be written as null.
    serde_json::from_str::<Option<BTreeMap<String, Option<Vec<String>>>>>(text)
        .map(|traits| {
            traits.map(|traits| traits.into_iter().map(|(name, values)| (name, values.unwrap_or_default())).collect())
        })
        .or_else(|reason| {
            let message = LabelValues::decode(text.as_bytes()).map_err(|_| reason)?;
            Ok(Some(message.values.into_iter().map(|(name, values)| (name, values.values)).collect()))
        })
}

/// The protobuf form: a map of names to lists.
#[derive(Clone, PartialEq, prost::Message)]
struct LabelValues {
    #[prost(btree_map = "string, message", tag = "1")]
    values: BTreeMap<String, StringValues>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StringValues {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}
