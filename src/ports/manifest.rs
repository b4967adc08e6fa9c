//! A manifest as it is published: signed, and never taken apart again on the way to a worker.

use crate::domain::time::Timestamp;

/// A manifest's bytes and the signature over exactly these bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    /// Canonical JSON (RFC 8785): what was signed. A JSON object with `fleet`, `serial`,
    /// `admitted`, `denied`, `draining`, `last_good`, `issued_at` and `expires_at`.
    pub manifest_json: String,
    /// The manifest's own serial.
    pub serial: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// The Ed25519 public key, hex.
    pub key: String,
    /// Ed25519 over `manifest_json`, hex.
    pub signature: String,
}
