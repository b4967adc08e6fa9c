//! Whether what the rules convict sits in one slice of a candidate's sessions.
//!
//! Asked only once a candidate is convicted, by rules with `narrow_by` alone: its ticks since the
//! rollout began, and the baseline's past, each by those labels. What is left without a slice goes
//! through the same code as the whole did.
//!
//! **Invariant:** whatever is missing here (an answer, a tick, a label) makes a regression wide.
//! A slice never convicts, and its absence never acquits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::FleetConfig;
use crate::domain::counts::Counts;
use crate::domain::history::Rollout;
use crate::domain::narrow::{Breadth, Part, SliceWatch, SlicedTick, Standout};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::ports::metrics::Series;
use crate::rules::{Group, SessionRule};

use super::answers::{count, owner};
use super::judge::Judgement;
use super::observed::{Observed, RuleWatch, as_ticks, observation_ticks, settings};
use super::plan::{Answer, Plan, RuleAnswer, SlicePlan, Span};

/// Beginnings of convicted rollouts that one look asks the baseline's past for. More of one entry
/// at a time are judged without slices.
const BEGINNINGS_MAX: usize = 4;

/// What a narrow regression looks like, for people and the record.
#[derive(Clone, Debug)]
pub(crate) struct Narrow {
    /// The rule that convicts, by group and place in it.
    pub(crate) rule: (usize, usize),
    pub(crate) standout: Standout,
    /// The same rule's watch of the sessions without the slice.
    pub(crate) rest: RuleWatch,
}

/// What to ask by slice for a group's rules, where candidates of these fleets are convicted and
/// `newest` is the end of the last tick that is over.
pub(crate) fn plan<'a>(
    fleets: impl Iterator<Item = &'a Observed>,
    config: &FleetConfig,
    group: &Group,
    newest: Option<Timestamp>,
) -> Option<SlicePlan> {
    let begun = |fleet: &'a Observed| {
        let wanted = fleet.watches.iter().filter(|(_, watch)| watch.slices_wanted);
        let rollouts = fleet.history.rollouts();
        wanted.filter_map(|(candidate, _)| Some(rollouts.get(candidate)?.started_at))
    };
    let mut begun: Vec<Timestamp> =
        fleets.flat_map(begun).map(|start| start.align_down(group.interval)).collect();
    begun.sort_unstable();
    begun.dedup();
    begun.truncate(BEGINNINGS_MAX);
    let (first, newest) = (*begun.first()?, newest?);
    if group.sessions.iter().all(|rule| rule.narrow_by.is_empty()) {
        return None;
    }
    let ticks = observation_ticks(config.observe_for, group.interval);
    let history = |start| Span::history(start, config.history, ticks);
    Some(SlicePlan {
        ticks: Span::due(first, newest, group.interval),
        histories: begun.into_iter().map(history).collect(),
    })
}

/// One look at the fleets of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) config: &'a FleetConfig,
    pub(crate) groups: &'a [Group],
    pub(crate) plan: &'a Plan,
    pub(crate) answer: &'a Answer,
}

/// Whether what a judgement convicts is narrow: by all rules that do, and by one and the same
/// slice. Remembers on the candidate's watch whether the next look must ask for slices.
///
/// `narrow` says for one rule, by what was asked for, which slice stands out and what its watch of
/// the rest is; it is given the end of the last tick that the whole has taken.
pub(crate) fn examine(
    fleet: &mut Observed,
    rollout: &Rollout,
    groups: &[Group],
    threshold: f64,
    judgement: &mut Judgement,
    mut narrow: impl FnMut((usize, usize), &RuleWatch, Timestamp) -> Option<(Standout, RuleWatch)>,
) {
    let Some(watch) = fleet.watches.get_mut(&rollout.candidate) else { return };
    let regressed = |(_, _, rule): &&(_, _, RuleWatch)| {
        rule.observation.verdict(threshold) == Verdict::Regressed
    };
    let regressed: Vec<_> = judgement.rules.iter().filter(regressed).collect();
    let sliced = |(group, place, _): &&(usize, usize, RuleWatch)| {
        let rule = groups.get(*group).and_then(|group| group.sessions.get(*place));
        rule.is_some_and(|rule| !rule.narrow_by.is_empty())
    };
    let wanted = !regressed.is_empty() && regressed.iter().all(sliced);
    let asked = std::mem::replace(&mut watch.slices_wanted, wanted);
    let each = regressed.iter().map(|(group, place, whole)| {
        let counted = watch.groups.get(group)?.cursor;
        let (standout, rest) = narrow((*group, *place), whole, counted)?;
        Some(Narrow { rule: (*group, *place), standout, rest })
    });
    judgement.narrow = if wanted && asked { the_one_slice(each) } else { None };
    judgement.breadth = match &judgement.narrow {
        Some(narrow) => Breadth::Narrow(narrow.standout.slice.clone()),
        None if wanted && !asked => Breadth::Unknown,
        None => Breadth::Wide,
    };
    watch.narrow.clone_from(&judgement.narrow);
}

/// The same by the answers of one look.
pub(crate) fn examine_look(
    fleet: &mut Observed,
    name: &str,
    rollout: &Rollout,
    look: Look<'_>,
    threshold: f64,
    judgement: &mut Judgement,
) {
    examine(fleet, rollout, look.groups, threshold, judgement, |place, whole, counted| {
        let mut slices = asked(place, name, rollout, counted, look)?;
        narrow(&mut slices, whole, threshold)
    });
}

/// The slice that a rule's regression sits in, and its watch of the rest.
pub(crate) fn narrow(
    slices: &mut SliceWatch,
    whole: &RuleWatch,
    threshold: f64,
) -> Option<(Standout, RuleWatch)> {
    let standout = slices.narrow(&whole.observation, threshold)?;
    // What dead workers took with them is no slice's.
    let rest = RuleWatch { observation: slices.rest(&standout.slice).clone(), dropped: 0 };
    Some((standout, rest))
}

/// The first of them, if there are all and they name one slice.
fn the_one_slice(mut each: impl Iterator<Item = Option<Narrow>>) -> Option<Narrow> {
    let first = each.next()??;
    let same = |narrow: Option<Narrow>| {
        narrow.is_some_and(|narrow| narrow.standout.slice == first.standout.slice)
    };
    each.all(same).then_some(first)
}

/// Whose sessions are watched by slice, and by which rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) config: &'a FleetConfig,
    /// The fleet's name.
    pub(crate) fleet: &'a str,
    pub(crate) rollout: &'a Rollout,
    pub(crate) rule: &'a SessionRule,
    /// The length of a tick.
    pub(crate) interval: Duration,
}

impl Subject<'_> {
    /// When its first tick begins.
    pub(crate) fn start(self) -> Timestamp {
        self.rollout.started_at.align_down(self.interval)
    }

    /// The baseline's past that it is compared with.
    pub(crate) fn past(self) -> Span {
        let ticks = observation_ticks(self.config.observe_for, self.interval);
        Span::history(self.start(), self.config.history, ticks)
    }

    /// Begins, with what was answered of `past`.
    pub(crate) fn begin(self, past: Span, answer: &RuleAnswer) -> SliceWatch {
        let mut chunks = self.read(answer);
        let chunk = |end| {
            let mut parts = chunks.remove(&end).unwrap_or_default().baseline;
            for part in &mut parts {
                part.counts = as_ticks(part.counts, past.window, self.interval);
            }
            parts
        };
        let ticks = observation_ticks(self.config.observe_for, self.interval);
        SliceWatch::new(
            &self.rule.narrow_by,
            settings(self.rule, ticks),
            self.rule.dispersion.is_none(),
            past.ends().map(chunk).collect(),
        )
    }

    /// Takes the ticks that end at `ends`, as they were answered.
    pub(crate) fn take(
        self,
        slices: &mut SliceWatch,
        answer: &RuleAnswer,
        ends: impl Iterator<Item = Timestamp>,
    ) {
        let mut ticks = self.read(answer);
        ends.for_each(|end| slices.observe(ticks.remove(&end).unwrap_or_default()));
    }

    /// What an answer has of candidate and baseline, by window.
    pub(crate) fn read(self, answer: &RuleAnswer) -> BTreeMap<Timestamp, SlicedTick> {
        let mut ticks = BTreeMap::<Timestamp, SlicedTick>::new();
        let whole = |of: fn(u64) -> Counts| move |value: f64| of(count(value));
        let started = whole(|started| Counts { started, ..Counts::default() });
        let failed = whole(|failed| Counts { failed, ..Counts::default() });
        let live = |value: f64| Counts { live: value.max(0.0), ..Counts::default() };
        self.fill(&mut ticks, &answer.started, started);
        self.fill(&mut ticks, &answer.failed, failed);
        self.fill(&mut ticks, &answer.died, failed);
        self.fill(&mut ticks, &answer.live, live);
        ticks
    }

    fn fill(
        self,
        ticks: &mut BTreeMap<Timestamp, SlicedTick>,
        answer: &[Series],
        of: impl Fn(f64) -> Counts,
    ) {
        for series in answer {
            let Some((fleet, version)) = owner(self.config, series) else { continue };
            let is_candidate = version == self.rollout.candidate;
            if fleet != self.fleet
                || !is_candidate && self.rollout.baseline.as_ref() != Some(&version)
            {
                continue;
            }
            let value = |label| series.labels.get(label).cloned().unwrap_or_default();
            let values: Arc<[String]> = self.rule.narrow_by.iter().map(value).collect();
            for (at, value) in &series.points {
                let tick = ticks.entry(*at).or_default();
                let side = if is_candidate { &mut tick.candidate } else { &mut tick.baseline };
                side.push(Part { values: Arc::clone(&values), counts: of(*value) });
            }
        }
    }
}

/// All that a look was answered by slice for one rule and candidate. `None` unless that is
/// everything that the whole has taken; `counted` is the end of its last tick that is over.
fn asked(
    (group, place): (usize, usize),
    name: &str,
    rollout: &Rollout,
    counted: Timestamp,
    look: Look<'_>,
) -> Option<SliceWatch> {
    let Look { config, groups, plan, answer } = look;
    let (plan, answer) =
        plan.groups.iter().zip(&answer.groups).find(|(plan, _)| plan.group == group)?;
    let (group, slices) = (groups.get(group)?, plan.slices.as_ref()?);
    let (rule, answer) = (group.sessions.get(place)?, answer.slices.get(&place)?);
    let subject = Subject { config, fleet: name, rollout, rule, interval: group.interval };
    let start = subject.start();
    let past = slices.histories.iter().zip(&answer.histories);
    let (span, past) = past.into_iter().find(|(span, _)| span.last == start)?;
    let ticks =
        slices.ticks.filter(|span| span.first <= start + group.interval && span.last >= counted);
    if ticks.is_none() && counted > start {
        return None;
    }
    let mut watch = subject.begin(*span, past);
    let ends = ticks.into_iter().flat_map(Span::ends);
    let ends = ends.filter(|end| *end > start && *end <= counted);
    subject.take(&mut watch, &answer.ticks, ends);
    // The tick that is not over, where the whole has looked ahead at it.
    let ahead = plan.unfinished.filter(|span| span.last - span.window == counted);
    subject.take(&mut watch, &answer.unfinished, ahead.into_iter().flat_map(Span::ends));
    Some(watch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::answers::Table;
    use super::super::answers::tests::config;
    use super::*;
    use crate::domain::narrow::Slice;

    const TICKS: i64 = 5;

    fn at(tick: i64) -> Timestamp {
        Timestamp::from_millis(tick * 1000)
    }

    fn rule() -> SessionRule {
        SessionRule {
            name: "Failing".to_owned(),
            started: "started".to_owned(),
            failed: "failed".to_owned(),
            live: None,
            ceiling: None,
            tolerance: None,
            dispersion: None,
            narrow_by: vec!["tenant".to_owned(), "agent".to_owned()],
            annotations: BTreeMap::new(),
            digest: String::new(),
        }
    }

    /// What a tenant's and an agent's sessions came to in one tick.
    type Cell = (u8, u8, i64, u32, u32);

    fn answer(cells: &[Cell]) -> RuleAnswer {
        let series = |cell: &Cell, value: u32| Series {
            labels: [("version", "v2"), ("tenant", ["", "a", "b"][usize::from(cell.0)])]
                .into_iter()
                .chain([("agent", ["", "x", "y"][usize::from(cell.1)])])
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            points: vec![(at(cell.2), f64::from(value))],
        };
        RuleAnswer {
            started: cells.iter().map(|cell| series(cell, cell.3)).collect(),
            failed: cells.iter().map(|cell| series(cell, cell.4)).collect(),
            ..RuleAnswer::default()
        }
    }

    proptest! {
        #[test]
        fn a_slice_and_the_rest_are_the_whole(
            cells in prop::collection::vec((0..3_u8, 0..3_u8, 0..TICKS, 0..50_u32, 0..50_u32), 0..40)
        ) {
            let (config, answer, version) = (config(), answer(&cells), "v2".parse().unwrap());
            let rule = rule();
            let rollout = Rollout {
                candidate: version,
                baseline: None,
                started_at: at(-1),
                observe_until: at(TICKS),
                baseline_workers: 0,
            };
            let interval = Duration::from_secs(1);
            let (fleet, rollout, rule) = ("voice", &rollout, &rule);
            let subject = Subject { config: &config, fleet, rollout, rule, interval };
            let mut slices = subject.begin(subject.past(), &RuleAnswer::default());
            subject.take(&mut slices, &answer, (0..TICKS).map(at));
            let whole = Table::read(&config, &answer);
            for (place, label, value) in [(0, "tenant", "a"), (0, "tenant", "b"), (1, "agent", "y")] {
                let slice = Slice { label: label.to_owned(), value: value.to_owned() };
                let ticks = subject.read(&answer);
                let rest = slices.rest(&slice).ticks();
                prop_assert_eq!(rest.len(), usize::try_from(TICKS).unwrap());
                for (tick, rest) in (0..TICKS).zip(rest) {
                    let parts = ticks.get(&at(tick)).map_or(&[][..], |tick| &tick.candidate);
                    let is_in = |part: &&Part| part.values[place] == value;
                    let in_slice = parts.iter().filter(is_in).map(|part| part.counts);
                    let sum = in_slice.fold(rest.candidate, |sum, counts| sum + counts);
                    let cell = whole.row("voice", &rollout.candidate).at(at(tick));
                    let want = cell.map(|cell| cell.counts).unwrap_or_default();
                    prop_assert_eq!(sum, want, "{} {} {}", label, value, tick);
                }
            }
        }
    }
}
