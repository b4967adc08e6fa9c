//! Why rollbackd acted, or why it has not yet.
//!
//! Sentences and figures, from what the controller has published and the ledger has recorded.
//! Pure: the HTTP side hands over a view, at most two records and the time.

mod figures;
mod many;
mod rule;
mod state;
pub(crate) mod words;

use serde::Serialize;
use utoipa::ToSchema;

pub use self::figures::Test;
use crate::domain::time::Timestamp;
use crate::ledger::record::Record;
use crate::ports::view::{FleetView, PastView, RollbackView, VerdictView, View};

/// Everything there is to say of a fleet, or of one of its versions.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// The fleet.
    pub fleet: String,
    /// What holds for the fleet as a whole.
    pub sentences: Vec<String>,
    /// The version that was asked for, or every one that is under observation or being rolled
    /// back.
    pub versions: Vec<Explained>,
}

/// Everything there is to say of one version.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Explained {
    /// The version.
    pub version: String,
    /// `observed`, `rolling_back`, `rolled_back`, `promoted`, `adopted`, `left` or `unjudged`.
    pub state: String,
    /// What was done, or why nothing is, and what each rule says.
    pub sentences: Vec<String>,
    /// Each test's figures, now or when it was decided.
    pub tests: Vec<Test>,
}

/// What was asked for is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No such fleet.
    #[error("there is no fleet `{name}`; {}", one_of("fleet", .known))]
    Fleet {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No such version.
    #[error("fleet `{fleet}` has no version `{name}`; {}", one_of("version", .known))]
    Version {
        /// The fleet.
        fleet: String,
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
}

fn one_of(what: &str, names: &[String]) -> String {
    match names {
        [] => format!("no {what} is known yet"),
        [one] => format!("there is only `{one}`"),
        several => {
            let all: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
            format!("there are {}", all.join(", "))
        }
    }
}

/// The record that says what became of the version in question; the one before it has the
/// evidence. `None`: no record is needed.
///
/// # Errors
/// When the fleet or the version is not known.
pub fn record_needed(
    view: &View,
    fleet: &str,
    version: Option<&str>,
) -> Result<Option<u64>, Unknown> {
    let fleet = find(view, fleet)?;
    let version = match version {
        Some(version) => Some(version.to_owned()),
        None => state::under_way(view, fleet).map(|rollback| rollback.from_version.clone()),
    };
    let Some(version) = version else { return Ok(None) };
    check_known(fleet, &version)?;
    let observed = fleet.rollouts.iter().any(|rollout| rollout.candidate == version);
    Ok(past(fleet, &version).filter(|_| !observed).map(|past| past.seq))
}

/// Explains the fleet, or one version of it. `records` are the one [`record_needed`] names and
/// the one before it, as far as they could be read.
///
/// # Errors
/// When the fleet or the version is not known.
pub fn explain(
    view: &View,
    fleet: &str,
    version: Option<&str>,
    records: &[Record],
    now: Timestamp,
) -> Result<Explanation, Unknown> {
    let fleet = find(view, fleet)?;
    let about = About { view, fleet, records, now };
    let versions = if let Some(version) = version {
        check_known(fleet, version)?;
        vec![about.version(version)]
    } else {
        let observed = fleet.rollouts.iter().map(|rollout| rollout.candidate.as_str());
        let leaving = state::under_way(view, fleet).map(|r| r.from_version.as_str());
        leaving.into_iter().chain(observed).map(|version| about.version(version)).collect()
    };
    Ok(Explanation { fleet: fleet.fleet.clone(), sentences: about.fleet_sentences(), versions })
}

fn find<'a>(view: &'a View, name: &str) -> Result<&'a FleetView, Unknown> {
    view.fleets.get(name).ok_or_else(|| Unknown::Fleet {
        name: name.to_owned(),
        known: view.fleets.keys().cloned().collect(),
    })
}

fn check_known(fleet: &FleetView, version: &str) -> Result<(), Unknown> {
    let seen = fleet.versions.iter().map(|seen| &seen.version);
    let observed = fleet.rollouts.iter().map(|rollout| &rollout.candidate);
    let past = fleet.past.iter().map(|past| &past.version);
    let mut known: Vec<String> = seen.chain(observed).chain(past).cloned().collect();
    known.sort_unstable();
    known.dedup();
    if known.iter().any(|name| name == version) {
        return Ok(());
    }
    Err(Unknown::Version { fleet: fleet.fleet.clone(), name: version.to_owned(), known })
}

fn past<'a>(fleet: &'a FleetView, version: &str) -> Option<&'a PastView> {
    fleet.past.iter().find(|past| past.version == version)
}

/// What is being explained, and from what.
struct About<'a> {
    view: &'a View,
    fleet: &'a FleetView,
    records: &'a [Record],
    now: Timestamp,
}

impl About<'_> {
    fn version(&self, version: &str) -> Explained {
        let rollout = self.fleet.rollouts.iter().find(|rollout| rollout.candidate == version);
        if let Some(rollout) = rollout {
            return Explained {
                version: version.to_owned(),
                state: "observed".to_owned(),
                sentences: self.observed(rollout),
                tests: rollout
                    .verdicts
                    .iter()
                    .chain(many::rest_of_rule(rollout).as_ref())
                    .flat_map(figures::tests)
                    .collect(),
            };
        }
        let Some(past) = past(self.fleet, version) else {
            return Explained {
                version: version.to_owned(),
                state: "unjudged".to_owned(),
                sentences: vec![self.unjudged(version)],
                tests: Vec::new(),
            };
        };
        let rollback = self.rollback_of(version).filter(|_| past.outcome == "rolled_back");
        let under_way = rollback.is_some_and(|r| self.fleet.rollback.as_ref() == Some(&r.id));
        let verdicts = self.evidence_before(past);
        let mut sentences = match rollback {
            Some(rollback) => self.rolled_back(past, rollback),
            None => self.judged(past),
        };
        if !self.records.iter().any(|record| record.seq == past.seq) {
            sentences.push(format!("The record of it, {}, could not be read.", past.seq));
        }
        let baseline = self.baseline_then(past);
        sentences.extend(verdicts.iter().flat_map(|v| rule::then(v, version, &baseline)));
        let state = if under_way { "rolling_back" } else { past.outcome.as_str() };
        Explained {
            version: version.to_owned(),
            state: state.to_owned(),
            sentences,
            tests: tests(&verdicts),
        }
    }

    /// The newest rollback of a version.
    fn rollback_of(&self, version: &str) -> Option<&RollbackView> {
        let mut newest = self.view.rollbacks.iter().rev();
        newest.find(|r| r.fleet == self.fleet.fleet && r.from_version == version)
    }

    /// The record before the one that says what became of a version: the decision.
    fn decision_before(&self, past: &PastView) -> Option<&Record> {
        let decides = |record: &&Record| {
            record.seq + 1 == past.seq && record.version.as_ref() == Some(&past.version)
        };
        self.records.iter().find(decides)
    }

    fn evidence_before(&self, past: &PastView) -> Vec<VerdictView> {
        self.decision_before(past).map(figures::recorded).unwrap_or_default()
    }

    fn baseline_then(&self, past: &PastView) -> String {
        let decision = self.decision_before(past);
        let baseline = decision.and_then(|record| record.extra.get("baseline")?.as_str());
        baseline.unwrap_or("its baseline").to_owned()
    }
}

fn tests(verdicts: &[VerdictView]) -> Vec<Test> {
    verdicts.iter().flat_map(figures::tests).collect()
}

#[cfg(test)]
mod tests;
