//! One entry of the config, look by look, as the controller takes it.
//!
//! Two things differ. In hindsight every tick has settled, so a look counts all ticks up to its
//! own time and need not look ahead. And the past cannot be changed: a version that would have
//! been rolled back goes on, and its sessions are counted as those a rollback would have saved.
//! If people kept it and a further version replaces it, it is that one's baseline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::story::{End, Series, Story, Told};
use crate::config::{FleetConfig, Mode};
use crate::domain::breaker::{Breaker, Regressions};
use crate::domain::decision::{Decision, ONE_OF_MANY, decide};
use crate::domain::history::{Happening, Rollout};
use crate::domain::rollback::{Rollback, State};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::{self, Table, Values, VersionSeen};
use crate::evaluate::judge::{Ahead, Judgement, judge, threshold_log10};
use crate::evaluate::observed::{ABSENT_LOOKS_MAX, GroupWatch, Observed, observation_ticks};
use crate::evaluate::plan::{Answer, Plan, RuleAnswer, Span};
use crate::ports::metrics::MetricError;
use crate::rules::{Group, RuleSet};

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
type Judged = (String, Rollout, Judgement);

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
}

/// An entry while it is replayed.
pub(super) struct Replay<'e> {
    entry: &'e Entry,
    fleets: BTreeMap<String, Fleet>,
    stories: Vec<Story>,
    series: BTreeMap<(String, Version), Series>,
    reached: Option<Timestamp>,
}

/// One fleet while it is replayed.
#[derive(Default)]
struct Fleet {
    observed: Observed,
    /// Happenings so far.
    seq: u64,
    /// When each version was first seen, beginning with the lineage.
    first_seen: BTreeMap<Version, Timestamp>,
    /// Where the stories are of rollouts under observation.
    open: BTreeMap<Version, usize>,
    /// Where the stories are of versions that would have been rolled back, and run on.
    on_the_run: BTreeMap<Version, OnTheRun>,
}

struct OnTheRun {
    story: usize,
    /// Group and rule whose sessions are counted.
    rule: (usize, usize),
    absent_looks: u32,
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

    /// Takes the ticks up to `at`, and decides.
    pub(super) fn judge(&mut self, part: &Part<'_>, at: Timestamp) {
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
        let entry = self.entry;
        let mut judged = Vec::new();
        for (name, fleet) in &mut self.fleets {
            judged.extend(fleet.judge(name, entry, at));
        }
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

impl Fleet {
    /// Fills in when each version was first seen.
    fn see(&mut self, versions: &mut BTreeMap<Version, VersionSeen>, at: Timestamp) {
        for (version, seen) in versions {
            if !seen.workers.is_empty() {
                let first = *self.first_seen.entry(version.clone()).or_insert(at);
                seen.first_seen = Some(first);
            }
        }
    }

    /// A version that would have been rolled back, was not, and is now followed by another one
    /// while the version before it is gone: people kept it.
    fn adopt_what_was_kept(
        &mut self,
        versions: &BTreeMap<Version, VersionSeen>,
        stories: &mut [Story],
        at: Timestamp,
    ) {
        let alive =
            |version: &Version| versions.get(version).is_some_and(|v| !v.workers.is_empty());
        let history = &self.observed.history;
        if history.last_good().is_none_or(alive) {
            return;
        }
        let is_new = |version: &&Version| {
            alive(version)
                && !history.denied().contains(*version)
                && !history.rollouts().contains_key(*version)
        };
        let mut kept = history.denied().iter().filter(|version| alive(version));
        let (Some(version), None) = (kept.next().cloned(), kept.next()) else { return };
        if !versions.keys().any(|version| is_new(&version)) {
            return;
        }
        if let Some(run) = self.on_the_run.remove(&version)
            && let Some(story) = stories.get_mut(run.story)
        {
            story.kept = true;
        }
        self.apply(&Happening::Allowed { version: version.clone() }, at);
        self.apply(&Happening::BaselineAdopted { version }, at);
    }

    /// Histories to be read, of rollouts that are not compared with their past yet.
    fn unread(&self, entry: &Entry) -> Vec<(usize, Span)> {
        let watches = self.observed.watches.values().flat_map(|watch| &watch.groups);
        let unread = watches.filter(|(_, watch)| watch.rules.is_none());
        let span = |(group, watch): (&usize, &GroupWatch)| {
            let interval = entry.groups.get(*group)?.interval;
            let FleetConfig { observe_for, history, .. } = entry.config;
            let ticks = observation_ticks(observe_for, interval);
            Some((*group, Span::history(watch.cursor, history, ticks)))
        };
        unread.filter_map(span).collect()
    }

    fn happen(
        &mut self,
        name: &str,
        happening: &Happening,
        at: Timestamp,
        stories: &mut Vec<Story>,
    ) {
        self.apply(happening, at);
        if let Happening::RolloutStarted { rollout } = happening {
            self.open.insert(rollout.candidate.clone(), stories.len());
            stories.push(Story::new(name, rollout));
        }
        if let Happening::RolloutEnded { candidate } = happening
            && let Some(story) = self.open.remove(candidate)
            && let Some(story) = stories.get_mut(story)
        {
            story.end = End::Gone { at };
        }
    }

    /// What cannot follow what was before did not happen.
    fn apply(&mut self, happening: &Happening, at: Timestamp) {
        self.seq += 1;
        if let Err(error) = self.observed.history.apply(self.seq, at, happening) {
            tracing::debug!(%error, ?happening, "left out");
        }
    }

    /// Counts the sessions of versions that would have been rolled back by now.
    fn count_on(
        &mut self,
        name: &str,
        (group, at): (usize, Timestamp),
        tables: &[Table],
        stories: &mut [Story],
    ) {
        let seen = &self.observed.seen;
        self.on_the_run.retain(|version, run| {
            let (of_group, of_rule) = run.rule;
            let (Some(story), Some(table)) = (stories.get_mut(run.story), tables.get(of_rule))
            else {
                return true;
            };
            if of_group != group {
                return true;
            }
            let alive = seen.get(version).is_some_and(|v| !v.workers.is_empty() || v.live > 0.0);
            run.absent_looks = if alive { 0 } else { run.absent_looks + 1 };
            if let Some(cell) = table.row(name, version).at(at) {
                story.after.add(at, cell.counts, cell.dropped);
            }
            run.absent_looks <= ABSENT_LOOKS_MAX
        });
    }

    /// What the rules say of each candidate; notes those that regress for the first time.
    fn judge(&mut self, name: &str, entry: &Entry, at: Timestamp) -> Vec<Judged> {
        let rollouts: Vec<Rollout> = self.observed.history.rollouts().values().cloned().collect();
        let mut judged = Vec::new();
        for rollout in rollouts {
            let Entry { groups, threshold, .. } = entry;
            let mut ahead = Ahead::new();
            let judgement = judge(&self.observed, name, groups, &rollout, *threshold, &mut ahead);
            let candidate = &rollout.candidate;
            if judgement.has_regressed() && !self.observed.history.has_regressed(candidate) {
                self.apply(&Happening::Regressed { candidate: candidate.clone() }, at);
            }
            judged.push((name.to_owned(), rollout, judgement));
        }
        judged
    }

    fn decide(
        &mut self,
        entry: &Entry,
        (rollout, judgement): (&Rollout, &Judgement),
        one_of_many: bool,
        at: Timestamp,
        stories: &mut [Story],
    ) {
        let Some(index) = self.open.get(&rollout.candidate).copied() else { return };
        let Some(story) = stories.get_mut(index) else { return };
        let mut situation = self.observed.situation(&entry.config, rollout, judgement, at);
        situation.one_of_many |= one_of_many;
        let decision = decide(&situation);
        story.follow(&entry.groups, judgement, entry.threshold, at);
        story.tell(Told::of(&decision, judgement, &entry.groups, at));
        let candidate = rollout.candidate.clone();
        match decision {
            Decision::Promote => {
                story.end = End::Promoted { at };
                self.open.remove(&candidate);
                self.apply(&Happening::Promoted { version: candidate }, at);
            }
            Decision::RollBack(_) => {
                let rule = story.convict(judgement, at);
                self.open.remove(&candidate);
                let run = OnTheRun { story: index, rule, absent_looks: 0 };
                self.on_the_run.insert(candidate, run);
                self.roll_back(rollout, at);
            }
            Decision::Escalate(ground) if ground.reason == ONE_OF_MANY => {
                if !self.observed.history.is_held_back(&candidate) {
                    self.apply(&Happening::HeldBack { candidate }, at);
                }
            }
            Decision::Wait
            | Decision::FixForward(..)
            | Decision::Escalate(_)
            | Decision::Hold(_) => {}
        }
    }

    /// The rollback, as if it were over at once: the next rollout must not wait for it.
    fn roll_back(&mut self, rollout: &Rollout, at: Timestamp) {
        let bad = rollout.candidate.clone();
        let good = self.observed.history.last_good_except(Some(&bad)).cloned();
        let Some(good) = good else { return };
        let rollback = Rollback {
            id: format!("{bad}-{}", self.seq),
            bad,
            good,
            workers_needed: 1,
            reason: String::new(),
            chosen_at: at,
            state: State::Chosen,
            state_since: at,
        };
        let id = rollback.id.clone();
        self.apply(&Happening::RollbackChosen { rollback }, at);
        self.apply(&Happening::RollbackMoved { id, state: State::Clean }, at);
    }
}
