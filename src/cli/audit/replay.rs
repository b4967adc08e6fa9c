//! `audit replay`: everything derived again from the records alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::super::{CommandError, EXIT_FAILED, EXIT_OK};
use super::{held, trusted, verified};
use crate::adapters::ledger::SqliteLedger;
use crate::domain::history::FleetHistory;
use crate::ledger::derive::{Derived, derive};
use crate::ledger::event;
use crate::ledger::record::{Record, parse_rfc3339};

/// Arguments of `audit replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The ledger's database file.
    #[arg(long, value_name = "FILE", default_value = "rollbackd.db")]
    pub ledger: PathBuf,
    /// A public key that may sign (a .pub file); may be given more than once.
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
}

/// What was found.
#[derive(Default)]
struct Found {
    histories: BTreeMap<String, FleetHistory>,
    /// The decision that the next record must carry out.
    due: Option<Due>,
    same: u64,
    not_derivable: u64,
    lines: Vec<String>,
    differs: bool,
}

/// What must follow a decision, in the same transaction.
struct Due {
    seq: u64,
    event: &'static str,
    version: Option<String>,
}

impl Found {
    fn differ(&mut self, seq: u64, what: &str) {
        self.differs = true;
        self.lines.push(format!("record {seq}: {what}"));
    }

    fn take(&mut self, record: &Record) {
        if let Some(due) = self.due.take() {
            let about = match due.event {
                "rollback.chosen" => record.extra.get("from_version").and_then(|v| v.as_str()),
                _ => record.version.as_deref(),
            };
            if record.event != due.event || about != due.version.as_deref() {
                let what = format!("no {} follows what was decided in {}", due.event, due.seq);
                self.differ(record.seq, &what);
            }
        }
        for what in self.contradicted(record) {
            self.differ(record.seq, &what);
        }
        match event::from_record(record) {
            Ok(None) => {}
            Ok(Some(told)) => {
                let history = self.histories.entry(told.fleet).or_default();
                if let Err(why) = history.apply(record.seq, told.at, &told.happening) {
                    self.differ(record.seq, &why.to_string());
                }
            }
            Err(unreadable) => self.differ(record.seq, &unreadable.to_string()),
        }
        self.decision(record);
    }

    /// What a decision took for a fact, and the records before it say otherwise.
    fn contradicted(&self, record: &Record) -> Vec<String> {
        let Some(facts) = record.extra.get("situation") else { return Vec::new() };
        let fleet = record.extra.get("fleet").and_then(|fleet| fleet.as_str()).unwrap_or_default();
        let none = FleetHistory::default();
        let history = self.histories.get(fleet).unwrap_or(&none);
        let candidate = record.version.as_deref().and_then(|version| version.parse().ok());
        let paused =
            parse_rfc3339(&record.timestamp).is_some_and(|at| history.paused(at).is_some());
        let known = [
            ("paused", paused),
            ("rolling_back", history.rollback().is_some()),
            ("has_last_good", history.last_good_except(candidate.as_ref()).is_some()),
        ];
        let says = |name: &str| facts.get(name).and_then(serde_json::Value::as_bool);
        let wrong =
            known.into_iter().filter(|(name, is)| says(name).is_some_and(|said| said != *is));
        wrong.map(|(name, is)| format!("`{name}` is {is} by the records before it")).collect()
    }

    fn decision(&mut self, record: &Record) {
        let Some(derived) = derive(record) else { return };
        let decided = record.extra.get("decision").and_then(|v| v.as_str()).unwrap_or_default();
        let due = match decided {
            "roll_back" => Some("rollback.chosen"),
            "promote" => Some("deployment.completed"),
            _ => None,
        };
        self.due = due.map(|event| Due { seq: record.seq, event, version: record.version.clone() });
        match derived {
            Derived::Same => self.same += 1,
            Derived::Differs(differences) => {
                for difference in differences {
                    self.differ(record.seq, &difference);
                }
            }
            Derived::NotDerivable(what) => {
                self.not_derivable += 1;
                self.lines.push(format!("record {}: not derivable: {what}", record.seq));
            }
        }
    }
}

/// Replays a ledger that holds.
///
/// # Errors
/// When the ledger or a key cannot be read or the output not written.
pub(super) async fn replay(args: &ReplayArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let ledger = SqliteLedger::open_read_only(&args.ledger).await?;
    let mut found = Found::default();
    let records = verified(&ledger, trusted(&args.keys)?, |record| found.take(&record)).await;
    ledger.close().await;
    let Some(summary) = held(records, out)? else { return Ok(EXIT_FAILED) };
    if let Some(due) = found.due.take() {
        found.differ(due.seq, &format!("no {} follows what was decided", due.event));
    }
    for line in &found.lines {
        writeln!(out, "{line}")?;
    }
    let word = if found.differs { "differs" } else { "ok" };
    writeln!(
        out,
        "{word}: {} records; decisions: {} as recorded, {} not derivable",
        summary.records, found.same, found.not_derivable
    )?;
    Ok(if found.differs { EXIT_FAILED } else { EXIT_OK })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    fn record(seq: u64, event: &str, version: &str, extra: &Value) -> Record {
        let mut fields = json!({ "fleet": "voice" });
        let further: Map<String, Value> = extra.as_object().unwrap().clone();
        fields.as_object_mut().unwrap().extend(further);
        let text = |text: &str| text.to_owned();
        Record {
            seq,
            timestamp: text("2026-01-01T00:00:00.000Z"),
            event: text(event),
            actor: text("rollbackd"),
            target: text("voice"),
            result: text("ok"),
            version: Some(text(version)),
            previous: String::new(),
            hash: String::new(),
            signature: String::new(),
            key: String::new(),
            extra: fields.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn a_fact_that_the_records_before_deny_differs() {
        for (paused, last_good, differs) in
            [(false, true, false), (true, true, true), (false, false, true)]
        {
            let mut found = Found::default();
            found.take(&record(1, "rollout.baseline_adopted", "v1", &json!({})));
            let facts = json!({ "paused": paused, "has_last_good": last_good });
            let held = json!({ "decision": "hold", "situation": facts });
            found.take(&record(2, "rollout.held", "v2", &held));
            assert_eq!(found.differs, differs, "{:?}", found.lines);
        }
    }

    #[test]
    fn what_was_decided_must_follow_at_once() {
        for (event, version, differs) in [
            ("deployment.completed", "v2", false),
            ("deployment.completed", "v3", true),
            ("controller.stopped", "v2", true),
        ] {
            let mut found = Found::default();
            let started = json!({
                "from_version": "v1", "baseline_workers": 1,
                "started_at": "2026-01-01T00:00:00.000Z", "observe_until": "2026-01-01T01:00:00.000Z",
            });
            for (seq, candidate) in [(1, "v2"), (2, "v3")] {
                found.take(&record(seq, "deployment.started", candidate, &started));
            }
            found.take(&record(3, "rollout.decided", "v2", &json!({ "decision": "promote" })));
            found.take(&record(4, event, version, &json!({})));
            assert_eq!(found.differs, differs, "{event} {version}: {:?}", found.lines);
        }
    }
}
