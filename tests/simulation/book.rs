//! The ledger that survives crashes, and the rules that every record must keep.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd::ledger::record::Record;

use crate::world::World;

/// Seconds that may lie between what a look saw and the record it led to: two ticks of 10 s, a
/// query that hangs, a ledger that is slow.
const SEEN_SECONDS: i64 = 75;

/// What the records say so far, kept apart from the controller's own reading of them.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) records: Vec<Record>,
    pub(crate) denied: BTreeSet<String>,
    pub(crate) rollbacks: BTreeMap<String, Told>,
}

/// One rollback, as its records tell it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) bad: String,
    pub(crate) good: String,
    pub(crate) needed: u64,
    pub(crate) events: Vec<String>,
    pub(crate) chosen_second: i64,
}

impl Book {
    /// Takes a record that is durable now; says which rules it breaks.
    pub(crate) fn take(&mut self, record: Record, world: &World, broken: &mut Vec<String>) {
        let text = |field: &str| {
            record.extra.get(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
        };
        let event = record.event.clone();
        let id = text("rollback_id");
        if event == "rollback.chosen" {
            let told = Told {
                bad: text("from_version"),
                good: record.version.clone().unwrap_or_default(),
                needed: record.extra["workers_needed"].as_u64().unwrap(),
                events: Vec::new(),
                chosen_second: world.second,
            };
            broken.extend(self.chosen(&told, world));
            self.denied.insert(told.bad.clone());
            self.rollbacks.insert(id.clone(), told);
        }
        if event == "deployment.completed" && record.version.as_deref() == Some("v2") {
            let failing = world.failing.get("v2").copied().unwrap_or(0);
            if failing > 100 {
                broken.push("a bad version was promoted".to_owned());
            }
        }
        self.records.push(record);
        let Some(told) = self.rollbacks.get_mut(&id) else { return };
        if let Some(last) = told.events.last()
            && !may_follow(last, &event)
        {
            broken.push(format!("{event} follows {last}"));
        }
        if event == "deployment.drain_started" && !was_able(told, world) {
            broken.push(format!("drained before {} of {} were there", told.needed, told.good));
        }
        if event == "deployment.rolled_back" && told.events.contains(&event) {
            broken.push(format!("{event} twice"));
        }
        if event == "rollback.clean" {
            let empty = world.empty_at.get(told.bad.as_str()).copied().unwrap_or(-1);
            if world.second - empty > SEEN_SECONDS {
                broken.push(format!("{event}, and {} has workers", told.bad));
            }
        }
        told.events.push(event);
    }

    fn chosen(&self, told: &Told, world: &World) -> Option<String> {
        let failing = world.failing.get(told.bad.as_str()).copied().unwrap_or(0);
        let shown = world.shown_failures.get(told.bad.as_str()).copied().unwrap_or(0);
        if self.denied.contains(&told.good) || told.good == told.bad {
            Some(format!("back to {}, which is denied", told.good))
        } else if failing < 100 {
            Some(format!("{} rolled back, and it is healthy", told.bad))
        } else if shown < 5 {
            Some(format!("{} rolled back without evidence: {shown} failures seen", told.bad))
        } else {
            None
        }
    }

    /// Which rules an effect breaks at the moment the platform is asked for it.
    pub(crate) fn effect(&self, effect: &str, version: &str, broken: &mut Vec<String>) {
        let (id, step) = effect.rsplit_once('/').unwrap();
        let Some(told) = self.rollbacks.get(id) else {
            broken.push(format!("{effect}: no such rollback is recorded"));
            return;
        };
        let (record, of) = match step {
            "start" => ("rollback.starting", &told.good),
            "drain" => ("deployment.drain_started", &told.bad),
            _ => panic!("an effect of unknown kind: {effect}"),
        };
        if !told.events.iter().any(|event| event == record) {
            broken.push(format!("{effect} before {record} is in the ledger"));
        }
        if of != version {
            broken.push(format!("{effect} is about {version}, not {of}"));
        }
        if step == "start" && self.denied.contains(version) {
            broken.push(format!("{effect} starts {version}, which is denied"));
        }
    }

    /// Which rules a manifest breaks at the moment it is shown to workers.
    pub(crate) fn manifest(&self, draining: &BTreeSet<String>, broken: &mut Vec<String>) {
        for version in draining {
            let drained = self.rollbacks.values().any(|told| {
                told.bad == *version
                    && told.events.iter().any(|event| event == "deployment.drain_started")
            });
            if !drained {
                broken.push(format!("the manifest drains {version}, and no record says so"));
            }
        }
    }
}

/// Whether enough good workers were there at some second since the choice, or just before.
fn was_able(told: &Told, world: &World) -> bool {
    let from = usize::try_from((told.chosen_second - SEEN_SECONDS).max(0)).unwrap();
    let able = |second: &BTreeMap<&'static str, u32>| {
        u64::from(second.get(told.good.as_str()).copied().unwrap_or(0)) >= told.needed
    };
    world.able[from.min(world.able.len())..].iter().any(able)
}

/// The order of a rollback's records.
fn may_follow(last: &str, event: &str) -> bool {
    match event {
        "rollback.gated" => last == "rollback.chosen",
        "rollback.starting" => last == "rollback.gated",
        "rollback.capable" => {
            ["rollback.gated", "rollback.starting", "rollback.stuck"].contains(&last)
        }
        "deployment.drain_started" => last == "rollback.capable",
        "deployment.rolled_back" => last == "deployment.drain_started",
        "rollback.confirming" => last == "deployment.rolled_back",
        "rollback.clean" => ["rollback.confirming", "rollback.stuck"].contains(&last),
        "rollback.stuck" => ["rollback.starting", "rollback.confirming"].contains(&last),
        _ => true,
    }
}
