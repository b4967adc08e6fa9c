//! What a worker claims of itself, read from JSON with every problem named.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Problem;
use crate::domain::fleet::{FleetName, entry_of};
use crate::domain::membership::Heartbeat;
use crate::domain::version::Version;

/// The longest worker id, in bytes.
const WORKER_ID_BYTES_MAX: usize = 256;
/// The longest fleet, in bytes: an entry's name and label values.
const FLEET_BYTES_MAX: usize = 1024;
/// The longest token, in bytes; a good one has 64.
const TOKEN_BYTES_MAX: usize = 256;
/// No worker serves more sessions at a time; a number above is a mistake.
const ACTIVE_SESSIONS_MAX: u64 = 1_000_000;

/// What [`heartbeat`] reads.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes")]
pub(super) struct HeartbeatBody {
    /// The fleet's name.
    #[schema(min_length = 1, max_length = 1024, example = "voice")]
    fleet: String,
    /// The worker's name.
    #[schema(min_length = 1, max_length = 256, example = "host-1")]
    worker_id: String,
    /// The version it runs.
    #[schema(min_length = 1, example = "v2")]
    version: String,
    /// Unix seconds, with a fraction.
    timestamp: f64,
    /// OpenRTC's `sign_membership`, hex.
    #[schema(min_length = 1, max_length = 256)]
    token: String,
    /// Whether it takes no new sessions.
    draining: bool,
    /// Sessions in progress.
    #[schema(maximum = 1_000_000)]
    active_sessions: u64,
}

/// What [`question`] reads.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes")]
pub(super) struct QuestionBody {
    /// The fleet's name.
    #[schema(min_length = 1, max_length = 1024, example = "voice")]
    fleet: String,
    /// The worker's name.
    #[schema(min_length = 1, max_length = 256, example = "host-1")]
    worker_id: String,
    /// The version it runs.
    #[schema(min_length = 1, example = "v2")]
    version: String,
    /// Unix seconds, with a fraction.
    timestamp: f64,
    /// OpenRTC's `sign_membership`, hex.
    #[schema(min_length = 1, max_length = 256)]
    token: String,
    /// Whether it takes no new sessions.
    #[schema(required = false)]
    draining: bool,
    /// Sessions in progress.
    #[schema(required = false, maximum = 1_000_000)]
    active_sessions: u64,
}

/// Reads a heartbeat, in which every field must be there.
pub(super) fn heartbeat(body: &[u8]) -> Result<Heartbeat, Problem> {
    read(body, true)
}

/// Reads what a coordinator asks about: a heartbeat that may say nothing of the worker's state.
pub(super) fn question(body: &[u8]) -> Result<Heartbeat, Problem> {
    read(body, false)
}

fn read(body: &[u8], with_state: bool) -> Result<Heartbeat, Problem> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::bad(format!("the body is not JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(Problem::bad("the body is not a JSON object"));
    };
    let mut fields = Fields { object: &object, problems: Vec::new() };

    let fleet = fields.text("fleet", FLEET_BYTES_MAX);
    if !fleet.is_empty() {
        fields.parsed::<FleetName>("fleet", entry_of(fleet));
    }
    let worker_id = fields.text("worker_id", WORKER_ID_BYTES_MAX);
    let version = fields.text("version", usize::MAX);
    let version =
        if version.is_empty() { None } else { fields.parsed::<Version>("version", version) };
    let timestamp_seconds = fields.required("timestamp", "a number", Value::as_f64);
    let token = fields.text("token", TOKEN_BYTES_MAX);
    let draining = fields.state("draining", "true or false", with_state, Value::as_bool);
    let sessions = |value: &Value| value.as_u64().filter(|count| *count <= ACTIVE_SESSIONS_MAX);
    let expected = format!("a whole number from 0 to {ACTIVE_SESSIONS_MAX}");
    let active_sessions = fields.state("active_sessions", &expected, with_state, sessions);

    match (version, timestamp_seconds, fields.problems.is_empty()) {
        (Some(version), Some(timestamp_seconds), true) => Ok(Heartbeat {
            fleet: fleet.to_owned(),
            worker_id: worker_id.to_owned(),
            version,
            draining: draining.unwrap_or_default(),
            active_sessions: active_sessions.unwrap_or_default(),
            timestamp_seconds,
            token: token.to_owned(),
        }),
        _ => Err(Problem::bad(fields.problems.join("; "))),
    }
}

struct Fields<'a> {
    object: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl<'a> Fields<'a> {
    fn required<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.object.get(name);
        let read = value.and_then(read);
        if read.is_none() {
            let problem = if value.is_none() { "is missing" } else { "is wrong" };
            self.problems.push(format!("`{name}` {problem}: expected {expected}"));
        }
        read
    }

    fn state<T>(
        &mut self,
        name: &str,
        expected: &str,
        required: bool,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        if required || self.object.contains_key(name) {
            self.required(name, expected, read)
        } else {
            None
        }
    }

    /// A text that is not empty; an empty one if there is a problem.
    fn text(&mut self, name: &str, bytes_max: usize) -> &'a str {
        let well_formed = |text: &&str| {
            !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
        };
        let expected = if bytes_max == usize::MAX {
            "a text without control characters".to_owned()
        } else {
            format!("a text of 1 to {bytes_max} bytes without control characters")
        };
        self.required(name, &expected, |value| value.as_str().filter(well_formed))
            .unwrap_or_default()
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.problems.push(format!("`{name}` is wrong: {error}"))).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "fleet": "voice:eu", "worker_id": "w1", "version": "v2", "draining": true,
            "active_sessions": 3, "timestamp": 1_753_000_000.123_456, "token": "ab",
            "something_newer": [1, 2],
        })
    }

    #[test]
    fn a_float_is_kept_to_its_last_bit_and_unknown_fields_are_let_pass() {
        let claim = heartbeat(good().to_string().as_bytes()).unwrap();
        assert_eq!(claim.timestamp_seconds.to_bits(), 1_753_000_000.123_456_f64.to_bits());
        assert_eq!((claim.draining, claim.active_sessions), (true, 3));
        let whole = good().to_string().replace("1753000000.123456", "1753000000");
        let claim = heartbeat(whole.as_bytes()).unwrap();
        assert_eq!(claim.timestamp_seconds.to_bits(), 1_753_000_000_f64.to_bits());
    }

    #[test]
    fn a_field_that_is_missing_or_wrong_is_named() {
        #[rustfmt::skip]
        let cases = [
            ("fleet", json!(null)), ("fleet", json!("")), ("fleet", json!("no such/name:eu")),
            ("fleet", json!(format!("v:{}", "x".repeat(FLEET_BYTES_MAX)))),
            ("worker_id", json!(7)), ("worker_id", json!("a\nb")),
            ("worker_id", json!("x".repeat(WORKER_ID_BYTES_MAX + 1))),
            ("version", json!("x".repeat(257))), ("version", json!(true)),
            ("timestamp", json!("1753000000")), ("timestamp", json!(null)),
            ("draining", json!("no")), ("active_sessions", json!(-1)),
            ("active_sessions", json!(1.5)), ("active_sessions", json!(1_000_001)),
            ("token", json!([])),
        ];
        for (field, value) in cases {
            let mut claim = good();
            claim[field] = value.clone();
            let problem = heartbeat(claim.to_string().as_bytes()).unwrap_err();
            assert!(problem.detail().starts_with(&format!("`{field}` is wrong")), "{problem:?}");
            assert!(!problem.detail().contains("; "), "only this one: {problem:?}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problem = heartbeat(b"{}").unwrap_err();
        assert_eq!(problem.detail().matches("is missing").count(), 7, "{problem:?}");
        let problem = question(b"{}").unwrap_err();
        assert_eq!(problem.detail().matches("is missing").count(), 5, "{problem:?}");
        for not_an_object in ["", "[]", "{", "\"x\"", r#"{"fleet": "\ud800"}"#] {
            assert!(heartbeat(not_an_object.as_bytes()).is_err(), "{not_an_object}");
        }
    }
}
