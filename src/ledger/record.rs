//! One record, in `OpenRTC`'s field names.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::time::Timestamp;

/// A record before it has a place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// When it happened.
    pub at: Timestamp,
    /// Such as `deployment.rolled_back`.
    pub event: String,
    /// Who did it: `rollbackd`, or an operator's name.
    pub actor: String,
    /// Whom it was done to: usually the fleet.
    pub target: String,
    /// `ok`, `started`, `failed`, …
    pub result: String,
    /// The version it is about.
    pub version: Option<String>,
    /// Further flat fields.
    pub extra: Map<String, Value>,
}

/// A record in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1, without gaps.
    pub seq: u64,
    /// RFC 3339, UTC, milliseconds.
    pub timestamp: String,
    /// Such as `deployment.rolled_back`.
    pub event: String,
    /// Who did it.
    pub actor: String,
    /// Whom it was done to.
    pub target: String,
    /// How it went.
    pub result: String,
    /// The version it is about.
    pub version: Option<String>,
    /// Hash of the record before, hex; 64 zeros for the first.
    pub previous: String,
    /// SHA-256 over the canonical JSON of all fields but `hash` and `signature`, hex.
    pub hash: String,
    /// Ed25519 over the hash's 32 bytes, hex.
    pub signature: String,
    /// The public key, hex.
    pub key: String,
    /// Further flat fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The time as records write it: RFC 3339, UTC, milliseconds, such as `2026-01-31T23:59:59.000Z`.
///
/// Times outside the years −9999 to 9999 become the nearest one inside.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let nearest = if at.as_millis() < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    format!("{:.3}", jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(nearest))
}

/// The time an RFC 3339 text names, in any offset, cut to milliseconds.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        #[rustfmt::skip]
        let cases: &[(i64, &str)] = &[
            (0,                 "1970-01-01T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (-1,                "1969-12-31T23:59:59.999Z"),
            (1_709_164_800_120, "2024-02-29T00:00:00.120Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(rfc3339(Timestamp::from_millis(*millis)), *text);
            assert_eq!(parse_rfc3339(text), Some(Timestamp::from_millis(*millis)));
        }
    }

    #[test]
    fn times_are_read_in_any_offset_and_nonsense_is_not_read() {
        let hour = Some(Timestamp::from_millis(3_600_000));
        assert_eq!(parse_rfc3339("1970-01-01T02:00:00+01:00"), hour);
        for text in ["", "now", "1970-01-01", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_out_of_range_is_written_as_the_nearest() {
        assert!(rfc3339(Timestamp::from_millis(i64::MAX)).starts_with("9999-"));
        assert!(rfc3339(Timestamp::from_millis(i64::MIN)).starts_with("-009999-"));
    }
}
