//! One fleet while it is replayed.

use std::collections::BTreeMap;

use super::super::story::{End, Story, Told};
use super::slices::Sliced;
use super::{Entry, Judged};
use crate::config::FleetConfig;
use crate::domain::decision::{Decision, ONE_OF_MANY, decide};
use crate::domain::history::{Happening, Rollout};
use crate::domain::rollback::{Rollback, State};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::{Table, VersionSeen};
use crate::evaluate::judge::{Ahead, Judgement, judge};
use crate::evaluate::observed::{ABSENT_LOOKS_MAX, GroupWatch, Observed, observation_ticks};
use crate::evaluate::plan::Span;

/// One fleet while it is replayed.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) observed: Observed,
    /// Happenings so far.
    seq: u64,
    /// When each version was first seen, beginning with the lineage.
    pub(super) first_seen: BTreeMap<Version, Timestamp>,
    /// Where the stories are of rollouts under observation.
    open: BTreeMap<Version, usize>,
    /// Where the stories are of versions that would have been rolled back, and run on.
    on_the_run: BTreeMap<Version, OnTheRun>,
    /// What was asked by slice, by candidate.
    pub(super) sliced: BTreeMap<Version, Sliced>,
}

struct OnTheRun {
    story: usize,
    /// Group and rule whose sessions are counted.
    rule: (usize, usize),
    absent_looks: u32,
}

impl Fleet {
    /// Fills in when each version was first seen.
    pub(super) fn see(&mut self, versions: &mut BTreeMap<Version, VersionSeen>, at: Timestamp) {
        for (version, seen) in versions {
            if !seen.workers.is_empty() {
                let first = *self.first_seen.entry(version.clone()).or_insert(at);
                seen.first_seen = Some(first);
            }
        }
    }

    /// A version that would have been rolled back, was not, and is now followed by another one
    /// while the version before it is gone: people kept it.
    pub(super) fn adopt_what_was_kept(
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
    pub(super) fn unread(&self, entry: &Entry) -> Vec<(usize, Span)> {
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

    pub(super) fn happen(
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
    pub(super) fn count_on(
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
    pub(super) fn judge(&mut self, name: &str, entry: &Entry, at: Timestamp) -> Vec<Judged> {
        let rollouts: Vec<Rollout> = self.observed.history.rollouts().values().cloned().collect();
        let mut judged = Vec::new();
        for rollout in rollouts {
            let Entry { groups, threshold, .. } = entry;
            let mut ahead = Ahead::new();
            let judgement = judge(&self.observed, name, groups, &rollout, *threshold, &mut ahead);
            if self.observed.regresses(&entry.config, &rollout, &judgement, at) {
                let candidate = rollout.candidate.clone();
                self.apply(&Happening::Regressed { candidate }, at);
            }
            judged.push((name.to_owned(), rollout, judgement));
        }
        judged
    }

    pub(super) fn decide(
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
