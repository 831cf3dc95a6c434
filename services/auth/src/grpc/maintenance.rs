//! When agents may be upgraded.

use chrono::{DateTime, Datelike, NaiveTime, TimeDelta, Utc, Weekday};
use serde_json::json;
use wire::error::{Error, ErrorKind, Result};
use wire::proto::{ExportUpgradeWindowsRequest, ExportUpgradeWindowsResponse};
use wire::time::{moment, timestamp};
use wire::types::{AgentUpgradeSchedule, AgentUpgradeWindow, ClusterMaintenanceConfigV1, ScheduledAgentUpgradeWindow};

use super::Api;
use crate::Write;
use crate::authz::AuthContext;
use crate::store::kind;

/// How many windows agents are told of at a time.
const WINDOWS: usize = 3;
/// Days in which there are so many windows, even when there is one a week and today's is over.
const DAYS: i64 = 29;
/// How long a window lasts.
const WINDOW: TimeDelta = TimeDelta::hours(1);

/// Replaces the window. Older programs count changes in a nonce: whoever sends one must have seen the last.
pub async fn update(api: &Api, context: &AuthContext, mut config: ClusterMaintenanceConfigV1) -> Result<()> {
    let stored = match api.auth().store().get::<kind::MaintenanceConfig>("").await {
        Ok(stored) => Some(stored),
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let last = stored.map_or(0, |stored| stored.nonce);
    if config.nonce != 0 && config.nonce != last.saturating_add(1) && config.nonce != last {
        return Err(Error::compare_failed("the maintenance configuration was changed meanwhile, try again"));
    }
    config.nonce = last.saturating_add(1);
    let window =
        config.spec.as_ref().and_then(|spec| spec.agent_upgrades.as_ref()).map(|upgrades| upgrades.utc_start_hour);
    api.auth().write_record::<kind::MaintenanceConfig>(context.caller(), config, Write::Upsert).await?;
    let start = window.map(|hour| format!("{hour:02}:00")).unwrap_or_default();
    let event = wire::events::UpgradeWindowStartUpdate {
        user: Some(context.caller().user_metadata()),
        upgrade_window_start: Some(wire::events::UpgradeWindowStartMetadata { upgrade_window_start: start }),
        ..Default::default()
    };
    api.auth().emit(audit::codes::UPGRADE_WINDOW_UPDATE.event(event)).await
}

/// The next windows, in the form that the upgrader of the agent reads.
pub async fn export(api: &Api, request: &ExportUpgradeWindowsRequest) -> Result<ExportUpgradeWindowsResponse> {
    let config = match api.auth().store().get::<kind::MaintenanceConfig>("").await {
        Ok(config) => config,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(ExportUpgradeWindowsResponse::default()),
        Err(error) => return Err(error),
    };
    let Some(window) = config.spec.as_ref().and_then(|spec| spec.agent_upgrades.as_ref()) else {
        return Ok(ExportUpgradeWindowsResponse::default());
    };
    let schedule = schedule(window, api.auth().now());
    let mut answer = ExportUpgradeWindowsResponse::default();
    match request.upgrader_kind.as_str() {
        "" => {}
        "kube" => answer.kube_controller_schedule = for_kubernetes(&schedule),
        "unit" => answer.systemd_unit_schedule = for_systemd(&schedule),
        other => return Err(Error::bad_parameter(format!("unknown upgrader {other:?}: expected kube or unit"))),
    }
    answer.canonical_schedule = Some(schedule);
    Ok(answer)
}

/// The windows from `now` on, the one that is open included.
fn schedule(window: &AgentUpgradeWindow, now: DateTime<Utc>) -> AgentUpgradeSchedule {
    let named = |day: Weekday| {
        let fits = |name: &String| name.parse::<Weekday>().is_ok_and(|named| named == day);
        window.weekdays.is_empty() || window.weekdays.iter().any(fits)
    };
    let hour = TimeDelta::hours(i64::from(window.utc_start_hour.min(23)));
    let days = (0..DAYS).map(|day| now.date_naive() + TimeDelta::days(day));
    let starts = days.filter(|day| named(day.weekday())).map(|day| day.and_time(NaiveTime::MIN).and_utc() + hour);
    let windows = starts.filter(|start| *start + WINDOW > now).take(WINDOWS);
    let window = |start: DateTime<Utc>| ScheduledAgentUpgradeWindow {
        start: Some(timestamp(start)),
        stop: Some(timestamp(start + WINDOW)),
    };
    AgentUpgradeSchedule { windows: windows.map(window).collect() }
}

fn for_kubernetes(schedule: &AgentUpgradeSchedule) -> String {
    let windows = schedule.windows.iter().map(|window| {
        let text = |at| moment(at).map(|at: DateTime<Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        json!({"start": text(window.start.as_ref()), "stop": text(window.stop.as_ref())})
    });
    json!({"windows": windows.collect::<Vec<_>>()}).to_string()
}

/// A line for each window: begin and end in seconds of the Unix epoch.
fn for_systemd(schedule: &AgentUpgradeSchedule) -> String {
    let seconds = |at: Option<&prost_types::Timestamp>| at.map_or(0, |at| at.seconds);
    let lines = schedule.windows.iter();
    lines.map(|window| format!("{} {}\n", seconds(window.start.as_ref()), seconds(window.stop.as_ref()))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_next_windows_are_on_the_days_that_were_named() {
        // A Saturday.
        let now: DateTime<Utc> = "2026-11-21T02:30:00Z".parse().unwrap();
        let window = |hour, days: &[&str]| AgentUpgradeWindow {
            utc_start_hour: hour,
            weekdays: days.iter().map(|day| (*day).to_owned()).collect(),
        };
        let starts = |window: &AgentUpgradeWindow| {
            let found = schedule(window, now).windows;
            found.iter().map(|w| moment(w.start.as_ref()).unwrap().to_rfc3339()).collect::<Vec<_>>()
        };
        assert_eq!(
            starts(&window(2, &[])),
            ["2026-11-21T02:00:00+00:00", "2026-11-22T02:00:00+00:00", "2026-11-23T02:00:00+00:00"]
        );
        assert_eq!(
            starts(&window(1, &["Sat", "Tuesday"])),
            ["2026-11-24T01:00:00+00:00", "2026-11-28T01:00:00+00:00", "2026-12-01T01:00:00+00:00"]
        );
        let weekly = schedule(&window(1, &["mon"]), now);
        assert_eq!(weekly.windows.len(), WINDOWS);
        assert_eq!(for_systemd(&weekly).lines().next().unwrap(), "1795395600 1795399200");
        assert!(for_kubernetes(&weekly).contains(r#"{"start":"2026-11-23T01:00:00Z","stop":"2026-11-23T02:00:00Z"}"#));
    }
}
