//! A new signing key takes over from an old one, in a record.
//!
//! The old key signs the record, as any. The new one signs what the record takes over, so that
//! whoever trusts the new key alone also knows that the chain before it is the one it took over.

use serde_json::{Map, Value};

use super::record::{Draft, Record};
use crate::domain::time::Timestamp;
use crate::signing::{self, Signer};

/// The record's event.
pub const KEY_ROTATED: &str = "controller.key_rotated";

/// Who rotates, and why.
#[derive(Clone, Debug)]
pub struct Word {
    /// A person's name.
    pub actor: String,
    /// For people.
    pub reason: String,
}

/// The record by which `new` takes over from the key `old` (hex), after the record of the hash
/// `previous`.
#[must_use]
pub fn draft(at: Timestamp, old: &str, new: &Signer, previous: &str, word: Word) -> Draft {
    let proof = new.sign(&taken_over(previous, old, new.public_key()));
    let extra = [
        ("new_key", new.public_key().to_owned()),
        ("new_key_signature", proof),
        ("reason", word.reason),
    ];
    Draft {
        at,
        event: KEY_ROTATED.to_owned(),
        actor: word.actor,
        target: "ledger".to_owned(),
        result: "ok".to_owned(),
        version: None,
        extra: extra.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
    }
}

/// The key that takes over, where the record says so and the key has agreed.
///
/// `None` for any other record; `Some(None)` for one that names no key, or one that has not agreed.
#[must_use]
pub fn new_key(record: &Record) -> Option<Option<&str>> {
    if record.event != KEY_ROTATED {
        return None;
    }
    let field = |name: &str| text(&record.extra, name);
    let agreed = field("new_key").zip(field("new_key_signature")).filter(|(new, proof)| {
        signing::verify(new, &taken_over(&record.previous, &record.key, new), proof).is_ok()
    });
    Some(agreed.map(|(new, _)| new))
}

fn text<'a>(extra: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    extra.get(name).and_then(Value::as_str)
}

/// What the new key signs.
fn taken_over(previous: &str, old: &str, new: &str) -> Vec<u8> {
    format!("rollbackd ledger key rotation\n{previous}\n{old}\n{new}\n").into_bytes()
}
