//! Moments and lifetimes as people read and write them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use prost_types::Timestamp;

use crate::error::{Error, Result};

/// A lifetime without the zeros of its canonical text: `45m`, `1h`, `1h30m`.
pub fn short(duration: Duration) -> String {
    let text = wire::duration::text(Duration::from_secs(duration.as_secs()));
    let text = text.strip_suffix("m0s").map_or(text.clone(), |t| format!("{t}m"));
    text.strip_suffix("h0m").map_or(text.clone(), |t| format!("{t}h"))
}

/// `02 Jan 24 15:04 UTC`.
pub fn moment(at: DateTime<Utc>) -> String {
    at.format("%d %b %y %H:%M UTC").to_string()
}

/// RFC 3339, to the second.
pub fn exact(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// When something ends, and how long that is from `now`.
pub fn expiry(at: Option<&Timestamp>, now: DateTime<Utc>) -> String {
    match wire::time::moment(at) {
        None => "never".to_owned(),
        Some(at) => match (at - now).to_std() {
            Ok(left) => format!("{} ({})", moment(at), short(left)),
            Err(_) => format!("{} (expired)", moment(at)),
        },
    }
}

/// A lifetime above zero, as a flag has it.
pub fn lifetime(text: &str) -> Result<Duration> {
    match wire::duration::from_text(text) {
        Ok(Duration::ZERO) | Err(_) => Err(Error::bad(format!(
            "{text:?} is not a lifetime: expected a duration above zero such as \"30m\", \"12h\" or \"1h30m\""
        ))),
        Ok(duration) => Ok(duration),
    }
}

/// A moment in RFC 3339, as a flag has it.
pub fn rfc3339(text: &str) -> Result<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc));
    parsed.map_err(|e| {
        Error::bad(format!("{text:?} is not a time: {e}; expected RFC 3339, such as \"2030-01-02T15:04:05Z\""))
    })
}

/// `now` and a lifetime later.
pub fn after(now: DateTime<Utc>, lifetime: Duration) -> Result<DateTime<Utc>> {
    let too_long = || Error::bad(format!("{} is too long", wire::duration::text(lifetime)));
    let delta = TimeDelta::from_std(lifetime).map_err(|_| too_long())?;
    now.checked_add_signed(delta).ok_or_else(too_long)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lifetimes_are_shown_without_zeros() {
        let shown = |seconds| short(Duration::from_secs(seconds));
        assert_eq!(
            (shown(45 * 60), shown(3600), shown(5400), shown(90)),
            ("45m".into(), "1h".into(), "1h30m".into(), "1m30s".into())
        );
        assert_eq!((shown(10), shown(0), shown(48 * 3600)), ("10s".into(), "0s".into(), "48h".into()));
    }

    #[test]
    fn a_lifetime_is_above_zero() {
        assert_eq!(lifetime("30m").unwrap(), Duration::from_secs(1800));
        for text in ["0s", "0", "-5s", "soon", ""] {
            assert!(lifetime(text).unwrap_err().to_string().contains(&format!("{text:?}")), "{text}");
        }
    }

    #[test]
    fn what_has_no_expiry_never_ends() {
        let now = rfc3339("2024-01-02T15:00:00Z").unwrap();
        assert_eq!(expiry(None, now), "never");
        let zero = Timestamp { seconds: -62_135_596_800, nanos: 0 };
        assert_eq!(expiry(Some(&zero), now), "never");
        let soon = wire::time::timestamp(after(now, Duration::from_secs(1500)).unwrap());
        assert_eq!(expiry(Some(&soon), now), "02 Jan 24 15:25 UTC (25m)");
    }
}
