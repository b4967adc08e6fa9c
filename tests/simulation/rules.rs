//! What must hold, as facts, checked at every record, effect, manifest, view and second.
//!
//! A record is checked when it is on disk, an effect when the platform is asked for it, a manifest
//! when workers read it, and what is left when a run is over in `end.rs`. Nothing here asks the
//! controller what it thinks: the worlds and the records are enough.

use std::collections::BTreeSet;

use rollbackd::domain::history::FleetHistory;
use rollbackd::ledger::event;
use rollbackd::ledger::record::Record;
use rollbackd::ports::view::View;
use serde_json::Value;

use crate::book::{Page, Told, text};
use crate::rules_of_rollbacks as rollbacks;
use crate::sim::{BEGIN, Sim};

/// A rule that was broken, and how.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) text: String,
}

/// Each rule, named as the fact it states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    EvidenceIsReal,
    HealthyStays,
    NarrowStays,
    SliceIsReal,
    FewAtOnce,
    BadIsNotPromoted,
    AbleBeforeDrain,
    OnlyTheBadDrain,
    RecordFirst,
    OneMeaning,
    StepsInOrder,
    NeverToTheDenied,
    OnceEach,
    ComebackIsReal,
    CleanIsEmpty,
    ModeHolds,
    PauseHolds,
    LimitHolds,
    WordIsKept,
    ChainVerifies,
    ShownIsRecorded,
    StartsAgain,
    GoesOn,
    EndsOrTells,
}

impl Rule {
    pub(crate) fn fact(self) -> &'static str {
        match self {
            Self::EvidenceIsReal => "a rollback rests on failures that really happened",
            Self::HealthyStays => "a healthy version is not rolled back",
            Self::NarrowStays => "what one agent alone fails is not rolled back",
            Self::SliceIsReal => "a fix forward names what fails",
            Self::FewAtOnce => "of fleets that regress at once, it takes back only a few",
            Self::BadIsNotPromoted => "a version whose failures were seen is not promoted",
            Self::AbleBeforeDrain => "nothing drains before the good version can carry the load",
            Self::OnlyTheBadDrain => "only the bad version's workers are asked to drain",
            Self::RecordFirst => "an effect follows its record",
            Self::OneMeaning => "an effect's id has one meaning",
            Self::StepsInOrder => "a rollback's records come in order, each once",
            Self::NeverToTheDenied => "nobody goes back to a denied version",
            Self::OnceEach => "a version is rolled back once, until it is allowed or comes back",
            Self::ComebackIsReal => "what is drained again is back, and that twice in an hour",
            Self::CleanIsEmpty => "clean means that the bad version is gone",
            Self::ModeHolds => "observe and approve roll nothing back by themselves",
            Self::PauseHolds => "a pause stops decisions",
            Self::LimitHolds => "it rolls back no more often than its limit allows",
            Self::WordIsKept => "what an operator was told is done is recorded",
            Self::ChainVerifies => "the ledger's chain verifies",
            Self::ShownIsRecorded => "what is shown is what the ledger says",
            Self::StartsAgain => "it starts again on its own ledger",
            Self::GoesOn => "it stops only when it must",
            Self::EndsOrTells => "when all is well again, it ends or says why not",
        }
    }
}

/// The last record is signed, and with it all before.
pub(crate) fn keep_signature(sim: &mut Sim) {
    if let Err(flaw) = sim.book.verifier.clone().finish() {
        sim.breaks(Rule::ChainVerifies, flaw.to_string());
    }
}

/// Takes a record that is durable now.
pub(crate) fn take_record(sim: &mut Sim, record: &Record) {
    if let Err(flaw) = sim.book.verifier.check(record) {
        sim.breaks(Rule::ChainVerifies, flaw.to_string());
    }
    sim.book.records.push(record.clone());
    let fleet = text(record, "fleet").to_owned();
    if fleet.is_empty() {
        return;
    }
    let mut page = sim.book.fleets.remove(&fleet).unwrap_or_default();
    page.events.insert(record.event.clone());
    check_event(sim, &fleet, &mut page, record);
    match event::from_record(record) {
        Ok(None) => {}
        Ok(Some(told)) => {
            if let Err(why) = page.history.apply(record.seq, told.at, &told.happening) {
                sim.breaks(Rule::StartsAgain, format!("record {}: {why}", record.seq));
            }
        }
        Err(why) => sim.breaks(Rule::StartsAgain, why.to_string()),
    }
    sim.book.fleets.insert(fleet, page);
}

fn check_event(sim: &mut Sim, fleet: &str, page: &mut Page, record: &Record) {
    let version = record.version.clone().unwrap_or_default();
    match record.event.as_str() {
        "rollout.decided" => page.decided = Some(record.clone()),
        "rollback.returned" if record.result == "roll_back" => {
            page.returned = Some(record.clone());
        }
        "rollout.fix_forward" => {
            page.told.push(text(record, "reason").to_owned());
            rollbacks::check_fix_forward(sim, record);
        }
        "rollout.regressed" => {
            let at = rollbackd::ledger::record::parse_rfc3339(&record.timestamp).unwrap();
            page.regressed_at = Some(at.as_millis());
        }
        "rollout.held"
        | "rollout.escalated"
        | "rollout.approval_requested"
        | "rollback.returned" => {
            page.told.push(text(record, "reason").to_owned());
        }
        "operator.approved" | "operator.rolled_back" => page.word = Some(version),
        "operator.paused" => page.paused_until = Some(pause_end(record)),
        "operator.resumed" => page.paused_until = None,
        "operator.allowed" => {
            page.denied.remove(&version);
            page.taken_back.remove(&version);
        }
        "deployment.completed" => {
            if is_paused(page, record) {
                sim.breaks(Rule::PauseHolds, format!("{version} is promoted"));
            }
            rollbacks::check_promotion(sim, fleet, page, &version);
        }
        "rollback.chosen" => rollbacks::take_choice(sim, fleet, page, record),
        _ => {}
    }
    let id = text(record, "rollback_id");
    if let Some(told) = page.rollbacks.get_mut(id) {
        rollbacks::take_step(sim, fleet, told, record);
    }
}

fn pause_end(record: &Record) -> i64 {
    let until = rollbackd::ledger::record::parse_rfc3339(text(record, "until"));
    until.map_or(i64::MAX, rollbackd::domain::time::Timestamp::as_millis)
}

/// Whether a decision recorded now breaks the pause, by the controller's own clock. A second of
/// grace: it was decided a little before.
pub(crate) fn is_paused(page: &Page, record: &Record) -> bool {
    let at = rollbackd::ledger::record::parse_rfc3339(&record.timestamp).unwrap();
    page.paused_until.is_some_and(|until| at.as_millis() + 1000 < until)
}

/// Which rules an effect breaks at the moment the platform is asked for it.
pub(crate) fn take_effect(sim: &mut Sim, fleet: &str, effect: &str, version: &str) {
    let meaning = (fleet.to_owned(), version.to_owned());
    let known = sim.book.effects.entry(effect.to_owned()).or_insert_with(|| meaning.clone());
    if *known != meaning {
        let text = format!("{effect}: first {known:?}, then {meaning:?}");
        sim.breaks(Rule::OneMeaning, text);
    }
    let (id, step) = effect.rsplit_once('/').unwrap();
    let page = sim.book.fleets.get(fleet);
    let Some(told) = page.and_then(|page| page.rollbacks.get(id)) else {
        return sim.breaks(Rule::RecordFirst, format!("{effect}: no such rollback is recorded"));
    };
    let (record, of) = match step {
        "start" => ("rollback.starting", &told.good),
        "drain" => ("deployment.drain_started", &told.bad),
        _ => panic!("an effect of unknown kind: {effect}"),
    };
    let recorded = told.has(record);
    let (right, good, bad) = (of == version, told.good.clone(), told.bad.clone());
    let denied = page.is_some_and(|page| page.denied.contains(&good));
    if !recorded {
        sim.breaks(Rule::RecordFirst, format!("{effect} before {record}"));
    }
    if !right {
        let rule = if step == "drain" { Rule::OnlyTheBadDrain } else { Rule::OneMeaning };
        sim.breaks(rule, format!("{effect} is about {version}, from {bad} to {good}"));
    }
    if step == "start" && denied {
        sim.breaks(Rule::NeverToTheDenied, format!("{effect} starts {version}"));
    }
}

/// Which rules a manifest breaks at the moment workers read it.
pub(crate) fn take_manifest(sim: &mut Sim, fleet: &str, manifest: &Value) {
    let listed = |field: &str| -> BTreeSet<String> {
        let versions = manifest[field].as_array().unwrap().iter();
        versions.map(|version| version.as_str().unwrap().to_owned()).collect()
    };
    let (admitted, denied, draining) = (listed("admitted"), listed("denied"), listed("draining"));
    let nothing = Page::default();
    let page = sim.book.fleets.get(fleet).unwrap_or(&nothing);
    let drained = |version: &String| {
        let of = |told: &&Told| told.bad == *version && told.has("deployment.drain_started");
        page.rollbacks.values().any(|told| of(&told))
    };
    let early: Vec<String> = draining.iter().filter(|v| !drained(v)).cloned().collect();
    let both: Vec<String> = admitted.intersection(&page.denied).cloned().collect();
    let unlike = !sim.unsure
        && (denied != page.denied || manifest["serial"].as_u64() != Some(page.history.serial()));
    let text = format!("{manifest}, and by the ledger {:?} is denied", page.denied);
    for version in early {
        sim.breaks(Rule::RecordFirst, format!("the manifest drains {version}"));
    }
    for version in both.iter().filter(|_| !sim.unsure).cloned().collect::<Vec<_>>() {
        sim.breaks(Rule::NeverToTheDenied, format!("the manifest admits {version}"));
    }
    if unlike {
        sim.breaks(Rule::ShownIsRecorded, text);
    }
    if let Some(world) = sim.world_of(fleet) {
        sim.worlds[world].draining_versions = draining;
        sim.worlds[world].denied = denied;
    }
}

/// A manifest that is shown on is the newest there should be.
pub(crate) fn keep_manifest(sim: &mut Sim, fleet: &str, serial: u64) {
    let newest = sim.book.fleets.get(fleet).map_or(0, |page| page.history.serial());
    if serial != newest && !sim.unsure && !sim.writing {
        sim.breaks(Rule::ShownIsRecorded, format!("{fleet}: manifest {serial}, record {newest}"));
    }
}

/// Whether what the controller shows is what a fold over the ledger gives. Not while the disk
/// holds a record that it has not heard of, nor in the middle of what it is doing.
pub(crate) fn take_view(sim: &mut Sim, view: &View) {
    if sim.unsure || sim.writing {
        return;
    }
    let mut wrong = Vec::new();
    for (name, shown) in &view.fleets {
        let nothing = FleetHistory::default();
        let history = sim.book.fleets.get(name).map_or(&nothing, |page| &page.history);
        let rollouts: Vec<(String, String)> = shown
            .rollouts
            .iter()
            .map(|r| (r.candidate.clone(), r.baseline.clone().unwrap_or_default()))
            .collect();
        let recorded: Vec<(String, String)> = history
            .rollouts()
            .values()
            .map(|r| {
                (
                    r.candidate.to_string(),
                    r.baseline.as_ref().map_or_else(String::new, ToString::to_string),
                )
            })
            .collect();
        let states = view.rollbacks.iter().filter(|r| r.fleet == *name);
        let states: Vec<(&str, &str)> = states.map(|r| (&*r.id, &*r.state)).collect();
        let known: Vec<(&str, &str)> =
            history.rollbacks().iter().map(|r| (&*r.id, r.state.name())).collect();
        let last_good = history.last_good().map(ToString::to_string);
        if rollouts != recorded || !known.ends_with(&states) || shown.last_good != last_good {
            wrong.push(format!(
                "{name}: {rollouts:?} {states:?} {:?}, and by the ledger {recorded:?} {known:?} \
                 {last_good:?}",
                shown.last_good
            ));
        }
    }
    for text in wrong {
        sim.breaks(Rule::ShownIsRecorded, text);
    }
}

/// The world's second at a time of the controller's.
pub(crate) fn second_of(millis: i64) -> i64 {
    (millis - BEGIN).div_euclid(1000)
}
