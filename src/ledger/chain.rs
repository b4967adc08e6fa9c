//! How a record gets its place: content → canonical JSON → SHA-256 → Ed25519.
//!
//! ```text
//! record n-1 ──hash──► previous ┐
//!                      draft    ├─ canonical JSON ─ SHA-256 ─► hash ─ Ed25519 ─► signature
//!                      seq, key ┘
//! ```

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::record::{Draft, Record, rfc3339};
use crate::signing::{Signer, canonical_json};

/// What the first record names as the hash before it.
pub const FIRST_PREVIOUS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The fields every record has; `extra` may not use their names.
pub const RESERVED_FIELDS: [&str; 11] = [
    "seq",
    "timestamp",
    "event",
    "actor",
    "target",
    "result",
    "version",
    "previous",
    "hash",
    "signature",
    "key",
];

/// The largest whole number that JSON readers agree on (RFC 8785 writes numbers as doubles).
const EXACT_MAX: u64 = (1 << 53) - 1;

/// Why a draft cannot become a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It would write a field twice.
    #[error("the extra field `{field}` has the name of a record's own field")]
    Reserved {
        /// The field.
        field: String,
    },
    /// Canonical JSON would round it, and the record would say something else.
    #[error("the extra field `{field}` holds {number}, which JSON rounds; write it as text")]
    Inexact {
        /// The top-level field.
        field: String,
        /// The number.
        number: String,
    },
    /// What was written could not be read again, or as something else: nested too deeply, say.
    #[error("the draft cannot be written as JSON: {reason}")]
    Json {
        /// What serde says.
        reason: String,
    },
}

/// All that the hash covers: every field but the hash and its signature.
#[derive(Serialize)]
struct Content<'a> {
    seq: u64,
    timestamp: &'a str,
    event: &'a str,
    actor: &'a str,
    target: &'a str,
    result: &'a str,
    version: Option<&'a str>,
    previous: &'a str,
    key: &'a str,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

/// SHA-256 over the canonical JSON of all fields but `hash` and `signature`.
///
/// # Errors
/// When the record is not JSON: `extra` repeats a record's own field.
pub fn content_hash(record: &Record) -> Result<[u8; 32], serde_json::Error> {
    let content = Content {
        seq: record.seq,
        timestamp: &record.timestamp,
        event: &record.event,
        actor: &record.actor,
        target: &record.target,
        result: &record.result,
        version: record.version.as_deref(),
        previous: &record.previous,
        key: &record.key,
        extra: &record.extra,
    };
    Ok(Sha256::digest(canonical_json(&content)?).into())
}

/// The same hash, from the record's canonical JSON: `json` without its `hash` and `signature`.
///
/// `None` when they are not where canonical JSON has them. Neither can also stand inside another
/// field: both are made from everything else.
pub(super) fn stored_hash(json: &[u8], record: &Record) -> Option<[u8; 32]> {
    let json = std::str::from_utf8(json).ok()?;
    let hash = format!(r#""hash":"{}","#, record.hash);
    let signature = format!(r#""signature":"{}","#, record.signature);
    let (before, rest) = json.split_once(&hash)?;
    let (between, after) = rest.split_once(&signature)?;
    let mut digest = Sha256::new();
    for part in [before, between, after] {
        digest.update(part);
    }
    Some(digest.finalize().into())
}

/// Gives the draft its place `seq` after the record with the hash `previous`, and signs it.
///
/// The record is what a later read of its JSON gives: `1.0` has become `1`.
///
/// # Errors
/// When the draft would not survive being written; see [`SealError`].
pub fn seal(draft: Draft, seq: u64, previous: &str, signer: &Signer) -> Result<Record, SealError> {
    for (field, value) in &draft.extra {
        if RESERVED_FIELDS.contains(&field.as_str()) {
            return Err(SealError::Reserved { field: field.clone() });
        }
        if let Some(number) = inexact(value) {
            return Err(SealError::Inexact { field: field.clone(), number });
        }
    }
    let mut record = Record {
        seq,
        timestamp: rfc3339(draft.at),
        event: draft.event,
        actor: draft.actor,
        target: draft.target,
        result: draft.result,
        version: draft.version,
        previous: previous.to_owned(),
        hash: String::new(),
        signature: String::new(),
        key: signer.public_key().to_owned(),
        extra: draft.extra,
    };
    let hash = content_hash(&record).map_err(|error| json_error(&error))?;
    record.hash = hex::encode(hash);
    record.signature = signer.sign(&hash);
    let written = canonical_json(&record).map_err(|error| json_error(&error))?;
    let read: Record = serde_json::from_slice(&written).map_err(|error| json_error(&error))?;
    // serde_json gives a meaning of its own to keys such as `$serde_json::private::RawValue`.
    if canonical_json(&read).map_err(|error| json_error(&error))? != written {
        return Err(SealError::Json { reason: "it reads back as something else".to_owned() });
    }
    Ok(read)
}

fn json_error(error: &serde_json::Error) -> SealError {
    SealError::Json { reason: error.to_string() }
}

/// The first whole number in `value` that a double cannot hold for sure.
fn inexact(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => None,
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            whole.is_some_and(|whole| whole > EXACT_MAX).then(|| number.to_string())
        }
        Value::Array(values) => values.iter().find_map(inexact),
        Value::Object(fields) => fields.values().find_map(inexact),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::time::Timestamp;

    fn draft(extra: Value) -> Draft {
        Draft {
            at: Timestamp::from_millis(1_767_225_600_000),
            event: "deployment.rolled_back".into(),
            actor: "rollbackd".into(),
            target: "voice".into(),
            result: "ok".into(),
            version: Some("v2".into()),
            extra: serde_json::from_value(extra).unwrap(),
        }
    }

    fn sealed(extra: Value) -> Result<Record, SealError> {
        seal(draft(extra), 1, FIRST_PREVIOUS, &Signer::from_seed(&[7; 32]))
    }

    #[test]
    fn the_written_form_is_fixed() {
        let record = sealed(json!({"from_version": "v1", "log10": 2.0, "share": 0.1})).unwrap();
        insta::assert_snapshot!(
            String::from_utf8(canonical_json(&record).unwrap()).unwrap(), @r#"{"actor":"rollbackd","event":"deployment.rolled_back","from_version":"v1","hash":"bcd42f27bddc588131ca5ca30e7dbd901160f9ddeab1513aa6796440fbefc7ec","key":"ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c","log10":2,"previous":"0000000000000000000000000000000000000000000000000000000000000000","result":"ok","seq":1,"share":0.1,"signature":"48db35c9db197fa944b5ef6865fcdf2c51ae9fa9073c24e341cae77621f6332f2b04abe13f6f1d4009df179d5da843b577cd15b171c5aac8077ce773e9730e02","target":"voice","timestamp":"2026-01-01T00:00:00.000Z","version":"v2"}"#
        );
        assert_eq!(record.extra["log10"], json!(2), "not what a read would give");
    }

    #[test]
    fn the_hash_of_what_is_stored_is_the_hash_of_its_content() {
        let extra = json!({"a": {"hash": "x"}, "signature_of": "y", "zz": ["\"hash\":\"\","]});
        let record = sealed(extra).unwrap();
        let json = canonical_json(&record).unwrap();
        assert_eq!(stored_hash(&json, &record).unwrap(), content_hash(&record).unwrap());
        let other = Record { hash: "0".repeat(64), ..record };
        assert_eq!(stored_hash(&json, &other), None);
    }

    #[test]
    fn extra_cannot_take_the_name_of_any_own_field() {
        let Value::Object(fields) = serde_json::to_value(sealed(json!({})).unwrap()).unwrap()
        else {
            panic!("a record is an object")
        };
        assert_eq!(fields.len(), RESERVED_FIELDS.len());
        for field in fields.keys() {
            let error = sealed(json!({ field: "x" })).unwrap_err();
            assert_eq!(error, SealError::Reserved { field: field.clone() });
        }
    }

    #[test]
    fn a_number_that_json_would_round_is_refused() {
        for exact in [json!(EXACT_MAX), json!(-9_007_199_254_740_991_i64), json!(1e300)] {
            assert!(sealed(json!({ "n": exact })).is_ok(), "{exact}");
        }
        for rounded in [json!(u64::MAX), json!(i64::MIN), json!([{"deep": EXACT_MAX + 1}])] {
            let result = sealed(json!({ "n": rounded }));
            assert!(matches!(result, Err(SealError::Inexact { .. })), "{rounded}");
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_sealed() {
        let deep = (0..200).fold(json!(0), |inner, _| json!([inner]));
        let extra = Map::from_iter([("deep".to_owned(), deep)]);
        let draft = Draft { extra, ..draft(json!({})) };
        let result = seal(draft, 1, FIRST_PREVIOUS, &Signer::from_seed(&[7; 32]));
        assert!(matches!(result, Err(SealError::Json { .. })));
    }

    #[test]
    fn what_reads_back_as_something_else_is_not_sealed() {
        let result = sealed(json!({"x": {"$serde_json::private::RawValue": "[1]"}}));
        // Without that feature of serde_json the key means nothing, and the record holds.
        if let Ok(record) = &result {
            assert_eq!(hex::encode(content_hash(record).unwrap()), record.hash);
        }
    }
}
