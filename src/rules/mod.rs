//! Rules: what is compared, and how much worse is too much.
//!
//! `parse` reads a file and reports every problem at once; `query` writes the PromQL.

pub mod labels;
pub mod parse;
mod promql;
pub mod query;
mod rule;
pub mod selector;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::fleet::FleetName;
use crate::domain::share::{Share, Tolerance};

/// All groups of all rule files.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    /// In the order of the files and of the groups in them.
    pub groups: Vec<Group>,
}

/// Rules evaluated together, at one pace, for one fleet entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Unique over all files.
    pub name: String,
    /// The file it was read from.
    pub file: String,
    /// The config entry whose fleets it judges.
    pub fleet: FleetName,
    /// The length of a tick.
    pub interval: Duration,
    /// Rules on session counters.
    pub sessions: Vec<SessionRule>,
    /// Rules on values of any PromQL.
    pub values: Vec<ValueRule>,
}

/// Judges the share of started sessions that fail. At least one of ceiling and tolerance is set.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRule {
    /// Unique in its group.
    pub name: String,
    /// Selector of the counter of sessions started.
    pub started: String,
    /// Selector of the counter of sessions failed.
    pub failed: String,
    /// Selector of the gauge of sessions in progress; without it, sessions are taken as short.
    pub live: Option<String>,
    /// Never more than this share may fail.
    pub ceiling: Option<Share>,
    /// Never more than this times the baseline's share may fail.
    pub tolerance: Option<Tolerance>,
    /// Overrules the dispersion measured on the history; at least 1.
    pub dispersion: Option<f64>,
    /// Labels by which a regression may turn out narrow.
    pub narrow_by: Vec<String>,
    /// Texts for people, with placeholders.
    pub annotations: BTreeMap<String, String>,
    /// SHA-256 over the rule's canonical JSON, hex: which rule decided.
    pub digest: String,
}

/// Judges one value per version against fixed thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueRule {
    /// Unique in its group.
    pub name: String,
    /// Any PromQL that keeps the version label.
    pub value: String,
    /// Tell people above this.
    pub escalate_above: Option<f64>,
    /// Roll back when above this for `hold_for`.
    pub rollback_above: Option<f64>,
    /// The rule's `for`.
    pub hold_for: Duration,
    /// Texts for people, with placeholders.
    pub annotations: BTreeMap<String, String>,
    /// SHA-256 over the rule's canonical JSON, hex: which rule decided.
    pub digest: String,
}
