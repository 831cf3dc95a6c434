//! Session recordings and lines of the audit log.

use std::io::{self, Cursor, Write};

use flate2::{Compression, write::GzEncoder};
use recording::format::{PartHeader, PartKind, decode_event};
use recording::play::{Export, ExportFormat, Pace, Timeline};
use recording::{StreamReader, summarize};

pub(crate) const EVENTS: &[&str] = &[
    "{\"event\":\"session.start\"",
    "\"session.end\"",
    "\"print\"",
    "\"user.login\"",
    "\"ei\":",
    "\"time\":\"2026-11-21T15:00:00.000Z\"",
    "\"sid\":",
    "\"addr.remote\":",
    "\"login\":[",
    "-9223372036854775808",
];

/// A recording as it is uploaded and downloaded.
pub fn recording(data: &[u8]) {
    let mut reader = StreamReader::new(Cursor::new(data));
    play(&mut reader);
    assert!(reader.whole() <= data.len() as u64);
    let (_, whole, problem) = summarize(Cursor::new(data));
    assert!(whole <= data.len() as u64);
    assert!(problem.is_some() || whole == data.len() as u64, "without an error everything has been read");
}

/// The records of a recording whose outer form is right: a fuzzer does not find valid compression.
pub fn recording_events(data: &[u8]) {
    let _ = decode_event(data);
    let mut body = GzEncoder::new(Vec::new(), Compression::fast());
    body.write_all(data).expect("writing into memory");
    let body = body.finish().expect("writing into memory");
    let header = PartHeader { kind: PartKind::Plain, body: body.len() as u64, padding: 0 };
    recording(&[&header.to_bytes(), body.as_slice()].concat());
}

fn play<R: io::BufRead>(reader: &mut StreamReader<R>) {
    let mut timeline = Timeline::new(Pace { skip_idle: true, ..Pace::default() });
    let mut text = Export::new(io::sink(), ExportFormat::Text);
    let mut json = Export::new(io::sink(), ExportFormat::Json);
    let mut yaml = Export::new(io::sink(), ExportFormat::Yaml);
    let mut position = timeline.position();
    while let Ok(Some(event)) = reader.next_event() {
        for export in [&mut text, &mut json, &mut yaml] {
            let _ = export.event(&event);
        }
        let _ = timeline.frame(event);
        assert!(timeline.position() >= position, "time does not run backwards");
        position = timeline.position();
    }
    assert!(matches!(reader.next_event(), Ok(None)), "nothing comes after the end or an error");
}

/// A line of the audit log, read back for searches and for exports.
pub fn audit_line(data: &[u8]) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let event = audit::json::from_json(&json);
    let _ = audit::json::unstructured(&event);
    let Ok(line) = audit::json::to_json_line(&event) else { return };
    assert!(!line.trim_end().contains('\n'), "one event, one line");
    let again = |line: &str| {
        let json = serde_json::from_str(line).expect("our own line is JSON");
        audit::json::to_json_line(&audit::json::from_json(&json)).expect("what was read can be written")
    };
    // A value of the wrong type takes its group of fields with it, and the first line of our own gives that group
    // its defaults; from then on nothing changes any more.
    let settled = again(&line);
    assert_eq!(again(&settled), settled, "a line reads back as written");
    if let Ok(trimmed) = audit::json::trim(&event, 2048, |e| audit::json::to_json_line(e).map_or(0, |l| l.len())) {
        assert!(audit::json::to_json_line(&trimmed).is_ok_and(|l| l.len() <= 2048));
    }
}
