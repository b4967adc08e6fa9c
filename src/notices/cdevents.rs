//! Records as `CDEvents`, carried by `CloudEvents` in structured mode.
//!
//! `CDEvents` 0.5, `service.rolledback` and `service.deployed` 0.3.0; `CloudEvents` 1.0. Signed as
//! Standard Webhooks asks for asymmetric keys: `v1a`, Ed25519 over `id.timestamp.body`.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::domain::template;
use crate::domain::time::Timestamp;
use crate::ledger::record::Record;
use crate::signing::{Signer, canonical_json};

/// Who speaks, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A URI reference that names this rollbackd.
    pub source: String,
    /// The environment its fleets are in.
    pub environment: String,
    /// A package URL with `{{fleet}}` and `{{version}}`.
    pub artifact: String,
}

/// One event, ready to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same however often it is sent, so that a receiver knows a repetition.
    pub id: String,
    /// The whole `CloudEvent`, canonical JSON.
    pub body: Vec<u8>,
}

/// The event a record is; `None` for a record that is none.
#[must_use]
pub fn event(record: &Record, about: &Source) -> Option<Event> {
    let predicate = match record.event.as_str() {
        "deployment.rolled_back" => "rolledback",
        "deployment.completed" => "deployed",
        _ => return None,
    };
    let text = |name: &str| record.extra.get(name).and_then(Value::as_str);
    let fleet = text("fleet").unwrap_or(&record.target);
    let version = record.version.clone()?;
    let kind = format!("dev.cdevents.service.{predicate}.0.3.0");
    let artifact = template::expand(&about.artifact, |name| match name {
        "fleet" => Some(escaped(fleet)),
        "version" => Some(escaped(&version)),
        _ => None,
    });
    // The record's hash is like no other's, and the same after a restart.
    let id = record.hash.clone();
    let data = json!({
        "context": {
            "specversion": "0.5.1",
            "id": id,
            "source": about.source,
            "type": kind,
            "timestamp": record.timestamp,
        },
        "subject": {
            "id": fleet,
            "source": about.source,
            "content": {
                "environment": { "id": about.environment },
                "artifactId": artifact,
            },
        },
        "customDataContentType": "application/json",
        "customData": {
            "seq": record.seq,
            "version": version,
            "from_version": text("from_version"),
            "rollback_id": text("rollback_id"),
            "reason": text("reason"),
        },
    });
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": about.source,
        "type": kind,
        "subject": fleet,
        "time": record.timestamp,
        "datacontenttype": "application/json",
        "data": data,
    });
    Some(Event { id, body: canonical_json(&event).ok()? })
}

/// A part of a package URL: what is not plain is percent-encoded.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let part = |byte: u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(part).collect()
}

/// The headers that prove who sent an event, and when.
#[must_use]
pub fn headers(event: &Event, signer: &Signer, now: Timestamp) -> Vec<(&'static str, String)> {
    let seconds = now.as_millis().div_euclid(1000);
    let mut message = format!("{}.{seconds}.", event.id).into_bytes();
    message.extend_from_slice(&event.body);
    let signature = BASE64_STANDARD.encode(signer.sign_raw(&message));
    vec![
        ("content-type", "application/cloudevents+json".to_owned()),
        ("webhook-id", event.id.clone()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", format!("v1a,{signature}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing;

    fn record(event: &str) -> Record {
        let extra = json!({"fleet": "voice:eu", "from_version": "v2", "reason": "it fails"});
        Record {
            seq: 9,
            timestamp: "2026-01-31T23:59:59.000Z".to_owned(),
            event: event.to_owned(),
            actor: "rollbackd".to_owned(),
            target: "voice:eu".to_owned(),
            result: "ok".to_owned(),
            version: Some("v1+x".to_owned()),
            previous: String::new(),
            hash: "ab12".to_owned(),
            signature: String::new(),
            key: String::new(),
            extra: extra.as_object().unwrap().clone(),
        }
    }

    fn about() -> Source {
        Source {
            source: "/rollbackd".to_owned(),
            environment: "production".to_owned(),
            artifact: "pkg:generic/{{fleet}}@{{version}}".to_owned(),
        }
    }

    #[test]
    fn a_rollback_is_an_event_with_all_that_the_schema_requires() {
        let event = event(&record("deployment.rolled_back"), &about()).unwrap();
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(body["type"], "dev.cdevents.service.rolledback.0.3.0");
        assert_eq!((&body["specversion"], &body["id"]), (&json!("1.0"), &json!("ab12")));
        let data = &body["data"];
        for field in ["specversion", "id", "source", "type", "timestamp"] {
            assert!(data["context"][field].is_string(), "{field}: {data:#}");
        }
        assert_eq!(data["subject"]["id"], "voice:eu");
        let content = json!({
            "environment": {"id": "production"},
            "artifactId": "pkg:generic/voice%3Aeu@v1%2Bx",
        });
        assert_eq!(data["subject"]["content"], content);
        assert_eq!(data["customData"]["from_version"], "v2");
    }

    #[test]
    fn a_promotion_is_a_deployment_and_other_records_are_none() {
        let promoted = event(&record("deployment.completed"), &about()).unwrap();
        let body: Value = serde_json::from_slice(&promoted.body).unwrap();
        assert_eq!(body["type"], "dev.cdevents.service.deployed.0.3.0");
        for other in ["deployment.started", "rollback.gated", "notice.delivered"] {
            assert_eq!(event(&record(other), &about()), None, "{other}");
        }
    }

    #[test]
    fn the_signature_is_over_id_time_and_body() {
        let signer = Signer::from_seed(&[7; 32]);
        let event = event(&record("deployment.rolled_back"), &about()).unwrap();
        let now = Timestamp::from_millis(1_700_000_000_999);
        let headers = headers(&event, &signer, now);
        let header = |wanted| headers.iter().find(|(name, _)| *name == wanted).unwrap().1.clone();
        assert_eq!(header("webhook-timestamp"), "1700000000");
        let signature = header("webhook-signature");
        let signature = BASE64_STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        let message = [b"ab12.1700000000.".as_slice(), &event.body].concat();
        let verified = signing::verify(signer.public_key(), &message, &hex::encode(&signature));
        assert_eq!(verified, Ok(()));
        let changed = [b"ab12.1700000001.".as_slice(), &event.body].concat();
        assert!(signing::verify(signer.public_key(), &changed, &hex::encode(&signature)).is_err());
    }
}
