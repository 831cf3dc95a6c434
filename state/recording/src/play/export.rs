//! Recordings as text.

use std::io::{self, Write};

use audit::{EventExt, json as event_json};
use serde::Serialize;
use serde_json::{Serializer, Value, json, ser::PrettyFormatter};
use wire::events::{OneOf, one_of::Event};

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON array of all events, indented by four spaces; without the terminal's bytes and without event ids.
    Json,
    /// One JSON object a line, for a recording in a file.
    JsonLines,
    /// One YAML document an event.
    Yaml,
    /// What the terminal showed, without the pauses.
    Text,
    /// An asciicast, version 2: what asciinema and its web player show.
    Asciicast,
}

/// Writes the events of a recording one by one: memory does not grow with the recording.
pub struct Export<W> {
    out: W,
    format: ExportFormat,
    events: u64,
    cast: Cast,
}

/// What an asciicast needs to know of what came before.
#[derive(Default)]
struct Cast {
    /// When the last output came, in milliseconds after the first.
    at: i64,
    /// The beginning of a character whose rest is in the next output.
    rest: Vec<u8>,
}

impl<W: Write> Export<W> {
    /// Writes to `out`.
    pub fn new(out: W, format: ExportFormat) -> Self {
        Self { out, format, events: 0, cast: Cast::default() }
    }

    /// Writes an event.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn event(&mut self, event: &OneOf) -> io::Result<()> {
        let first = self.events == 0;
        self.events += 1;
        if self.format == ExportFormat::Text {
            return match &event.event {
                Some(Event::SessionPrint(print)) => self.out.write_all(&print.data),
                _ => Ok(()),
            };
        }
        if self.format == ExportFormat::Asciicast {
            return self.frame(event, first);
        }
        let event = without_id(event);
        match self.format {
            ExportFormat::Json => {
                self.out.write_all(if first { b"[\n" } else { b",\n" })?;
                let text = indented(&event)?;
                for (i, line) in text.lines().enumerate() {
                    self.out.write_all(if i == 0 { b"    " } else { b"\n    " })?;
                    self.out.write_all(line.as_bytes())?;
                }
                Ok(())
            }
            ExportFormat::JsonLines => {
                serde_json::to_writer(&mut self.out, &event)?;
                self.out.write_all(b"\n")
            }
            ExportFormat::Yaml => {
                if !first {
                    self.out.write_all(b"---\n")?;
                }
                let object = event_json::to_object(&event).map_err(io::Error::other)?;
                let text = serde_saphyr::to_string(&Value::Object(object)).map_err(io::Error::other)?;
                self.out.write_all(text.trim_end().as_bytes())?;
                self.out.write_all(b"\n")
            }
            ExportFormat::Text | ExportFormat::Asciicast => Ok(()),
        }
    }

    /// Writes what of an event belongs into an asciicast, after its first line.
    fn frame(&mut self, event: &OneOf, first: bool) -> io::Result<()> {
        if first {
            let size = match &event.event {
                Some(Event::SessionStart(start)) => size(&start.terminal_size),
                _ => None,
            };
            let (width, height) = size.unwrap_or((80, 24));
            let timestamp = event.time().map_or(0, |time| time.timestamp());
            self.line(&json!({"version": 2, "width": width, "height": height, "timestamp": timestamp}))?;
        }
        match &event.event {
            Some(Event::SessionPrint(print)) => {
                self.cast.at = print.delay_milliseconds;
                self.cast.rest.extend_from_slice(&print.data);
                let text = take_text(&mut self.cast.rest);
                if text.is_empty() { Ok(()) } else { self.line(&json!([seconds(self.cast.at), "o", text])) }
            }
            Some(Event::Resize(resize)) => match size(&resize.terminal_size) {
                Some((width, height)) => self.line(&json!([seconds(self.cast.at), "r", format!("{width}x{height}")])),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }

    /// Writes what follows the last event.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        if self.format == ExportFormat::Json {
            self.out.write_all(if self.events == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Columns and rows, as events have them.
fn size(text: &str) -> Option<(u32, u32)> {
    let (columns, rows) = text.split_once(':')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

/// Takes whole characters and leaves the beginning of the next; what is no text at all becomes a replacement character.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        Err(_) => {
            // Only the end may be the beginning of something.
            let tail = bytes.len().saturating_sub(3);
            let open = (tail..bytes.len()).find(|&at| {
                matches!(std::str::from_utf8(&bytes[at..]), Err(e) if e.error_len().is_none() && e.valid_up_to() == 0)
            });
            open.unwrap_or(bytes.len())
        }
        Ok(_) => bytes.len(),
    };
    let rest = bytes.split_off(whole);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

fn without_id(event: &OneOf) -> OneOf {
    let mut event = event.clone();
    if let Some(metadata) = event.metadata_mut() {
        metadata.id.clear();
    }
    event
}

fn indented(event: &OneOf) -> io::Result<String> {
    let mut text = Vec::new();
    event.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    ")))?;
    String::from_utf8(text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::codes;
    use wire::events::{Exec, Resize, SessionPrint, SessionStart};

    use super::*;

    fn export(format: ExportFormat, events: &[OneOf]) -> String {
        let mut export = Export::new(Vec::new(), format);
        for event in events {
            export.event(event).unwrap();
        }
        String::from_utf8(export.finish().unwrap()).unwrap()
    }

    fn events() -> [OneOf; 2] {
        let print = SessionPrint { data: b"hello\r\n".to_vec(), bytes: 7, ..Default::default() };
        let mut exec = codes::EXEC.event(Exec::default());
        exec.metadata_mut().unwrap().id = "secret".into();
        [codes::SESSION_PRINT.event(print), exec]
    }

    #[test]
    fn json_is_one_array() {
        let text = export(ExportFormat::Json, &events());
        assert!(text.starts_with("[\n    {\n        \"ei\": 0,\n") && text.ends_with("\n    }\n]\n"), "{text}");
        let array: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&array[0]["event"], &array[1]["event"]), (&json!("print"), &json!("exec")));
        assert!(!text.contains("secret") && array[0].get("data").is_none());
        assert_eq!(export(ExportFormat::Json, &[]), "[]\n");
    }

    #[test]
    fn an_asciicast_has_sizes_times_and_whole_characters() {
        let print = |delay, data: &[u8]| {
            codes::SESSION_PRINT.event(SessionPrint {
                data: data.to_vec(),
                delay_milliseconds: delay,
                ..Default::default()
            })
        };
        let start = SessionStart { terminal_size: "100:30".into(), ..Default::default() };
        let resize = Resize { terminal_size: "120:40".into(), ..Default::default() };
        let events = [
            codes::SESSION_START.event(start),
            print(0, b"caf\xc3"),
            codes::RESIZE.event(resize),
            print(1500, b"\xa9 \xff ok\xe2\x82"),
            print(1600, b"\xac"),
            codes::EXEC.event(Exec::default()),
        ];
        let text = export(ExportFormat::Asciicast, &events);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]),
            (&json!(2), &json!(100), &json!(30))
        );
        assert_eq!(
            lines[1..],
            [
                json!([0.0, "o", "caf"]),
                json!([0.0, "r", "120x40"]),
                json!([1.5, "o", "\u{e9} \u{fffd} ok"]),
                json!([1.6, "o", "\u{20ac}"]),
            ]
        );
    }

    #[test]
    fn lines_yaml_and_text() {
        assert_eq!(export(ExportFormat::JsonLines, &events()).lines().count(), 2);
        let yaml = export(ExportFormat::Yaml, &events());
        assert_eq!(yaml.split("---\n").count(), 2, "{yaml}");
        assert!(yaml.contains("event: print\n") && yaml.contains("event: exec\n"), "{yaml}");
        assert_eq!(export(ExportFormat::Text, &events()), "hello\r\n");
    }
}
