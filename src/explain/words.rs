//! Numbers as people say them.

use std::time::Duration;

use crate::domain::time::Timestamp;
use crate::ledger::record::parse_rfc3339;

/// Evidence as odds: `366 to 1`.
pub(crate) fn odds(log10: f64) -> String {
    match log10 {
        log10 if log10 >= 9.0 => format!("10^{log10:.0} to 1"),
        log10 if log10 >= 1.0 => format!("{} to 1", thousands(three_digits(10_f64.powf(log10)))),
        log10 => format!("{:.1} to 1", 10_f64.powf(log10)),
    }
}

/// Rounded to three digits.
fn three_digits(value: f64) -> f64 {
    let unit = 10_f64.powf((value.log10().floor() - 2.0).max(0.0));
    (value / unit).round() * unit
}

/// A whole number with commas.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rounded to two digits: what is only foretold is not known better.
pub(super) fn about(value: f64) -> f64 {
    let unit = 10_f64.powf((value.max(1.0).log10().floor() - 1.0).max(0.0));
    (value / unit).ceil() * unit
}

/// `3 of 40`, with `what` after it and then the share: `3 of 40 sessions failed (7.5%)`.
pub(crate) fn part(failed: u64, started: u64, what: &str) -> String {
    let of = format!("{} of {}{what}", thousands(failed as f64), thousands(started as f64));
    if started == 0 { of } else { format!("{of} ({})", ratio(failed, started)) }
}

/// A share of counts in percent; of nothing, `none`.
pub(super) fn ratio(failed: u64, started: u64) -> String {
    if started == 0 { "none".to_owned() } else { share(failed as f64 / started as f64) }
}

/// A share in percent, with as many digits as it needs to be told from 0.
pub(crate) fn share(share: f64) -> String {
    let percent = 100.0 * share;
    if percent > 0.0 && percent < 0.1 { format!("{percent:.3}%") } else { format!("{percent:.1}%") }
}

/// A duration as people say it: seconds, or minutes from ten on.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let whole = if seconds >= 600 { seconds.div_ceil(60) * 60 } else { seconds };
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

/// `1 worker`, `2 workers`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(count as f64))
}

/// A view's time without its milliseconds.
pub(super) fn clock(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{}Z", seconds.replacen('T', " ", 1)),
        None => rfc3339.to_owned(),
    }
}

/// How long until a view's time; `None` if it is past or no time.
pub(super) fn until(rfc3339: &str, now: Timestamp) -> Option<Duration> {
    let left = parse_rfc3339(rfc3339)?.since(now);
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_said_as_odds() {
        let cases = [
            (-2.0, "0.0 to 1"),
            (0.4, "2.5 to 1"),
            (1.2, "16 to 1"),
            (3.301_03, "2,000 to 1"),
            (5.069_6, "117,000 to 1"),
            (12.4, "10^12 to 1"),
        ];
        for (log10, want) in cases {
            assert_eq!(odds(log10), want);
        }
    }

    #[test]
    fn numbers_are_as_exact_as_they_are_known() {
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        let foretold = [0.3, 7.2, 341.0, 12_345.0].map(|value| thousands(about(value)));
        assert_eq!(foretold, ["1", "8", "350", "13,000"]);
        assert_eq!(part(3, 40, " calls"), "3 of 40 calls (7.5%)");
        assert_eq!(part(0, 0, ""), "0 of 0");
        assert_eq!([ratio(0, 0), ratio(1, 8)], ["none", "12.5%"]);
        assert_eq!(share(0.0002), "0.020%");
        assert_eq!(span(Duration::from_secs(95)), "1m 35s");
        assert_eq!(span(Duration::from_secs(4001)), "1h 7m");
        assert_eq!(clock("2026-01-02T03:04:05.678Z"), "2026-01-02 03:04:05Z");
    }
}
