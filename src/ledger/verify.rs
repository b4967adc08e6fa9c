//! Whether a chain holds, record by record.
//!
//! A chain proves that nothing in it was changed, dropped or put in between. It cannot prove that
//! nothing was cut off its end: a [checkpoint](super::checkpoint) kept elsewhere does.
//!
//! A [rotation](mod@super::rotation) hands over from one key to the next: from that record on, the new
//! key's signatures count in place of the old one's.

use std::collections::BTreeSet;

use super::chain::{FIRST_PREVIOUS, content_hash, stored_hash};
use super::record::{Record, parse_rfc3339, rfc3339};
use super::rotation;
use crate::signing::{self, VerifyError, canonical_json};

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only these public keys, hex, and those that took over from them.
    Keys(BTreeSet<String>),
    /// The key of the first record and those that took over from it, if that ends with this one,
    /// hex. Its signature vouches for all before: see [`super::rotation`].
    EndingWith(String),
    /// Whatever key a record names: shows damage, not forgery.
    AnyKey,
}

/// Which signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Each record's own.
    Every,
    /// Only the last record's, by [`ChainVerifier::finish`]. Its hash covers all records before
    /// it, so nothing in them can have been changed but their own signatures.
    Last,
}

/// The first record that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}: {why}")]
pub struct BrokenRecord {
    /// Where it lies.
    pub seq: u64,
    /// What is wrong with it.
    pub why: Flaw,
}

/// What can be wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not JSON, or not a record's fields.
    #[error("is not a ledger record: {reason}")]
    NotARecord {
        /// What the parser says.
        reason: String,
    },
    /// The same meaning in another spelling.
    #[error("is not written as canonical JSON")]
    NotCanonical,
    /// The store filed it under another number than its own.
    #[error("its place holds record {found}")]
    Misplaced {
        /// The number in the record.
        found: u64,
    },
    /// Records are missing, or one is there twice.
    #[error("expected record {expected} here")]
    Gap {
        /// The number that had to come.
        expected: u64,
    },
    /// Does not name the hash of the record before it.
    #[error("does not follow from the record before it")]
    WrongPrevious,
    /// The content was changed.
    #[error("hash does not match its content")]
    WrongHash,
    /// The signature is not the key's over the hash.
    #[error("signature does not match its hash and key")]
    BadSignature,
    /// A new key takes over that has not agreed to it.
    #[error("names no new key, or one that has not signed for it")]
    BadRotation,
    /// Signed, but not by one who may.
    #[error("signed with the key {key}, which is not trusted")]
    UnknownKey {
        /// The key, hex.
        key: String,
    },
}

/// What a verified chain amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many records, which is also the last `seq`.
    pub records: u64,
    /// The first record's timestamp.
    pub first: Option<String>,
    /// The last record's timestamp.
    pub last: Option<String>,
    /// The last record's hash; 64 zeros if there is none.
    pub head: String,
    /// The keys that signed, or took over.
    pub keys: BTreeSet<String>,
}

/// Takes the records one by one from the first; holds no more than the last one's hash.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    trust: Trust,
    signatures: Signatures,
    /// The key in force, where it is not among the trusted ones from the start.
    current: Option<String>,
    /// The last record's key and signature, where they have not been checked.
    unchecked: Option<(String, String)>,
    summary: Summary,
}

impl ChainVerifier {
    /// Ready for record 1; every signature will be checked.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self::with(trust, Signatures::Every)
    }

    /// Ready for record 1.
    #[must_use]
    pub fn with(trust: Trust, signatures: Signatures) -> Self {
        let summary = Summary {
            records: 0,
            first: None,
            last: None,
            head: FIRST_PREVIOUS.to_owned(),
            keys: BTreeSet::new(),
        };
        Self { trust, signatures, current: None, unchecked: None, summary }
    }

    /// Ready for the record after one that is taken as it is; every signature will be checked.
    #[must_use]
    pub fn after(trust: Trust, before: &Record) -> Self {
        let mut verifier = Self::new(trust);
        verifier.summary.records = before.seq;
        verifier.summary.head.clone_from(&before.hash);
        verifier
    }

    /// Checks the next record as it is stored: its place and its exact bytes.
    ///
    /// # Errors
    /// The record's place and what is wrong; the verifier has not moved on.
    pub fn check_stored(&mut self, seq: u64, json: &[u8]) -> Result<Record, BrokenRecord> {
        let broken = |why| BrokenRecord { seq, why };
        let not_a_record =
            |error: serde_json::Error| broken(Flaw::NotARecord { reason: error.to_string() });
        let record: Record = serde_json::from_slice(json).map_err(not_a_record)?;
        if record.seq != seq {
            return Err(broken(Flaw::Misplaced { found: record.seq }));
        }
        if canonical_json(&record).map_err(not_a_record)? != json {
            return Err(broken(Flaw::NotCanonical));
        }
        let hash = stored_hash(json, &record).ok_or_else(|| broken(Flaw::NotCanonical))?;
        self.take(&record, &hash)?;
        Ok(record)
    }

    /// Checks the next record.
    ///
    /// # Errors
    /// The record's number and what is wrong; the verifier has not moved on.
    pub fn check(&mut self, record: &Record) -> Result<(), BrokenRecord> {
        let hash = content_hash(record).map_err(|error| BrokenRecord {
            seq: record.seq,
            why: Flaw::NotARecord { reason: error.to_string() },
        })?;
        self.take(record, &hash)
    }

    /// Checks what was left out: the last record's signature, and whether the key in force is the
    /// one it had to end with.
    ///
    /// # Errors
    /// When it is not its key's, or another key is in force.
    pub fn finish(self) -> Result<Summary, BrokenRecord> {
        let broken = |why| BrokenRecord { seq: self.summary.records, why };
        if let (Trust::EndingWith(last), Some(current)) = (&self.trust, &self.current)
            && last != current
        {
            return Err(broken(Flaw::UnknownKey { key: current.clone() }));
        }
        if let Some((key, signature)) = &self.unchecked {
            let mut hash = [0; 32];
            hex::decode_to_slice(&self.summary.head, &mut hash)
                .map_err(|_| broken(Flaw::WrongHash))?;
            signing::verify(key, &hash, signature).map_err(|_| broken(Flaw::BadSignature))?;
        }
        Ok(self.summary)
    }

    fn take(&mut self, record: &Record, hash: &[u8; 32]) -> Result<(), BrokenRecord> {
        let broken = |why| BrokenRecord { seq: record.seq, why };
        self.flaw(record, hash).map_err(broken)?;
        let next = rotation::new_key(record).map(|new| new.ok_or(broken(Flaw::BadRotation)));
        let next = next.transpose()?;
        self.hand_over(record, next);
        self.summary.keys.extend(next.map(str::to_owned));
        if self.signatures == Signatures::Last {
            self.unchecked = Some((record.key.clone(), record.signature.clone()));
        }
        self.summary.records = record.seq;
        self.summary.first.get_or_insert_with(|| record.timestamp.clone());
        self.summary.last = Some(record.timestamp.clone());
        self.summary.head.clone_from(&record.hash);
        if !self.summary.keys.contains(&record.key) {
            self.summary.keys.insert(record.key.clone());
        }
        Ok(())
    }

    /// From `record` on, its key or the `next` one is in force.
    fn hand_over(&mut self, record: &Record, next: Option<&str>) {
        match (&mut self.trust, next) {
            (Trust::Keys(keys), Some(next)) => {
                keys.remove(&record.key);
                keys.insert(next.to_owned());
            }
            (Trust::EndingWith(_), next) => {
                if self.current.is_none() || next.is_some() {
                    self.current = Some(next.unwrap_or(&record.key).to_owned());
                }
            }
            (Trust::Keys(_), None) | (Trust::AnyKey, _) => {}
        }
    }

    /// What has been verified so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn flaw(&self, record: &Record, hash: &[u8; 32]) -> Result<(), Flaw> {
        let expected = self.summary.records + 1;
        if record.seq != expected {
            return Err(Flaw::Gap { expected });
        }
        if record.previous != self.summary.head {
            return Err(Flaw::WrongPrevious);
        }
        if record.hash != hex::encode(hash) {
            return Err(Flaw::WrongHash);
        }
        match &self.trust {
            Trust::Keys(keys) if !keys.contains(&record.key) => {
                return Err(Flaw::UnknownKey { key: record.key.clone() });
            }
            Trust::EndingWith(_) if self.current.as_ref().is_some_and(|key| *key != record.key) => {
                return Err(Flaw::UnknownKey { key: record.key.clone() });
            }
            Trust::Keys(_) | Trust::EndingWith(_) | Trust::AnyKey => {}
        }
        if self.signatures == Signatures::Every {
            signing::verify(&record.key, hash, &record.signature).map_err(|error| match error {
                VerifyError::Key | VerifyError::Signature => Flaw::BadSignature,
            })?;
        }
        if parse_rfc3339(&record.timestamp).map(rfc3339).as_ref() != Some(&record.timestamp) {
            let reason = format!("`{}` is no UTC time with milliseconds", record.timestamp);
            return Err(Flaw::NotARecord { reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
