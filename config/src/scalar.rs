//! What the text of a value means.

use std::time::Duration;

/// Reads a flag, whatever its case.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "yeah" | "y" | "true" | "1" | "on" => Some(true),
        "no" | "nope" | "n" | "false" | "0" | "off" => Some(false),
        _ => None,
    }
}

/// Reads a duration in the notation of Go: numbers with units, such as `1h30m` or `1.5s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let nanos: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(times(number, nanos)?)?;
        rest = next;
    }
    // What Go can hold: about 292 years.
    (total.as_nanos() <= i64::MAX as u128).then_some(total)
}

/// A decimal number of units of `nanos` each.
fn times(number: &str, nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole) * u128::from(nanos);
    let mut unit = u128::from(nanos);
    for digit in fraction.chars().take(18) {
        unit /= 10;
        total += u128::from(digit.to_digit(10)?) * unit;
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// Writes a duration in the notation of Go: `1h30m0s`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if seconds == 0 {
        let nanos = duration.subsec_nanos();
        return match nanos {
            0..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", decimal(nanos / 1_000, nanos % 1_000, 3)),
            _ => format!("{}ms", decimal(nanos / 1_000_000, nanos % 1_000_000, 6)),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal((seconds % 60) as u32, duration.subsec_nanos(), 9);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn decimal(whole: u32, fraction: u32, digits: usize) -> String {
    let text = format!("{whole}.{fraction:0digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_have_many_words() {
        for text in ["yes", "YES", "yeah", "y", "true", "1", "On"] {
            assert_eq!(flag(text), Some(true), "{text}");
        }
        for text in ["no", "nope", "N", "False", "0", "off"] {
            assert_eq!(flag(text), Some(false), "{text}");
        }
        assert_eq!(flag("maybe"), None);
    }

    #[test]
    fn durations_are_read_as_go_does() {
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(duration("1h30m"), millis(5_400_000));
        assert_eq!(duration("8h0m0s"), millis(28_800_000));
        assert_eq!(duration("1.5s"), millis(1_500));
        assert_eq!(duration(".5s"), millis(500));
        assert_eq!(duration("250ms"), millis(250));
        assert_eq!(duration("0"), millis(0));
        for text in ["", "soon", "5", "-5s", "5d", "s", ".s", "1..5s", "999999999h", "1h 30m"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let write = |nanos| format_duration(Duration::from_nanos(nanos));
        assert_eq!(write(0), "0s");
        assert_eq!(write(1_500), "1.5µs");
        assert_eq!(write(250_000_000), "250ms");
        assert_eq!(write(1_500_000_000), "1.5s");
        assert_eq!(write(90_000_000_000), "1m30s");
        assert_eq!(write(28_800_000_000_000), "8h0m0s");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(nanos in 0..=i64::MAX as u64) {
            let expected = Duration::from_nanos(nanos);
            prop_assert_eq!(duration(&format_duration(expected)), Some(expected));
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), odd in "[0-9.hmsuµn]{0,12}") {
            let _ = (duration(&text), duration(&odd));
        }
    }
}
