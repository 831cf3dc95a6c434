//! Events as JSON: one flat object an event, embedded groups included, moments as RFC 3339 text.

use aws_lc_rs::digest;
use prost_types::Timestamp;
use serde_json::{Map, Value};
use wire::{
    auditlog::EventUnstructured,
    events::{Metadata, OneOf, Unknown, one_of::Event},
    json::object,
};

use crate::{Error, EventExt, Result, event};

/// The most bytes an event may have, as a line of JSON and as a message in a recording.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// The event as one line of JSON, without the line feed. Long texts are cut when the line would be longer than
/// [`MAX_EVENT_BYTES`].
///
/// # Errors
///
/// [`Error::Invalid`] for an empty event, [`Error::TooLarge`] when cutting does not help.
pub fn to_json_line(event: &OneOf) -> Result<String> {
    let line = write(event)?;
    if line.len() <= MAX_EVENT_BYTES {
        return Ok(line);
    }
    let short = trim(event, MAX_EVENT_BYTES, |e| write(e).map_or(usize::MAX, |l| l.len()))?;
    write(&short)
}

/// The event as a JSON object.
///
/// # Errors
///
/// [`Error::Invalid`] for an empty event.
pub fn to_object(event: &OneOf) -> Result<Map<String, Value>> {
    match serde_json::to_value(event) {
        Ok(Value::Object(object)) if event.event.is_some() => Ok(object),
        Ok(_) => Err(Error::Invalid("event without content".into())),
        Err(e) => Err(Error::Invalid(format!("event {:?} has no JSON form: {e}", event.name()))),
    }
}

/// The event that a JSON object describes, by its `event` field. What this build does not know, or cannot read,
/// becomes [`Unknown`] with the original's text inside.
pub fn from_json(json: &Value) -> OneOf {
    let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
    if let Some(Ok(event)) = event::read_message(text("event"), json) {
        let event = OneOf { event: Some(event) };
        // A field of the wrong type makes a whole embedded group vanish; nothing is left of the event without this one.
        if event.name() == text("event") {
            return event;
        }
    }
    OneOf { event: Some(Event::Unknown(unknown(json, text("event"), text("code")))) }
}

/// Cuts the long texts of an event until `size` says it has at most `limit` bytes.
///
/// What identifies the event, its session, server and user stays whole.
///
/// # Errors
///
/// [`Error::TooLarge`] when it cannot be made small enough.
pub fn trim(event: &OneOf, limit: usize, size: impl Fn(&OneOf) -> usize) -> Result<OneOf> {
    let before = size(event);
    if before <= limit {
        return Ok(event.clone());
    }
    let too_large = || Error::TooLarge { name: event.name().to_owned(), size: before, limit };
    if matches!(event.event, Some(Event::SessionPrint(_))) {
        // The terminal's bytes are no text, and losing some of them silently would falsify the recording.
        return Err(too_large());
    }
    let object = to_object(event)?;
    for longest in [16_384, 8_192, 4_096, 2_048, 1_024, 512, 256, 128, 64] {
        let mut short = object.clone();
        for (key, value) in &mut short {
            if !WHOLE.contains(&key.as_str()) {
                cut(value, longest);
            }
        }
        let short = from_json(&Value::Object(short));
        if !short.is_unknown() && size(&short) <= limit {
            return Ok(short);
        }
    }
    Err(too_large())
}

/// An event in the form of the export calls: its JSON object, with the terminal's bytes in base64 under `data` when
/// it is a `print`.
///
/// # Errors
///
/// [`Error::Invalid`] for an empty event.
pub fn unstructured(event: &OneOf) -> Result<EventUnstructured> {
    let mut object = to_object(event)?;
    if let Some(Event::SessionPrint(print)) = &event.event {
        object.insert("data".into(), Value::String(base64(&print.data)));
    }
    let uid = event.uid();
    let id = if uid.is_empty() { content_id(&write(event)?) } else { uid.to_owned() };
    Ok(EventUnstructured {
        r#type: event.name().to_owned(),
        id,
        time: event.metadata().and_then(|m| m.time),
        index: event.index(),
        unstructured: Some(object::from_json(object)),
    })
}

/// A JSON object in the form of the export calls.
pub(crate) fn unstructured_object(object: &Map<String, Value>, time: Option<Timestamp>) -> EventUnstructured {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut id = text("uid");
    if id.is_empty() {
        id = content_id(&serde_json::to_string(object).unwrap_or_default());
    }
    EventUnstructured {
        r#type: text("event"),
        id,
        time,
        index: object.get("ei").and_then(Value::as_i64).unwrap_or_default(),
        unstructured: Some(object::from_json(object.clone())),
    }
}

/// Fields that say what an event is about; they are never cut.
const WHOLE: [&str; 9] = ["event", "code", "uid", "time", "cluster_name", "sid", "server_id", "user", "login"];

fn write(event: &OneOf) -> Result<String> {
    if event.event.is_none() {
        return Err(Error::Invalid("event without content".into()));
    }
    serde_json::to_string(event).map_err(|e| Error::Invalid(format!("event {:?} has no JSON form: {e}", event.name())))
}

fn unknown(json: &Value, name: &str, code: &str) -> Unknown {
    let mut metadata: Metadata = serde_json::from_value(json.clone()).unwrap_or_default();
    "unknown".clone_into(&mut metadata.r#type);
    "TCC00E".clone_into(&mut metadata.code);
    Unknown {
        metadata: Some(metadata),
        unknown_type: name.to_owned(),
        unknown_code: code.to_owned(),
        data: json.to_string(),
    }
}

/// Cuts texts to `longest` bytes and lists to a number of elements that goes with it.
fn cut(value: &mut Value, longest: usize) {
    match value {
        Value::String(text) if text.len() > longest => text.truncate(text.floor_char_boundary(longest)),
        Value::Array(list) => {
            list.truncate(longest / 8);
            list.iter_mut().for_each(|v| cut(v, longest));
        }
        Value::Object(object) => object.values_mut().for_each(|v| cut(v, longest)),
        _ => {}
    }
}

/// The id of an event that has none: a digest of its text.
fn content_id(line: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, line.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde_json::json;
    use wire::events::{Exec, SessionPrint, SessionStart, UserCreate};

    use super::*;
    use crate::{codes, event::prepare};

    fn prepared(mut event: OneOf) -> OneOf {
        prepare(&mut event, "one", "2026-01-02T03:04:05Z".parse().unwrap()).unwrap();
        event.metadata_mut().unwrap().id = "u".repeat(36);
        event
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let mut event = prepared(codes::EXEC.event(Exec::default()));
        event.server_mut().unwrap().server_id = "node".into();
        let line = to_json_line(&event).unwrap();
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            json,
            json!({"ei": 0, "event": "exec", "uid": "u".repeat(36), "code": "T3002I", "time": "2026-01-02T03:04:05Z",
                   "cluster_name": "one", "sid": "", "server_id": "node", "command": ""})
        );
        assert!(line.starts_with("{\"ei\":0,\"event\":\"exec\""));
        assert_eq!(from_json(&json), event);
    }

    #[test]
    fn what_is_not_known_is_kept_as_text() {
        let json =
            json!({"event": "of.tomorrow", "code": "TMRW00I", "ei": 3, "time": "2026-01-02T03:04:05Z", "verb": "GET"});
        let event = from_json(&json);
        let Some(Event::Unknown(unknown)) = &event.event else { panic!("{event:?}") };
        assert_eq!((unknown.unknown_type.as_str(), unknown.unknown_code.as_str()), ("of.tomorrow", "TMRW00I"));
        assert_eq!(serde_json::from_str::<Value>(&unknown.data).unwrap(), json);
        assert_eq!((event.name(), event.index()), ("unknown", 3));
        assert!(event.time().is_some());
        for odd in [json!(null), json!([1]), json!({"event": 5}), json!({"event": "exec", "ei": "x"})] {
            assert!(from_json(&odd).is_unknown(), "{odd}");
        }
    }

    #[test]
    fn long_texts_are_cut_to_the_limit_of_a_line() {
        let mut exec = Exec::default();
        exec.command.get_or_insert_default().command = "ä\u{1}".repeat(60_000);
        let event = prepared(codes::EXEC.event(exec));
        let line = to_json_line(&event).unwrap();
        assert!(line.len() <= MAX_EVENT_BYTES && line.len() > 10_000, "{}", line.len());
        let start = SessionStart { initial_command: vec!["x".into(); 100_000], ..Default::default() };
        assert!(to_json_line(&prepared(codes::SESSION_START.event(start))).unwrap().len() <= MAX_EVENT_BYTES);
    }

    #[test]
    fn an_event_that_cannot_be_cut_is_refused() {
        let mut create = UserCreate::default();
        create.user.get_or_insert_default().user = "x".repeat(70_000);
        let refused = to_json_line(&prepared(codes::USER_CREATE.event(create))).unwrap_err();
        assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
        assert!(to_json_line(&OneOf::default()).is_err());
    }

    #[test]
    fn exports_carry_the_terminal_bytes_and_an_id() {
        let print = SessionPrint { data: b"hi".to_vec(), bytes: 2, ..Default::default() };
        let export = unstructured(&prepared(codes::SESSION_PRINT.event(print))).unwrap();
        let object = object::to_json(&export.unstructured.unwrap());
        assert_eq!(object["data"], "aGk=");
        let event = prepared(codes::EXEC.event(Exec::default()));
        assert_eq!(unstructured(&event).unwrap().id, event.uid());
    }
}
