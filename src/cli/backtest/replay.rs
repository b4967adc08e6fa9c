//! One entry of the config, look by look, as the controller takes it.
//!
//! ```text
//! discover ─► read_past ─► take_ticks ─► judge ─► (slices_wanted ─► examine) ─► decide
//! ```
//!
//! Two things differ. In hindsight every tick has settled, so a look counts all ticks up to its
//! own time and need not look ahead. And the past cannot be changed: a version that would have
//! been rolled back goes on, and its sessions are counted as those a rollback would have saved.
//! If people kept it and a further version replaces it, it is that one's baseline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::fleet::Fleet;
pub(super) use self::slices::Wanted;
use super::story::{Series, Story};
use crate::config::{FleetConfig, Mode};
use crate::domain::breaker::{Breaker, Regressions};
use crate::domain::history::{Happening, Rollout};
use crate::domain::narrow::Breadth;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::{self, Table, Values};
use crate::evaluate::judge::{Judgement, threshold_log10};
use crate::evaluate::plan::{Answer, Plan, RuleAnswer, Span};
use crate::ports::metrics::MetricError;
use crate::rules::{Group, RuleSet};

mod fleet;
mod slices;

/// An entry of the config and the rules for it.
pub(super) struct Entry {
    pub(super) config: FleetConfig,
    pub(super) groups: Vec<Group>,
    /// The shortest tick: there is a look at every end of one.
    pub(super) interval: Duration,
    threshold: f64,
    breaker: Breaker,
}

impl Entry {
    pub(super) fn new(config: &FleetConfig, rules: &RuleSet, breaker: Breaker) -> Self {
        let groups = rules.groups.iter().filter(|group| group.fleet == config.name);
        let groups: Vec<Group> = groups.cloned().collect();
        let interval = groups.iter().map(|group| group.interval).min();
        Self {
            // A fleet that is only observed is backtested to see what would be done.
            config: FleetConfig { mode: Mode::Automatic, ..config.clone() },
            interval: interval.unwrap_or(Duration::from_secs(15)),
            threshold: threshold_log10(config.false_rollback_rate, &groups),
            groups,
            breaker,
        }
    }

    /// How many looks there are in a time.
    pub(super) fn looks(&self, (from, to): (Timestamp, Timestamp)) -> u64 {
        let looks = to.since(from).as_millis() / self.interval.as_millis().max(1);
        u64::try_from(looks).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// A fleet, a rollout of it, and what the rules say.
pub(super) type Judged = (String, Rollout, Judgement);

/// What came of one entry.
pub(super) struct Replayed {
    pub(super) entry: String,
    /// Whether any worker of it was.
    pub(super) seen: bool,
    pub(super) stories: Vec<Story>,
    /// By fleet and version.
    pub(super) series: BTreeMap<(String, Version), Series>,
    /// The last look taken.
    pub(super) reached: Option<Timestamp>,
    /// Why it went no further.
    pub(super) error: Option<MetricError>,
    /// Candidates of which no slices could be had, and why.
    pub(super) unsliced: Vec<String>,
}

/// An entry while it is replayed.
pub(super) struct Replay<'e> {
    entry: &'e Entry,
    fleets: BTreeMap<String, Fleet>,
    stories: Vec<Story>,
    series: BTreeMap<(String, Version), Series>,
    reached: Option<Timestamp>,
    unsliced: Vec<String>,
}

/// A part of the time, as it was answered.
pub(super) struct Part<'a> {
    answer: &'a Answer,
    spans: Vec<Option<Span>>,
    /// By group and rule.
    tables: Vec<Vec<Table>>,
    values: Vec<Vec<Values>>,
}

impl<'e> Replay<'e> {
    pub(super) fn new(entry: &'e Entry) -> Self {
        Self {
            entry,
            fleets: BTreeMap::new(),
            stories: Vec::new(),
            series: BTreeMap::new(),
            reached: None,
            unsliced: Vec::new(),
        }
    }

    pub(super) fn entry(&self) -> &'e Entry {
        self.entry
    }

    /// Whether no look was taken yet.
    pub(super) fn is_new(&self) -> bool {
        self.reached.is_none()
    }

    pub(super) fn finish(self, error: Option<MetricError>) -> Replayed {
        Replayed {
            entry: self.entry.config.name.to_string(),
            seen: !self.fleets.is_empty(),
            stories: self.stories,
            series: self.series,
            reached: self.reached,
            error,
            unsliced: self.unsliced,
        }
    }

    /// Reads an answer. Its lineage tells which versions are older than the time.
    pub(super) fn read<'a>(&mut self, answer: &'a Answer, plan: &Plan) -> Part<'a> {
        let config = &self.entry.config;
        for series in &answer.fleet.lineage {
            let (Some((fleet, version)), Some((first, _))) =
                (answers::owner(config, series), series.points.first())
            else {
                continue;
            };
            let seen = self.fleets.entry(fleet).or_default().first_seen.entry(version);
            seen.and_modify(|known| *known = (*known).min(*first)).or_insert(*first);
        }
        let table = |rule: &RuleAnswer| Table::read(config, rule);
        let values = |rule: &Vec<_>| Values::read(config, rule);
        Part {
            answer,
            spans: plan.groups.iter().map(|group| group.due).collect(),
            tables: answer.groups.iter().map(|g| g.due.iter().map(table).collect()).collect(),
            values: answer.groups.iter().map(|g| g.values.iter().map(values).collect()).collect(),
        }
    }

    /// Sees what is there at `at`, and returns the pasts that are to be read before it is judged.
    pub(super) fn discover(&mut self, part: &Part<'_>, at: Timestamp) -> Vec<(usize, Span)> {
        let Entry { config, groups, interval, .. } = self.entry;
        let mut seen = answers::fleets_at(config, &part.answer.fleet, at);
        let names: BTreeSet<String> = self.fleets.keys().chain(seen.keys()).cloned().collect();
        let mut pasts = Vec::new();
        for name in names {
            let mut versions = seen.remove(&name).unwrap_or_default();
            let fleet = self.fleets.entry(name.clone()).or_default();
            fleet.see(&mut versions, at);
            fleet.adopt_what_was_kept(&versions, &mut self.stories, at);
            let found = fleet.observed.discover(config, &versions, at, *interval);
            let gone = fleet.observed.count_absent(&versions);
            fleet.observed.seen = versions;
            fleet.observed.looked = true;
            let ended = gone.into_iter().map(|candidate| Happening::RolloutEnded { candidate });
            for happening in found.happenings.into_iter().chain(ended) {
                fleet.happen(&name, &happening, at, &mut self.stories);
            }
            fleet.observed.begin_watches(groups);
            pasts.extend(fleet.unread(self.entry));
        }
        pasts.sort_unstable_by_key(|(group, span): &(usize, Span)| (*group, span.last));
        pasts.dedup();
        self.reached = Some(at);
        pasts
    }

    /// Compares the rollouts that have just begun with their past.
    pub(super) fn read_past(&mut self, group: usize, span: Span, answer: &[RuleAnswer]) {
        let Entry { config, groups, .. } = self.entry;
        let Some(rules) = groups.get(group) else { return };
        let tables: Vec<Table> = answer.iter().map(|rule| Table::read(config, rule)).collect();
        for (name, fleet) in &mut self.fleets {
            let observed = &mut fleet.observed;
            observed.read_history(name, (group, rules), config.observe_for, span, &tables);
        }
    }

    /// Takes the ticks up to `at`.
    pub(super) fn take_ticks(&mut self, part: &Part<'_>, at: Timestamp) {
        // The curves are of the first rule that counts sessions.
        let counting = self.entry.groups.iter().position(|group| !group.sessions.is_empty());
        for (group, span) in part.spans.iter().enumerate() {
            let Some(span) = span.and_then(|span| ends_at(span, at)) else { continue };
            let (Some(tables), Some(values)) = (part.tables.get(group), part.values.get(group))
            else {
                continue;
            };
            for (name, fleet) in &mut self.fleets {
                // As far back as a rollout that has just begun needs.
                let back = Span { first: span.first - span.window, ..span };
                fleet.observed.take_ticks(name, group, back, tables);
                fleet.observed.take_values(name, group, back, values);
                fleet.count_on(name, (group, at), tables, &mut self.stories);
            }
            if let Some(table) = tables.first().filter(|_| Some(group) == counting) {
                count(&mut self.series, &self.fleets, table, at);
            }
        }
    }

    /// What the rules say of every candidate.
    pub(super) fn judge(&mut self, at: Timestamp) -> Vec<Judged> {
        let entry = self.entry;
        let fleets = self.fleets.iter_mut();
        fleets.flat_map(|(name, fleet)| fleet.judge(name, entry, at)).collect()
    }

    /// What is to be asked by slice before it is known how broad the regressions are: up to `at`,
    /// or on to `last` where it was asked before.
    pub(super) fn slices_wanted(&mut self, at: Timestamp, last: Timestamp) -> Vec<Wanted> {
        let entry = self.entry;
        let fleets = self.fleets.iter_mut();
        fleets.flat_map(|(name, fleet)| fleet.slices_wanted(name, entry, at, last)).collect()
    }

    /// Reads what was answered, of the past and of the ticks.
    pub(super) fn read_slices(&mut self, wanted: &Wanted, past: &RuleAnswer, ticks: &RuleAnswer) {
        if let Some(fleet) = self.fleets.get_mut(&wanted.fleet) {
            fleet.read_slices(self.entry, wanted, past, ticks);
        }
    }

    /// The server answers, but not that: what is convicted counts as wide.
    pub(super) fn slices_refused(&mut self, wanted: &Wanted, error: &MetricError) {
        let Wanted { fleet: name, candidate, .. } = wanted;
        let Some(fleet) = self.fleets.get_mut(name) else { return };
        if fleet.refuse_slices(candidate) {
            self.unsliced.push(format!(
                "the slices of {candidate} of {name} could not be had, and what it fails counts \
                 as wide: {error}"
            ));
        }
    }

    /// Whether what is convicted is narrow, by what was asked by slice; `false` if that was not
    /// asked for yet, and must be now.
    pub(super) fn examine(&mut self, judged: &mut [Judged]) -> bool {
        for (name, rollout, judgement) in &mut *judged {
            if let Some(fleet) = self.fleets.get_mut(name) {
                fleet.examine(self.entry, rollout, judgement);
            }
        }
        judged.iter().all(|(_, _, judgement)| judgement.breadth != Breadth::Unknown)
    }

    /// Does what the decision table says.
    pub(super) fn decide(&mut self, judged: Vec<Judged>, at: Timestamp) {
        let entry = self.entry;
        let one_of_many = entry.breaker.is_open(self.regressions(at));
        for (name, rollout, judgement) in judged {
            if let Some(fleet) = self.fleets.get_mut(&name) {
                fleet.decide(entry, (&rollout, &judgement), one_of_many, at, &mut self.stories);
            }
        }
    }

    /// How many fleets of the entry regressed of late, and of how many.
    fn regressions(&self, at: Timestamp) -> Regressions {
        let mut seen = Regressions::default();
        for fleet in self.fleets.values() {
            let regressed = fleet.observed.history.regressed_at();
            let regressed = regressed.is_some_and(|when| self.entry.breaker.counts(when, at));
            let alive = fleet.observed.seen.values().any(|version| !version.workers.is_empty());
            if regressed || alive {
                seen.fleets += 1;
                seen.regressed += usize::from(regressed);
            }
        }
        seen
    }
}

/// The one tick of a span that ends at `at`.
fn ends_at(span: Span, at: Timestamp) -> Option<Span> {
    let within = span.first <= at && at <= span.last;
    (within && at.align_down(span.window) == at).then_some(Span { first: at, last: at, ..span })
}

/// Adds a tick of each version alive to its curve.
fn count(
    series: &mut BTreeMap<(String, Version), Series>,
    fleets: &BTreeMap<String, Fleet>,
    table: &Table,
    at: Timestamp,
) {
    for (name, fleet) in fleets {
        for version in fleet.observed.seen.keys() {
            if let Some(cell) = table.row(name, version).at(at) {
                let key = (name.clone(), version.clone());
                series.entry(key).or_default().add(at, cell.counts);
            }
        }
    }
}
