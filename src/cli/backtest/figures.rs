//! How numbers and times are written.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// `2026-11-25 08:00:15Z`.
pub(super) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.as_millis().to_string(), |at| at.strftime("%F %TZ").to_string())
}

/// A duration to the second.
pub(super) fn duration(duration: Duration) -> String {
    let whole = Duration::from_secs(duration.as_secs());
    humantime::format_duration(whole).to_string().replace(' ', "")
}

/// `12 of 240 (5.0%)`.
pub(super) fn ratio(failed: u64, started: u64) -> String {
    if started == 0 {
        return format!("{failed} of 0");
    }
    format!("{failed} of {started} ({:.1}%)", 100.0 * failed as f64 / started as f64)
}

pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
