//! Moments: `google.protobuf.Timestamp` to and from [`chrono`].

use chrono::{DateTime, TimeZone, Utc};
use prost_types::Timestamp;

/// A moment as a message.
pub fn timestamp(moment: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: moment.timestamp(), nanos: i32::try_from(moment.timestamp_subsec_nanos()).unwrap_or(0) }
}

/// The moment of a message; `None` when absent, out of range, or the year 1 that stands for "no time".
pub fn moment(timestamp: Option<&Timestamp>) -> Option<DateTime<Utc>> {
    let t = timestamp?;
    let nanos = u32::try_from(t.nanos).ok()?;
    let moment = Utc.timestamp_opt(t.seconds, nanos).single()?;
    (t.seconds > YEAR_ONE).then_some(moment)
}

/// Seconds of 0001-01-01T00:00:00Z, the zero time of peers.
const YEAR_ONE: i64 = -62_135_596_800;
