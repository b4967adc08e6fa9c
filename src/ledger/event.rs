//! Happenings as records, and back: what replay reads.
//!
//! **Invariant:** [`from_record`] gives back what [`to_draft`] wrote; a record whose event is of
//! ours and does not read is an error, never skipped.

use serde_json::{Map, Value, json};

use super::record::{Draft, Record, parse_rfc3339, rfc3339};
use crate::domain::history::{Happening, Rollout};
use crate::domain::rollback::{Awaiting, Rollback, State};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;

/// Who acts when no person does.
pub const ACTOR: &str = "rollbackd";

/// A recorded happening of one fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The fleet, as its id writes itself.
    pub fleet: String,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub happening: Happening,
}

/// Why a record cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} ({event}): {field} is missing or does not read")]
pub struct Unreadable {
    /// The record.
    pub seq: u64,
    /// Its event.
    pub event: String,
    /// The field at fault.
    pub field: &'static str,
}

/// The record of a happening. `rollback` is the one that moved, for [`Happening::RollbackMoved`].
#[must_use]
pub fn to_draft(
    fleet: &str,
    at: Timestamp,
    happening: &Happening,
    rollback: Option<&Rollback>,
) -> Draft {
    let mut extra = Map::new();
    extra.insert("fleet".to_owned(), fleet.into());
    let (event, result, version) = match happening {
        Happening::BaselineAdopted { version } => ("rollout.baseline_adopted", "ok", Some(version)),
        Happening::RolloutStarted { rollout } => {
            extra.insert("from_version".to_owned(), text(rollout.baseline.as_ref()));
            extra.insert("started_at".to_owned(), rfc3339(rollout.started_at).into());
            extra.insert("observe_until".to_owned(), rfc3339(rollout.observe_until).into());
            extra.insert("baseline_workers".to_owned(), rollout.baseline_workers.into());
            ("deployment.started", "started", Some(&rollout.candidate))
        }
        Happening::RolloutEnded { candidate } => ("rollout.ended", "gone", Some(candidate)),
        Happening::Regressed { candidate } => ("rollout.regressed", "regressed", Some(candidate)),
        Happening::HeldBack { candidate } => ("rollout.held_back", "held", Some(candidate)),
        Happening::Promoted { version } => ("deployment.completed", "ok", Some(version)),
        Happening::Paused { until } => {
            extra.insert("until".to_owned(), until.map_or(Value::Null, |at| rfc3339(at).into()));
            ("operator.paused", "ok", None)
        }
        Happening::Resumed => ("operator.resumed", "ok", None),
        Happening::Allowed { version } => ("operator.allowed", "ok", Some(version)),
        Happening::RollbackChosen { rollback } => {
            describe(&mut extra, rollback);
            extra.insert("workers_needed".to_owned(), rollback.workers_needed.into());
            ("rollback.chosen", "started", Some(&rollback.good))
        }
        Happening::RollbackMoved { id, state } => {
            extra.insert("rollback_id".to_owned(), id.as_str().into());
            if let Some(rollback) = rollback {
                describe(&mut extra, rollback);
            }
            if let State::Stuck(awaiting) = state {
                let word = match awaiting {
                    Awaiting::Capacity => "capacity",
                    Awaiting::Emptiness { .. } => "emptiness",
                };
                extra.insert("awaiting".to_owned(), word.into());
            }
            let about = rollback.map(|r| if drain_started(*state) { &r.bad } else { &r.good });
            (moved_event(*state), moved_result(*state), about)
        }
    };
    Draft {
        at,
        event: event.to_owned(),
        actor: ACTOR.to_owned(),
        target: fleet.to_owned(),
        result: result.to_owned(),
        version: version.map(ToString::to_string),
        extra,
    }
}

fn describe(extra: &mut Map<String, Value>, rollback: &Rollback) {
    extra.insert("rollback_id".to_owned(), rollback.id.as_str().into());
    extra.insert("from_version".to_owned(), rollback.bad.as_str().into());
    extra.insert("reason".to_owned(), rollback.reason.as_str().into());
}

fn text(version: Option<&Version>) -> Value {
    version.map_or(Value::Null, |version| json!(version.as_str()))
}

fn drain_started(state: State) -> bool {
    state == State::Draining
}

fn moved_event(state: State) -> &'static str {
    match state {
        State::Chosen => "rollback.chosen",
        State::Gated => "rollback.gated",
        State::Starting => "rollback.starting",
        State::Capable => "rollback.capable",
        State::Draining => "deployment.drain_started",
        State::Recorded => "deployment.rolled_back",
        State::Confirming { .. } => "rollback.confirming",
        State::Clean => "rollback.clean",
        State::Stuck(_) => "rollback.stuck",
        State::Abandoned => "rollback.abandoned",
    }
}

fn moved_result(state: State) -> &'static str {
    match state {
        State::Clean | State::Recorded | State::Capable | State::Gated => "ok",
        State::Stuck(_) => "stuck",
        State::Abandoned => "abandoned",
        State::Chosen | State::Starting | State::Draining | State::Confirming { .. } => "started",
    }
}

/// The happening in a record; `None` for a record that is not one.
///
/// # Errors
/// When the event is one of a happening's and a field is missing or malformed.
pub fn from_record(record: &Record) -> Result<Option<Remembered>, Unreadable> {
    let fields = Fields { record };
    let happening = match record.event.as_str() {
        "rollout.baseline_adopted" => Happening::BaselineAdopted { version: fields.version()? },
        "deployment.started" => Happening::RolloutStarted { rollout: fields.rollout()? },
        "rollout.ended" => Happening::RolloutEnded { candidate: fields.version()? },
        "rollout.regressed" => Happening::Regressed { candidate: fields.version()? },
        "rollout.held_back" => Happening::HeldBack { candidate: fields.version()? },
        "deployment.completed" => Happening::Promoted { version: fields.version()? },
        "operator.paused" => Happening::Paused {
            until: match record.extra.get("until") {
                None | Some(Value::Null) => None,
                Some(_) => Some(fields.time("until")?),
            },
        },
        "operator.resumed" => Happening::Resumed,
        "operator.allowed" => Happening::Allowed { version: fields.version()? },
        "rollback.chosen" => Happening::RollbackChosen { rollback: fields.rollback()? },
        "rollback.gated" => fields.moved(State::Gated)?,
        "rollback.starting" => fields.moved(State::Starting)?,
        "rollback.capable" => fields.moved(State::Capable)?,
        "deployment.drain_started" => fields.moved(State::Draining)?,
        "deployment.rolled_back" => fields.moved(State::Recorded)?,
        "rollback.confirming" => fields.moved(State::Confirming { empty_looks: 0 })?,
        "rollback.clean" => fields.moved(State::Clean)?,
        "rollback.stuck" => fields.moved(State::Stuck(fields.awaiting()?))?,
        "rollback.abandoned" => fields.moved(State::Abandoned)?,
        _ => return Ok(None),
    };
    let at = parse_rfc3339(&record.timestamp).ok_or_else(|| fields.bad("timestamp"))?;
    Ok(Some(Remembered { fleet: fields.text("fleet")?.to_owned(), at, happening }))
}

struct Fields<'a> {
    record: &'a Record,
}

impl Fields<'_> {
    fn bad(&self, field: &'static str) -> Unreadable {
        Unreadable { seq: self.record.seq, event: self.record.event.clone(), field }
    }

    fn text(&self, field: &'static str) -> Result<&str, Unreadable> {
        self.record.extra.get(field).and_then(Value::as_str).ok_or_else(|| self.bad(field))
    }

    fn number(&self, field: &'static str) -> Result<u32, Unreadable> {
        let number = self.record.extra.get(field).and_then(Value::as_u64);
        number.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| self.bad(field))
    }

    fn time(&self, field: &'static str) -> Result<Timestamp, Unreadable> {
        parse_rfc3339(self.text(field)?).ok_or_else(|| self.bad(field))
    }

    fn version(&self) -> Result<Version, Unreadable> {
        let version = self.record.version.as_deref().and_then(|text| text.parse().ok());
        version.ok_or_else(|| self.bad("version"))
    }

    fn bad_version(&self) -> Result<Version, Unreadable> {
        self.text("from_version")?.parse().map_err(|_| self.bad("from_version"))
    }

    fn rollout(&self) -> Result<Rollout, Unreadable> {
        let baseline = match self.record.extra.get("from_version") {
            None | Some(Value::Null) => None,
            Some(_) => Some(self.bad_version()?),
        };
        Ok(Rollout {
            candidate: self.version()?,
            baseline,
            started_at: self.time("started_at")?,
            observe_until: self.time("observe_until")?,
            baseline_workers: self.number("baseline_workers")?,
        })
    }

    fn rollback(&self) -> Result<Rollback, Unreadable> {
        let at = parse_rfc3339(&self.record.timestamp).ok_or_else(|| self.bad("timestamp"))?;
        Ok(Rollback {
            id: self.text("rollback_id")?.to_owned(),
            bad: self.bad_version()?,
            good: self.version()?,
            workers_needed: self.number("workers_needed")?,
            reason: self.text("reason")?.to_owned(),
            chosen_at: at,
            state: State::Chosen,
            state_since: at,
        })
    }

    fn moved(&self, state: State) -> Result<Happening, Unreadable> {
        Ok(Happening::RollbackMoved { id: self.text("rollback_id")?.to_owned(), state })
    }

    fn awaiting(&self) -> Result<Awaiting, Unreadable> {
        match self.text("awaiting")? {
            "capacity" => Ok(Awaiting::Capacity),
            "emptiness" => Ok(Awaiting::Emptiness { empty_looks: 0 }),
            _ => Err(self.bad("awaiting")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stored(draft: Draft) -> Record {
        Record {
            seq: 1,
            timestamp: rfc3339(draft.at),
            event: draft.event,
            actor: draft.actor,
            target: draft.target,
            result: draft.result,
            version: draft.version,
            previous: String::new(),
            hash: String::new(),
            signature: String::new(),
            key: String::new(),
            extra: draft.extra,
        }
    }

    #[test]
    fn every_happening_reads_back_as_it_was_written() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        let v = |text: &str| text.parse::<Version>().unwrap();
        let rollback = Rollback {
            id: "voice-9".to_owned(),
            bad: v("v2"),
            good: v("v1"),
            workers_needed: 2,
            reason: "too many failures".to_owned(),
            chosen_at: at,
            state: State::Chosen,
            state_since: at,
        };
        let rollout = Rollout {
            candidate: v("v2"),
            baseline: Some(v("v1")),
            started_at: at,
            observe_until: at + Duration::from_hours(1),
            baseline_workers: 3,
        };
        let states = [
            State::Gated,
            State::Starting,
            State::Capable,
            State::Draining,
            State::Recorded,
            State::Confirming { empty_looks: 0 },
            State::Clean,
            State::Stuck(Awaiting::Capacity),
            State::Stuck(Awaiting::Emptiness { empty_looks: 0 }),
            State::Abandoned,
        ];
        let mut happenings = vec![
            Happening::BaselineAdopted { version: v("v1") },
            Happening::RolloutStarted { rollout: rollout.clone() },
            Happening::RolloutStarted { rollout: Rollout { baseline: None, ..rollout } },
            Happening::RolloutEnded { candidate: v("v2") },
            Happening::Regressed { candidate: v("v2") },
            Happening::HeldBack { candidate: v("v2") },
            Happening::Promoted { version: v("v2") },
            Happening::RollbackChosen { rollback: rollback.clone() },
        ];
        let id = rollback.id.clone();
        happenings.extend(
            states.into_iter().map(|state| Happening::RollbackMoved { id: id.clone(), state }),
        );
        for happening in happenings {
            let record = stored(to_draft("voice", at, &happening, Some(&rollback)));
            let want = Remembered { fleet: "voice".to_owned(), at, happening };
            assert_eq!(from_record(&record), Ok(Some(want)), "{}", record.event);
        }
    }

    #[test]
    fn a_damaged_happening_is_an_error_and_a_foreign_event_is_none() {
        let at = Timestamp::from_millis(0);
        let adopted = Happening::BaselineAdopted { version: "v1".parse().unwrap() };
        let mut record = stored(to_draft("voice", at, &adopted, None));
        record.version = None;
        assert!(from_record(&record).is_err());
        record.event = "worker.rejected".to_owned();
        assert_eq!(from_record(&record), Ok(None));
    }
}
