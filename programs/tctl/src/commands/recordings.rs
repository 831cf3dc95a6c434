//! `recordings`.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::proto::{GetSessionEventsRequest, Order};

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, time};

/// Most recordings that one call of the Auth Service gives.
const PAGE: i32 = 1000;

/// Recorded sessions.
#[derive(Debug, Subcommand)]
pub enum Recordings {
    /// List recordings, the newest first.
    #[command(alias = "list")]
    Ls(Ls),
    /// The keys that recordings are sealed to.
    #[command(subcommand)]
    Encryption(Encryption),
}

/// The keys that recordings are sealed to.
#[derive(Debug, Subcommand)]
pub enum Encryption {
    /// Show whether new recordings are sealed, and the keys.
    Status(Shown),
    /// Make a new key for recordings from now on; old ones stay readable.
    Rotate(Shown),
}

/// How to show something.
#[derive(Args, Debug)]
pub struct Shown {
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What the Auth Service says about the keys.
#[derive(Debug, Deserialize, Serialize)]
struct SealingStatus {
    enabled: bool,
    keys: Vec<String>,
}

/// List recordings.
#[derive(Args, Debug)]
pub struct Ls {
    /// First day, as 2030-01-31 [default: a day ago].
    #[arg(long, value_name = "DAY")]
    from_utc: Option<String>,
    /// Last day, as 2030-01-31 [default: today].
    #[arg(long, value_name = "DAY")]
    to_utc: Option<String>,
    /// How long back from now.
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["from_utc", "to_utc"])]
    last: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Recordings {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Ls(command) => command.run(api).await,
            Self::Encryption(command) => command.run(api).await,
        }
    }
}

impl Encryption {
    async fn run(self, api: &Api) -> Result<()> {
        let path = "/v2/recordings/encryption";
        let (status, format): (SealingStatus, _) = match self {
            Self::Status(Shown { format }) => (api.http().get(path).await?, format),
            Self::Rotate(Shown { format }) => {
                (api.http().post(&format!("{path}/rotate"), &serde_json::json!({})).await?, format)
            }
        };
        say(&match format {
            Format::Text => status.text(),
            Format::Json => output::json(&status, 4)?,
            Format::Yaml => output::yaml(&status)?,
        });
        Ok(())
    }
}

impl SealingStatus {
    fn text(&self) -> String {
        let mut text = match self.enabled {
            true => "New recordings are sealed.\n".to_owned(),
            false => "New recordings are not sealed.\n".to_owned(),
        };
        for (at, key) in self.keys.iter().enumerate() {
            let newest = at + 1 == self.keys.len();
            let note = if newest && self.enabled { "  in use" } else { "" };
            text += &format!("{}{note}\n", output::text::lines(key));
        }
        text
    }
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let (from, to) = self.range(Utc::now())?;
        let events = events(api, from, to, self.limit).await?;
        say(&match self.format {
            Format::Text => table(&events),
            Format::Json => output::json(&events, 4)?,
            Format::Yaml => output::yaml(&events)?,
        });
        Ok(())
    }

    fn range(&self, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
        if let Some(last) = &self.last {
            return Ok((before(now, time::lifetime(last)?)?, now));
        }
        let day = |flag: &str, text: &Option<String>| text.as_deref().map(|text| date(flag, text)).transpose();
        let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        let from = match day("from-utc", &self.from_utc)? {
            Some(day) => midnight(day),
            None => before(now, Duration::from_secs(24 * 3600))?,
        };
        let to = match day("to-utc", &self.to_utc)? {
            Some(day) if midnight(day) > now => return Err(Error::bad(format!("--to-utc: {day} is in the future"))),
            // The whole of that day.
            Some(day) => midnight(day) + TimeDelta::days(1),
            None => now,
        };
        match from < to {
            true => Ok((from, to)),
            false => Err(Error::bad(format!("--from-utc ({from}) is after --to-utc ({to})"))),
        }
    }
}

fn date(flag: &str, text: &str) -> Result<NaiveDate> {
    let parsed = NaiveDate::parse_from_str(text, "%Y-%m-%d");
    parsed.map_err(|e| Error::bad(format!("--{flag}: {text:?} is no day: {e}; expected a day such as 2030-01-31")))
}

fn before(now: DateTime<Utc>, back: Duration) -> Result<DateTime<Utc>> {
    let delta = TimeDelta::from_std(back).ok().and_then(|delta| now.checked_sub_signed(delta));
    delta.ok_or_else(|| Error::bad(format!("{} is too long ago", time::short(back))))
}

/// The ends of sessions in a range of time, as the audit log has them.
async fn events(api: &Api, from: DateTime<Utc>, to: DateTime<Utc>, limit: u32) -> Result<Vec<Value>> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let mut request = GetSessionEventsRequest {
        start_date: Some(wire::time::timestamp(from)),
        end_date: Some(wire::time::timestamp(to)),
        order: Order::Descending.into(),
        ..Default::default()
    };
    while found.len() < wanted {
        request.limit = i32::try_from(wanted - found.len()).unwrap_or(PAGE).min(PAGE);
        let page = api.auth().get_session_events(request.clone()).within("listing recordings").await?;
        for event in &page.items {
            found
                .push(serde_json::to_value(event).map_err(|e| Error::other(format!("an event cannot be shown: {e}")))?);
        }
        if page.last_key.is_empty() {
            break;
        }
        request.start_key = page.last_key;
    }
    found.truncate(wanted);
    Ok(found)
}

fn table(events: &[Value]) -> String {
    let mut table = Table::new(["ID", "Type", "Participants", "Hostname", "Timestamp"]);
    for event in events {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.row([text("sid"), kind(event).to_owned(), participants(event), hostname(event), text("time")]);
    }
    table.full()
}

fn kind(event: &Value) -> &str {
    let field = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    match field("event") {
        "windows.desktop.session.end" => "desktop",
        "db.session.end" => "db",
        "app.session.end" => "app",
        _ => match field("proto") {
            "kube" => "k8s",
            _ => "ssh",
        },
    }
}

fn participants(event: &Value) -> String {
    let listed = event.get("participants").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    match listed.is_empty() {
        true => event.get("user").and_then(Value::as_str).unwrap_or_default().to_owned(),
        false => listed.join(", "),
    }
}

fn hostname(event: &Value) -> String {
    let keys = ["server_hostname", "desktop_name", "db_service", "app_name", "kubernetes_cluster", "server_addr"];
    let field = |key: &&str| event.get(*key).and_then(Value::as_str).filter(|text| !text.is_empty());
    keys.iter().find_map(field).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn ls() -> Ls {
        Ls { from_utc: None, to_utc: None, last: None, limit: 50, format: Format::Text }
    }

    fn now() -> DateTime<Utc> {
        time::rfc3339("2024-03-02T15:00:00Z").unwrap()
    }

    #[test]
    fn days_are_whole_and_not_in_the_future() {
        let (from, to) =
            Ls { from_utc: Some("2024-03-01".into()), to_utc: Some("2024-03-01".into()), ..ls() }.range(now()).unwrap();
        assert_eq!((to - from, from.to_rfc3339()), (TimeDelta::days(1), "2024-03-01T00:00:00+00:00".into()));
        let refused = |ls: Ls| ls.range(now()).unwrap_err().to_string();
        assert!(refused(Ls { to_utc: Some("2024-03-03".into()), ..ls() }).contains("future"));
        assert!(refused(Ls { from_utc: Some("2024-03-05".into()), ..ls() }).contains("after"));
        assert!(refused(Ls { from_utc: Some("yesterday".into()), ..ls() }).contains("\"yesterday\""));
        let (from, to) = Ls { last: Some("2h".into()), ..ls() }.range(now()).unwrap();
        assert_eq!((to, to - from), (now(), TimeDelta::hours(2)));
    }

    #[test]
    fn sessions_of_all_kinds_have_a_host_and_people() {
        let events = [
            json!({"event": "session.end", "sid": "1", "proto": "ssh", "participants": ["a", "b"], "server_hostname": "web", "time": "t"}),
            json!({"event": "windows.desktop.session.end", "sid": "2", "user": "c", "desktop_name": "desk", "time": "t"}),
        ];
        let text = table(&events);
        assert!(text.contains("1  ssh     a, b         web      t\n"), "{text}");
        assert!(text.contains("2  desktop c            desk     t\n"), "{text}");
    }
}
