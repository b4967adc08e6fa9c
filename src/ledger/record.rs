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
