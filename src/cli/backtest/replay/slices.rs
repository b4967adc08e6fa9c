//! What was asked by slice of convicted candidates.
//!
//! In hindsight the ticks to come are there as well, so a candidate that stays convicted is not
//! asked for at every look: its ticks are fetched ahead, and taken one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Entry;
use super::fleet::Fleet;
use crate::domain::history::Rollout;
use crate::domain::narrow::{SliceWatch, SlicedTick};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::judge::Judgement;
use crate::evaluate::plan::{RuleAnswer, Span};
use crate::evaluate::slices::{self, Subject};

/// Ticks fetched ahead at most: an hour of 15 s.
const TICKS_AHEAD: u32 = 240;

/// What is to be asked by slice for one rule and candidate.
pub(in super::super) struct Wanted {
    pub(in super::super) fleet: String,
    pub(in super::super) candidate: Version,
    /// Group, and place in it.
    pub(in super::super) rule: (usize, usize),
    /// The baseline's past, where it was not asked for yet.
    pub(in super::super) past: Option<Span>,
    pub(in super::super) ticks: Option<Span>,
}

/// One candidate's slices.
#[derive(Default)]
pub(super) struct Sliced {
    /// By group and rule.
    rules: BTreeMap<(usize, usize), OfRule>,
    /// They could not be had.
    refused: bool,
}

struct OfRule {
    watch: SliceWatch,
    /// The end of the last tick that was taken.
    taken: Timestamp,
    /// The end of the last tick that was asked for.
    fetched: Timestamp,
    ahead: BTreeMap<Timestamp, SlicedTick>,
}

impl OfRule {
    /// The watch after the tick that ends at `counted`; none if it lacks a tick before that.
    fn until(&mut self, counted: Timestamp, tick: Duration) -> Option<&mut SliceWatch> {
        let due = Span::due(self.taken, counted, tick);
        if self.fetched < counted || due.is_some_and(|due| due.first > self.taken + tick) {
            return None;
        }
        for end in due.into_iter().flat_map(Span::ends) {
            self.watch.observe(self.ahead.remove(&end).unwrap_or_default());
            self.taken = end;
        }
        (self.taken == counted).then_some(&mut self.watch)
    }
}

impl Fleet {
    pub(super) fn slices_wanted(
        &mut self,
        name: &str,
        entry: &Entry,
        at: Timestamp,
        last: Timestamp,
    ) -> Vec<Wanted> {
        let Self { observed, sliced, .. } = self;
        let rollouts = observed.history.rollouts();
        sliced.retain(|candidate, _| rollouts.contains_key(candidate));
        let mut all = Vec::new();
        let convicted = observed.watches.iter().filter(|(_, watch)| watch.slices_wanted);
        for rollout in convicted.filter_map(|(candidate, _)| rollouts.get(candidate)) {
            let known = sliced.entry(rollout.candidate.clone()).or_default();
            let each = rules(entry, name, rollout).filter(|_| !known.refused);
            all.extend(each.filter_map(|(rule, subject)| {
                let of_rule = known.rules.get(&rule);
                let (after, until) = match of_rule {
                    None => (subject.start(), at),
                    Some(of_rule) if of_rule.fetched < at.align_down(subject.interval) => {
                        (of_rule.fetched, last.min(at + subject.interval * TICKS_AHEAD))
                    }
                    Some(_) => return None,
                };
                Some(Wanted {
                    fleet: name.to_owned(),
                    candidate: rollout.candidate.clone(),
                    rule,
                    past: of_rule.is_none().then(|| subject.past()),
                    ticks: Span::due(after, until, subject.interval),
                })
            }));
        }
        all
    }

    pub(super) fn read_slices(
        &mut self,
        entry: &Entry,
        wanted: &Wanted,
        past: &RuleAnswer,
        ticks: &RuleAnswer,
    ) {
        let Some(rollout) = self.observed.history.rollouts().get(&wanted.candidate) else { return };
        let mut each = rules(entry, &wanted.fleet, rollout);
        let Some((_, subject)) = each.find(|(rule, _)| *rule == wanted.rule) else { return };
        let known = self.sliced.entry(wanted.candidate.clone()).or_default();
        let of_rule = known.rules.entry(wanted.rule).or_insert_with(|| OfRule {
            watch: subject.begin(subject.past(), past),
            taken: subject.start(),
            fetched: subject.start(),
            ahead: BTreeMap::new(),
        });
        of_rule.ahead.append(&mut subject.read(ticks));
        of_rule.fetched = wanted.ticks.map_or(of_rule.fetched, |span| span.last);
    }

    /// Whether that is news.
    pub(super) fn refuse_slices(&mut self, candidate: &Version) -> bool {
        let known = self.sliced.entry(candidate.clone()).or_default();
        known.rules.clear();
        !std::mem::replace(&mut known.refused, true)
    }

    pub(super) fn examine(&mut self, entry: &Entry, rollout: &Rollout, judgement: &mut Judgement) {
        let Self { observed, sliced, .. } = self;
        let threshold = entry.threshold;
        slices::examine(
            observed,
            rollout,
            &entry.groups,
            threshold,
            judgement,
            |rule, whole, counted| {
                let tick = entry.groups.get(rule.0)?.interval;
                let known = sliced.get_mut(&rollout.candidate)?.rules.get_mut(&rule)?;
                slices::narrow(known.until(counted, tick)?, whole, threshold)
            },
        );
    }
}

/// The rules that know slices, by group and place in it.
fn rules<'a>(
    entry: &'a Entry,
    fleet: &'a str,
    rollout: &'a Rollout,
) -> impl Iterator<Item = ((usize, usize), Subject<'a>)> {
    entry.groups.iter().enumerate().flat_map(move |(group, rules)| {
        let sliced = rules.sessions.iter().enumerate().filter(|(_, r)| !r.narrow_by.is_empty());
        sliced.map(move |(place, rule)| {
            let (config, interval) = (&entry.config, rules.interval);
            ((group, place), Subject { config, fleet, rollout, rule, interval })
        })
    })
}
