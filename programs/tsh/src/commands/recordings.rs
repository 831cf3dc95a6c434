//! `tsh recordings export` and `tsh recordings search`.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;

use chrono::Utc;
use client::play::{Finder, Hit, Recording, TextForm, export as write};
use client::{Error, Result, sessions, text};
use regex::RegexBuilder;

use super::list::{recording_row, span};
use crate::args::{RecordingsExportArgs, RecordingsSearchArgs};
use crate::context::Context;

/// The largest compiled pattern.
const PATTERN_SIZE: usize = 1 << 20;

/// Writes a recording to a file or to standard output.
pub async fn export(context: &Context, args: &RecordingsExportArgs) -> Result<i32> {
    let recording = match Recording::file(&args.session) {
        Some(file) => file,
        None => Recording::session(context.client(args.cluster.as_deref()).await?, &args.session)?,
    };
    let form = TextForm::from(args.format);
    let Some(path) = &args.out else {
        write(&recording, form, BufWriter::new(io::stdout())).await?;
        return Ok(0);
    };
    let failed = |error| Error::io(format!("writing {}", path.display()))(error);
    // What somebody saw is not for everybody on this machine.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = write(&recording, form, BufWriter::new(file)).await;
    if written.is_err() {
        let _ = std::fs::remove_file(path); // half a recording is none
    }
    written.map(|()| 0)
}

/// Looks for a pattern in what terminals showed.
pub async fn search(context: &Context, args: &RecordingsSearchArgs) -> Result<i32> {
    let pattern = RegexBuilder::new(&args.pattern).case_insensitive(args.ignore_case).size_limit(PATTERN_SIZE).build();
    let pattern = pattern.map_err(|error| Error::other(format!("pattern {:?}: {error}", args.pattern)))?;
    let (from, to) = span(&args.which, Utc::now())?;
    let client = context.client(args.which.cluster.as_deref()).await?;
    let ends = sessions::recorded(&client, from, to, args.which.limit).await?;
    let (mut out, mut found) = (io::stdout().lock(), 1);
    for end in &ends {
        let fields = audit::json::to_object(end);
        let fields = fields.map_err(|error| Error::other(format!("an event is not understood: {error}")))?;
        let [id, kind, people, host, _] = recording_row(&fields);
        let is_shown = fields.get("interactive").is_none_or(|interactive| interactive == true);
        if kind != "ssh" && kind != "k8s" || !is_shown {
            continue;
        }
        let mut events = match Recording::session(client.clone(), &id)?.open().await {
            Ok(events) => events,
            Err(error) => {
                eprintln!("WARNING: session {}: {error}", text::line(&id));
                continue;
            }
        };
        let mut finder = Finder::new(&pattern);
        let mut show = |hit: Hit| {
            found = 0;
            let (seconds, line) = (hit.at.as_secs(), text::line(&hit.line));
            let at = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            writeln!(out, "{id}  {}  {}  {at}  {line}", text::line(&people), text::line(&host))
        };
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    eprintln!("WARNING: session {}: {error}", text::line(&id));
                    break;
                }
            };
            for hit in finder.event(&event) {
                show(hit).map_err(Error::io("writing to standard output"))?;
            }
        }
        if let Some(hit) = finder.finish() {
            show(hit).map_err(Error::io("writing to standard output"))?;
        }
    }
    Ok(found)
}
