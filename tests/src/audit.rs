//! Reading the audit log from its daily files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::waiting::wait_for;

/// How long an event may take to the file.
const LIMIT: Duration = Duration::from_secs(60);

impl Cluster {
    /// Events of one kind in the daily files, oldest first.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        read_daily_files(&self.audit_folder(), &mut lines);
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|e| e["event"] == kind).collect()
    }

    /// Waits for an event of a kind with these fields.
    #[track_caller]
    pub fn wait_event(&self, kind: &str, fields: &[(&str, &str)]) -> Value {
        let fits = |event: &Value| fields.iter().all(|(key, value)| event[*key] == **value);
        wait_for(&format!("event {kind} with {fields:?}"), LIMIT, || {
            let events = self.events(kind);
            events.iter().find(|e| fits(e)).cloned().ok_or_else(|| format!("{} of this kind: {events:?}", events.len()))
        })
    }
}

/// Lines of the files named after a day, in this folder and below.
fn read_daily_files(folder: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Links point at files that are read by their own name.
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            read_daily_files(&entry.path(), lines);
        } else if kind.is_file() && name.starts_with("20") && name.ends_with(".log") {
            lines.extend(fs::read_to_string(entry.path()).unwrap_or_default().lines().map(str::to_owned));
        }
    }
}
