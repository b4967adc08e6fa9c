//! What is left when a run is over: every rollback has ended, or says truly why it has not.

use crate::book::{Page, text};
use crate::rules::{self, Rule};
use crate::sim::{BEGIN, Shared, Sim};
use rollbackd::config::Mode;
use rollbackd::domain::decision::ONE_OF_MANY;
use rollbackd::ledger::record::parse_rfc3339;

/// What came of runs.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) runs: u64,
    pub(crate) broken: Vec<(u64, String)>,
    pub(crate) heads: Vec<String>,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) clean: u64,
    pub(crate) stuck: u64,
    pub(crate) told: u64,
    pub(crate) healthy: u64,
    pub(crate) records: u64,
    pub(crate) rollbacks: u64,
    pub(crate) acts: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.broken.extend(other.broken);
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.clean += other.clean;
        self.stuck += other.stuck;
        self.told += other.told;
        self.healthy += other.healthy;
        self.records += other.records;
        self.rollbacks += other.rollbacks;
        self.acts += other.acts;
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} broke a rule; {} crashes, {} other faults, {} operators' acts; {} records, {} \
             rollbacks: {} clean, {} stuck with people told; {} fleets held with people told, {} \
             with healthy versions only",
            self.broken.len(),
            self.crashes,
            self.faults,
            self.acts,
            self.records,
            self.rollbacks,
            self.clean,
            self.stuck,
            self.told,
            self.healthy,
        )
    }
}

/// Judges what is left.
pub(crate) fn judge(seed: u64, shared: &Shared, crashes: u64) -> Outcome {
    let mut sim = shared.lock().unwrap();
    let sim = &mut *sim;
    rules::keep_signature(sim);
    let mut outcome = Outcome { runs: 1, crashes, faults: sim.faults, ..Outcome::default() };
    outcome.records = sim.book.records.len() as u64;
    outcome.heads = sim.book.records.iter().map(|record| record.hash.clone()).collect();
    let words = sim.book.records.iter().filter(|record| record.actor.starts_with("operator"));
    outcome.acts = words.count() as u64;
    for fleet in 0..sim.worlds.len() {
        let name = sim.worlds[fleet].fleet.clone();
        let page = sim.book.fleets.remove(&name).unwrap_or_default();
        outcome.rollbacks += page.rollbacks.len() as u64;
        let clean = page.rollbacks.values().filter(|told| told.last() == "rollback.clean");
        outcome.clean += clean.count() as u64;
        if !sim.scenario.bad[0] && (sim.scenario.third_at.is_none() || !sim.scenario.bad[1]) {
            outcome.healthy += 1;
        }
        // By the order of records, not of their names.
        let last = page.history.rollbacks().last().and_then(|last| page.rollbacks.get(&last.id));
        match last.map(|told| (told.last(), told)) {
            None | Some(("rollback.clean" | "rollback.abandoned", _)) => {}
            // Moved while the clock was ahead: it waits for the clock, and says so.
            Some(_) if was_ahead(sim, &name) => outcome.told += 1,
            Some(("rollback.stuck", told)) => {
                outcome.stuck += 1;
                let world = &sim.worlds[fleet];
                // A fleet of which nothing is seen at all may have lost its Prometheus.
                let truly = match told.awaiting.as_str() {
                    "capacity" => u64::from(world.able_now(&told.good)) < told.needed,
                    _ => world.count(&told.bad) > 0 || world.workers.is_empty(),
                };
                if !truly {
                    let text = format!("{name} waits for {}, which is there", told.awaiting);
                    sim.breaks(Rule::EndsOrTells, text);
                }
            }
            Some((step, _)) => {
                sim.breaks(Rule::EndsOrTells, format!("the rollback of {name} is left at {step}"));
            }
        }
        judge_bad_left(sim, fleet, &page, &mut outcome);
    }
    // Each rule once: what follows from the first is no news.
    let mut rules = Vec::new();
    sim.broken.retain(|broken| {
        let new = !rules.contains(&broken.rule);
        rules.push(broken.rule);
        new
    });
    for broken in sim.broken.drain(..) {
        let text = format!("seed {seed}: {}: {}", broken.rule.fact(), broken.text);
        outcome.broken.push((seed, text));
    }
    outcome
}

/// A bad version that serves on, and is not being rolled back, has a reason people were told.
fn judge_bad_left(sim: &mut Sim, fleet: usize, page: &Page, outcome: &mut Outcome) {
    let world = &sim.worlds[fleet];
    let serves = |version: &&str| {
        sim.scenario.is_bad(version)
            && world.able_now(version) > 0
            && !page.denied.contains(*version)
    };
    let Some(version) = ["v2", "v3"].into_iter().find(|version| serves(version)) else { return };
    let is_good = page.history.was_promoted(&version.parse().unwrap());
    let underway = page.history.rollback().is_some();
    let no_way_back = page.history.last_good().is_none();
    let told = !page.told.is_empty();
    let spent =
        page.history.rollbacks().len() >= usize::try_from(sim.scenario.rollbacks_max).unwrap();
    let by_hand = sim.scenario.mode != Mode::Automatic;
    let narrow = sim.scenario.is_narrow(version);
    let one_of_many = page.told.iter().any(|reason| reason.starts_with(ONE_OF_MANY));
    let left = by_hand || spent || no_way_back || underway || narrow || one_of_many;
    if told && left || is_good || no_way_back {
        outcome.told += 1;
        return;
    }
    let name = &world.fleet;
    let text = format!("{version} of {name} fails, and it was told: {:?}", page.told);
    sim.breaks(Rule::EndsOrTells, text);
}

/// Whether the last step of a rollback was recorded by a clock that was ahead.
fn was_ahead(sim: &Sim, fleet: &str) -> bool {
    let of = |record: &&rollbackd::ledger::record::Record| {
        record.extra.contains_key("rollback_id") && text(record, "fleet") == fleet
    };
    let last = sim.book.records.iter().rev().find(of);
    let last = last.and_then(|record| parse_rfc3339(&record.timestamp));
    last.is_some_and(|at| at.as_millis() > BEGIN + sim.second * 1000)
}
