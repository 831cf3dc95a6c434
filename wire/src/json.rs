//! How single fields look in JSON and YAML where serde's own form differs: named by `build.rs` in generated
//! attributes, one module a form.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Whether a value is left out of JSON: the zero value of its type.
pub trait IsEmpty {
    /// True for the zero value.
    fn is_empty_value(&self) -> bool;
}

/// The predicate of generated `skip_serializing_if` attributes.
pub fn is_empty<T: IsEmpty>(value: &T) -> bool {
    value.is_empty_value()
}

macro_rules! zero_is_empty {
    ($($t:ty),*) => { $(impl IsEmpty for $t { fn is_empty_value(&self) -> bool { *self == <$t>::default() } })* };
}
zero_is_empty!(bool, i32, i64, u32, u64, f32, f64);

impl IsEmpty for String {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl<T> IsEmpty for Vec<T> {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl<T> IsEmpty for Option<T> {
    fn is_empty_value(&self) -> bool {
        self.is_none()
    }
}

impl<K, V> IsEmpty for BTreeMap<K, V> {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

/// A list in which `null` means empty.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(d)?.unwrap_or_default())
}

/// RFC 3339 text for a moment; absent moments are empty.
pub mod timestamp {
    use chrono::{DateTime, SecondsFormat, Utc};
    use prost_types::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::time;

    /// Writes the text; `null` when there is no moment.
    pub fn serialize<S: Serializer>(value: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match time::moment(value.as_ref()) {
            Some(m) => s.serialize_str(&m.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => s.serialize_str("0001-01-01T00:00:00Z"),
        }
    }

    /// Reads the text; `null`, the empty text and the year 1 mean no moment.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)?.filter(|t| !t.is_empty()) else { return Ok(None) };
        let moment = DateTime::parse_from_rfc3339(&text).map_err(|_| {
            D::Error::custom(format!("{text:?} is not a time: expected RFC 3339 such as \"2026-01-31T12:00:00Z\""))
        })?;
        let stamp = time::timestamp(moment.with_timezone(&Utc));
        Ok(time::moment(Some(&stamp)).is_some().then_some(stamp))
    }
}

/// `1h30m0s` for a number of nanoseconds.
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::duration;

    /// Writes the text.
    #[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
    pub fn serialize<S: Serializer>(value: &i64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&duration::format(*value))
    }

    /// Reads a text, or a number of nanoseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(i64),
            Text(String),
        }
        match Option::<Form>::deserialize(d)? {
            None => Ok(0),
            Some(Form::Number(n)) => Ok(n),
            Some(Form::Text(t)) if t.is_empty() => Ok(0),
            Some(Form::Text(t)) => duration::parse(&t).map_err(D::Error::custom),
        }
    }
}

/// `1h30m0s` for `google.protobuf.Duration`.
pub mod proto_duration {
    use prost_types::Duration;
    use serde::{Deserializer, Serializer};

    /// Writes the text.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        let d = value.unwrap_or_default();
        super::duration::serialize(&(d.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(d.nanos))), s)
    }

    /// Reads a text, or a number of nanoseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        let n = super::duration::deserialize(d)?;
        let nanos = i32::try_from(n % 1_000_000_000).unwrap_or(0);
        Ok((n != 0).then_some(Duration { seconds: n / 1_000_000_000, nanos }))
    }
}

/// Standard base64 for bytes.
pub mod bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes base64.
    pub fn serialize<S: Serializer>(value: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(value))
    }

    /// Reads base64; `null` is empty.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(d)?.unwrap_or_default();
        STANDARD.decode(text).map_err(|e| D::Error::custom(format!("expected base64: {e}")))
    }
}

/// A list of base64 texts.
pub mod bytes_list {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the list.
    pub fn serialize<S: Serializer>(value: &[Vec<u8>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(value.iter().map(|b| STANDARD.encode(b)))
    }

    /// Reads the list; `null` is empty.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(d)?.unwrap_or_default();
        let decode = |t: String| STANDARD.decode(t).map_err(|e| D::Error::custom(format!("expected base64: {e}")));
        texts.into_iter().map(decode).collect()
    }
}

/// A plain object for `google.protobuf.Struct`.
pub mod object {
    use prost_types::{ListValue, Struct, Value, value::Kind};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::{Map, Value as Json};

    /// Writes the object.
    pub fn serialize<S: Serializer>(value: &Option<Struct>, s: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(to_json).serialize(s)
    }

    /// Reads the object.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Struct>, D::Error> {
        Ok(Option::<Map<String, Json>>::deserialize(d)?.map(from_json))
    }

    /// The object a `Struct` stands for.
    pub fn to_json(value: &Struct) -> Json {
        Json::Object(value.fields.iter().map(|(k, v)| (k.clone(), value_to_json(v))).collect())
    }

    /// The `Struct` that stands for an object.
    pub fn from_json(object: Map<String, Json>) -> Struct {
        Struct { fields: object.into_iter().map(|(k, v)| (k, value_from_json(v))).collect() }
    }

    fn value_to_json(value: &Value) -> Json {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => Json::Null,
            #[allow(clippy::cast_possible_truncation)] // checked to be whole and small
            Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => Json::from(*n as i64),
            Some(Kind::NumberValue(n)) => Json::from(*n),
            Some(Kind::StringValue(s)) => Json::from(s.clone()),
            Some(Kind::BoolValue(b)) => Json::from(*b),
            Some(Kind::StructValue(s)) => to_json(s),
            Some(Kind::ListValue(l)) => Json::Array(l.values.iter().map(value_to_json).collect()),
        }
    }

    fn value_from_json(json: Json) -> Value {
        let kind = match json {
            Json::Null => Kind::NullValue(0),
            Json::Bool(b) => Kind::BoolValue(b),
            Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
            Json::String(s) => Kind::StringValue(s),
            Json::Array(a) => Kind::ListValue(ListValue { values: a.into_iter().map(value_from_json).collect() }),
            Json::Object(o) => Kind::StructValue(from_json(o)),
        };
        Value { kind: Some(kind) }
    }
}

/// The plain value of `google.protobuf.UInt32Value` and its like.
pub mod wrapper {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the value.
    pub fn serialize<T: Serialize, S: Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }

    /// Reads the value.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        Option::deserialize(d)
    }
}

/// User traits: an object of lists, whatever their length.
pub mod traits {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::wrappers::{LabelValues, StringValues};

    /// Writes the object.
    pub fn serialize<S: Serializer>(value: &Option<LabelValues>, s: S) -> Result<S::Ok, S::Error> {
        let plain = value.as_ref().map(|v| v.values.iter().map(|(k, l)| (k, &l.values)).collect::<BTreeMap<_, _>>());
        plain.serialize(s)
    }

    /// Reads the object; `null` lists are empty.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<LabelValues>, D::Error> {
        let plain = Option::<BTreeMap<String, Option<Vec<String>>>>::deserialize(d)?;
        Ok(plain.map(|p| LabelValues {
            values: p.into_iter().map(|(k, l)| (k, StringValues { values: l.unwrap_or_default() })).collect(),
        }))
    }
}

/// Traits that travel as a list of named lists: in JSON an object of lists.
pub mod trait_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::traits::Trait;

    /// Writes the object.
    pub fn serialize<S: Serializer>(value: &[Trait], s: S) -> Result<S::Ok, S::Error> {
        value.iter().map(|t| (&t.key, &t.values)).collect::<BTreeMap<_, _>>().serialize(s)
    }

    /// Reads the object; `null` lists are empty.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Trait>, D::Error> {
        let plain = Option::<BTreeMap<String, Option<Vec<String>>>>::deserialize(d)?.unwrap_or_default();
        Ok(plain.into_iter().map(|(key, values)| Trait { key, values: values.unwrap_or_default() }).collect())
    }
}

pub use crate::shapes::{
    cert_extension_mode, cert_extension_type, database_tls_mode, database_user_mode, host_user_mode, listener_mode,
    membership_kind, require_mfa, review_day, review_frequency, routing_strategy, signature_suite, tunnel_strategy,
};
