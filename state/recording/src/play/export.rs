//! Recordings as text.

use std::io::{self, Write};

use audit::{EventExt, json};
use serde::Serialize;
use serde_json::{Serializer, Value, ser::PrettyFormatter};
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
}

/// Writes the events of a recording one by one: memory does not grow with the recording.
pub struct Export<W> {
    out: W,
    format: ExportFormat,
    events: u64,
}

impl<W: Write> Export<W> {
    /// Writes to `out`.
    pub fn new(out: W, format: ExportFormat) -> Self {
        Self { out, format, events: 0 }
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
                let object = json::to_object(&event).map_err(io::Error::other)?;
                let text = serde_saphyr::to_string(&Value::Object(object)).map_err(io::Error::other)?;
                self.out.write_all(text.trim_end().as_bytes())?;
                self.out.write_all(b"\n")
            }
            ExportFormat::Text => Ok(()),
        }
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
    use serde_json::json;
    use wire::events::{Exec, SessionPrint};

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
    fn lines_yaml_and_text() {
        assert_eq!(export(ExportFormat::JsonLines, &events()).lines().count(), 2);
        let yaml = export(ExportFormat::Yaml, &events());
        assert_eq!(yaml.split("---\n").count(), 2, "{yaml}");
        assert!(yaml.contains("event: print\n") && yaml.contains("event: exec\n"), "{yaml}");
        assert_eq!(export(ExportFormat::Text, &events()), "hello\r\n");
    }
}
