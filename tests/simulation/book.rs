//! The ledger that survives crashes, and what its records say, read apart from the controller.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd::domain::history::FleetHistory;
use rollbackd::ledger::record::Record;
use rollbackd::ledger::verify::{ChainVerifier, Signatures, Trust};
use serde_json::Value;

/// What the records say so far.
pub(crate) struct Book {
    pub(crate) records: Vec<Record>,
    /// The hashes record by record; the last signature, which covers all before it, at each start.
    pub(crate) verifier: ChainVerifier,
    pub(crate) fleets: BTreeMap<String, Page>,
    /// What each effect is about: fleet, kind and version.
    pub(crate) effects: BTreeMap<String, (String, String)>,
}

/// What they say of one fleet.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The controller's own fold over the same records, to compare with what it shows.
    pub(crate) history: FleetHistory,
    pub(crate) denied: BTreeSet<String>,
    pub(crate) rollbacks: BTreeMap<String, Told>,
    /// Versions rolled back and not allowed again since.
    pub(crate) taken_back: BTreeSet<String>,
    /// The last decision's record.
    pub(crate) decided: Option<Record>,
    /// The last record of a denied version that came back, until its rollback begins.
    pub(crate) returned: Option<Record>,
    /// When a denied version was taken back again, by version, in the controller's milliseconds.
    pub(crate) comebacks: Vec<(String, i64)>,
    /// The event and version of an operator's word that begins a rollback, until it has.
    pub(crate) word: Option<String>,
    /// The end of the pause, in milliseconds; endless: the largest number.
    pub(crate) paused_until: Option<i64>,
    /// When a candidate regressed last, in the controller's milliseconds.
    pub(crate) regressed_at: Option<i64>,
    /// Rollbacks that nobody asked for.
    pub(crate) own_rollbacks: u32,
    /// `rollout.held` and `rollout.escalated`, with their reasons.
    pub(crate) told: Vec<String>,
    pub(crate) events: BTreeSet<String>,
}

/// One rollback, as its records tell it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) bad: String,
    pub(crate) good: String,
    pub(crate) needed: u64,
    pub(crate) events: Vec<String>,
    /// The last record says what it waits for.
    pub(crate) awaiting: String,
}

impl Told {
    pub(crate) fn has(&self, event: &str) -> bool {
        self.events.iter().any(|known| known == event)
    }

    pub(crate) fn last(&self) -> &str {
        self.events.last().map_or("", String::as_str)
    }
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            records: Vec::new(),
            verifier: ChainVerifier::with(Trust::AnyKey, Signatures::Last),
            fleets: BTreeMap::new(),
            effects: BTreeMap::new(),
        }
    }
}

/// A text field of a record; empty if it has none.
pub(crate) fn text<'a>(record: &'a Record, field: &str) -> &'a str {
    record.extra.get(field).and_then(Value::as_str).unwrap_or_default()
}
