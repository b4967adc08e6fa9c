//! What people are told of the past: the last records, rollouts, and each rollback's steps.
//!
//! A fold over the ledger like the fleets' histories, but bounded, and nothing is decided on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::ledger::record::Record;
use crate::ports::view::{PassageView, RecordView, StepView};

/// Records kept: who follows the stream and was away for more asks the ledger.
const RECORDS_MAX: usize = 256;

/// Rollouts kept.
const ROLLOUTS_MAX: usize = 200;

/// Rollbacks whose steps are kept.
const ROLLBACKS_MAX: usize = 200;

/// Steps kept of each: one that is stuck and not may take many.
const STEPS_MAX: usize = 64;

/// What is told of the past.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    recent: VecDeque<Arc<RecordView>>,
    rollouts: VecDeque<Arc<PassageView>>,
    steps: BTreeMap<String, Vec<StepView>>,
    /// The ids in `steps`, oldest first.
    rollbacks: VecDeque<String>,
}

impl Chronicle {
    /// Takes the next record.
    pub(super) fn take(&mut self, record: &Record) {
        let view = view(record);
        match record.event.as_str() {
            "deployment.started" => self.begin(&view),
            "deployment.completed" => self.end(&view, record.version.as_deref(), "promoted"),
            "rollout.ended" => self.end(&view, record.version.as_deref(), "left"),
            "rollback.chosen" => self.end(&view, view.from_version.as_deref(), "rolled_back"),
            _ => {}
        }
        if let (Some(id), Some(state)) = (&view.rollback_id, state(&record.event)) {
            self.step(id, state, record);
        }
        if self.recent.len() == RECORDS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::new(view));
    }

    fn begin(&mut self, record: &RecordView) {
        if self.rollouts.len() == ROLLOUTS_MAX {
            self.rollouts.pop_front();
        }
        self.rollouts.push_back(Arc::new(PassageView {
            fleet: record.fleet.clone().unwrap_or_default(),
            candidate: record.version.clone().unwrap_or_default(),
            baseline: record.from_version.clone(),
            started_at: record.timestamp.clone(),
            started_seq: record.seq,
            outcome: "observed".to_owned(),
            ended_at: None,
            ended_seq: None,
        }));
    }

    fn end(&mut self, record: &RecordView, candidate: Option<&str>, outcome: &str) {
        let is_it = |rollout: &&mut Arc<PassageView>| {
            rollout.ended_seq.is_none()
                && Some(rollout.candidate.as_str()) == candidate
                && Some(&rollout.fleet) == record.fleet.as_ref()
        };
        let Some(rollout) = self.rollouts.iter_mut().rev().find(is_it) else { return };
        let rollout = Arc::make_mut(rollout);
        outcome.clone_into(&mut rollout.outcome);
        rollout.ended_at = Some(record.timestamp.clone());
        rollout.ended_seq = Some(record.seq);
    }

    fn step(&mut self, id: &str, state: &str, record: &Record) {
        if !self.steps.contains_key(id) {
            if self.rollbacks.len() == ROLLBACKS_MAX
                && let Some(oldest) = self.rollbacks.pop_front()
            {
                self.steps.remove(&oldest);
            }
            self.rollbacks.push_back(id.to_owned());
        }
        let steps = self.steps.entry(id.to_owned()).or_default();
        if steps.len() < STEPS_MAX {
            steps.push(StepView {
                state: state.to_owned(),
                at: record.timestamp.clone(),
                seq: record.seq,
            });
        }
    }

    /// The last records, newest last.
    pub(super) fn recent(&self) -> Vec<Arc<RecordView>> {
        self.recent.iter().cloned().collect()
    }

    /// The last rollouts, newest last.
    pub(super) fn rollouts(&self) -> Vec<Arc<PassageView>> {
        self.rollouts.iter().cloned().collect()
    }

    /// A rollback's steps so far.
    pub(super) fn steps(&self, id: &str) -> Vec<StepView> {
        self.steps.get(id).cloned().unwrap_or_default()
    }
}

fn view(record: &Record) -> RecordView {
    let text = |field: &str| record.extra.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
    RecordView {
        seq: record.seq,
        timestamp: record.timestamp.clone(),
        event: record.event.clone(),
        actor: record.actor.clone(),
        result: record.result.clone(),
        fleet: text("fleet"),
        version: record.version.clone(),
        from_version: text("from_version"),
        rollback_id: text("rollback_id"),
        reason: text("reason"),
    }
}

/// The state that a rollback is in after a record.
fn state(event: &str) -> Option<&str> {
    match event {
        "deployment.drain_started" => Some("draining"),
        "deployment.rolled_back" => Some("recorded"),
        other => other.strip_prefix("rollback."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn record(seq: u64, event: &str, version: &str, extra: &Value) -> Record {
        Record {
            seq,
            timestamp: format!("at {seq}"),
            event: event.to_owned(),
            actor: "rollbackd".to_owned(),
            target: "voice".to_owned(),
            result: "ok".to_owned(),
            version: Some(version.to_owned()),
            previous: String::new(),
            hash: String::new(),
            signature: String::new(),
            key: String::new(),
            extra: extra.as_object().cloned().unwrap_or_else(Map::new),
        }
    }

    #[test]
    fn a_rollout_ends_with_the_record_that_says_so_and_a_rollback_has_its_steps() {
        let mut chronicle = Chronicle::default();
        let fleet = json!({ "fleet": "voice", "from_version": "v1" });
        let back = json!({ "fleet": "voice", "from_version": "v2", "rollback_id": "voice-4" });
        for (seq, event, version, extra) in [
            (1, "deployment.started", "v0", json!({ "fleet": "chat" })),
            (2, "deployment.started", "v2", fleet.clone()),
            (3, "deployment.started", "v3", fleet),
            (4, "rollback.chosen", "v1", back.clone()),
            (5, "deployment.drain_started", "v2", back.clone()),
            (6, "deployment.rolled_back", "v1", back),
            (7, "deployment.completed", "v3", json!({ "fleet": "voice" })),
            (8, "rollout.ended", "v0", json!({ "fleet": "voice" })),
        ] {
            chronicle.take(&record(seq, event, version, &extra));
        }
        let rollouts: Vec<_> = chronicle
            .rollouts()
            .iter()
            .map(|r| (r.candidate.clone(), r.outcome.clone(), r.ended_seq))
            .collect();
        let told = |candidate: &str, outcome: &str, seq| (candidate.into(), outcome.into(), seq);
        assert_eq!(
            rollouts,
            [
                told("v0", "observed", None),
                told("v2", "rolled_back", Some(4)),
                told("v3", "promoted", Some(7)),
            ]
        );
        let steps: Vec<_> = chronicle.steps("voice-4").iter().map(|s| s.state.clone()).collect();
        assert_eq!(steps, ["chosen", "draining", "recorded"]);
        assert_eq!(chronicle.recent().len(), 8);
    }

    #[test]
    fn memory_is_bounded_whatever_happens() {
        let mut chronicle = Chronicle::default();
        for seq in 0..1000 {
            let extra = json!({ "fleet": "voice", "rollback_id": format!("voice-{}", seq % 500) });
            chronicle.take(&record(seq, "deployment.started", "v", &extra));
            chronicle.take(&record(seq, "rollback.chosen", "v", &extra));
            chronicle.take(&record(seq, "rollback.stuck", "v", &extra));
        }
        assert_eq!(chronicle.recent().len(), RECORDS_MAX);
        assert_eq!(chronicle.rollouts().len(), ROLLOUTS_MAX);
        assert_eq!(chronicle.steps.len(), ROLLBACKS_MAX);
    }
}
