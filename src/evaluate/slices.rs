//! Whether what the rules convict sits in one slice of a candidate's sessions.
//!
//! Asked only once a candidate is convicted, by rules with `narrow_by` alone: its ticks since the
//! rollout began, and the baseline's past, each by those labels. What is left without a slice goes
//! through the same code as the whole did.
//!
//! **Invariant:** whatever is missing here (an answer, a tick, a label) makes a regression wide.
//! A slice never convicts, and its absence never acquits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::FleetConfig;
use crate::domain::counts::Counts;
use crate::domain::history::Rollout;
use crate::domain::narrow::{Breadth, Slice, Standout, standouts};
use crate::domain::observation::ControlKind;
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::domain::version::Version;
use crate::ports::metrics::Series;
use crate::rules::{Group, SessionRule};

use super::answers::{Table, count, owner};
use super::judge::Judgement;
use super::observed::{Observed, RuleWatch, observation_ticks, take_tick};
use super::plan::{Answer, Plan, RuleAnswer, SliceAnswer, SlicePlan, Span};

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
pub(crate) fn examine(
    fleet: &mut Observed,
    name: &str,
    rollout: &Rollout,
    look: Look<'_>,
    threshold: f64,
    judgement: &mut Judgement,
) {
    let Some(watch) = fleet.watches.get_mut(&rollout.candidate) else { return };
    let regressed = |(_, _, rule): &&(_, _, RuleWatch)| {
        rule.observation.verdict(threshold) == Verdict::Regressed
    };
    let regressed: Vec<_> = judgement.rules.iter().filter(regressed).collect();
    let sliced = |(group, place, _): &&(usize, usize, RuleWatch)| {
        let rule = look.groups.get(*group).and_then(|group| group.sessions.get(*place));
        rule.is_some_and(|rule| !rule.narrow_by.is_empty())
    };
    let wanted = !regressed.is_empty() && regressed.iter().all(sliced);
    let asked = std::mem::replace(&mut watch.slices_wanted, wanted);
    let each = regressed.iter().map(|(group, place, whole)| {
        let counted = watch.groups.get(group)?.cursor;
        let asked = Asked::of((*group, *place), name, rollout, counted, look)?;
        let (standout, rest) = asked.narrow(whole, threshold)?;
        Some(Narrow { rule: (*group, *place), standout, rest })
    });
    judgement.narrow = if wanted && asked { the_one_slice(each) } else { None };
    judgement.breadth = match &judgement.narrow {
        Some(narrow) => Breadth::Narrow(narrow.standout.slice.clone()),
        None if wanted && !asked => Breadth::Unknown,
        None => Breadth::Wide,
    };
    watch.narrow = judgement.narrow.as_ref().map(|narrow| narrow.standout.clone());
}

/// The first of them, if there are all and they name one slice.
fn the_one_slice(mut each: impl Iterator<Item = Option<Narrow>>) -> Option<Narrow> {
    let first = each.next()??;
    let same = |narrow: Option<Narrow>| {
        narrow.is_some_and(|narrow| narrow.standout.slice == first.standout.slice)
    };
    each.all(same).then_some(first)
}

/// All that was asked by slice for one rule and candidate.
struct Asked<'a> {
    config: &'a FleetConfig,
    name: &'a str,
    rule: &'a SessionRule,
    rollout: &'a Rollout,
    answer: &'a SliceAnswer,
    past: (Span, &'a RuleAnswer),
    /// Ticks in an observation, and how long one is.
    observation: (u32, Duration),
    /// The ends of the ticks that the whole has taken.
    ends: Vec<Timestamp>,
    /// The end of the unfinished tick, where the whole has looked ahead at it.
    ahead: Option<Timestamp>,
}

impl<'a> Asked<'a> {
    /// `None` unless everything that the whole has taken was answered; `counted` is the end of
    /// its last tick that is over.
    fn of(
        (group, place): (usize, usize),
        name: &'a str,
        rollout: &'a Rollout,
        counted: Timestamp,
        look: Look<'a>,
    ) -> Option<Self> {
        let Look { config, groups, plan, answer } = look;
        let (plan, answer) =
            plan.groups.iter().zip(&answer.groups).find(|(plan, _)| plan.group == group)?;
        let (group, slices) = (groups.get(group)?, plan.slices.as_ref()?);
        let (rule, answer) = (group.sessions.get(place)?, answer.slices.get(&place)?);
        let start = rollout.started_at.align_down(group.interval);
        let past = slices.histories.iter().zip(&answer.histories);
        let (span, past) = past.into_iter().find(|(span, _)| span.last == start)?;
        let asked = slices
            .ticks
            .filter(|span| span.first <= start + group.interval && span.last >= counted);
        if asked.is_none() && counted > start {
            return None;
        }
        let ends = asked.into_iter().flat_map(Span::ends);
        let ahead = plan.unfinished.filter(|span| span.last - span.window == counted);
        Some(Self {
            config,
            name,
            rule,
            rollout,
            answer,
            past: (*span, past),
            observation: (observation_ticks(config.observe_for, group.interval), group.interval),
            ends: ends.filter(|end| *end > start && *end <= counted).collect(),
            ahead: ahead.map(|span| span.last),
        })
    }

    /// The slice that the regression sits in, and the rule's watch of the rest.
    fn narrow(&self, whole: &RuleWatch, threshold: f64) -> Option<(Standout, RuleWatch)> {
        self.standing(whole).into_iter().find_map(|standout| {
            let rest = self.rest(&standout.slice);
            let clear = rest.observation.verdict(threshold) == Verdict::Healthy;
            clear.then_some((standout, rest))
        })
    }

    /// The slices that stand out, of all labels, the largest excess first.
    fn standing(&self, whole: &RuleWatch) -> Vec<Standout> {
        let seen = [&self.answer.ticks, &self.answer.unfinished];
        let (control, since) = match whole.observation.control() {
            ControlKind::Concurrent => (&seen[..], self.past.0.last),
            ControlKind::History => (&[self.past.1][..], self.past.0.first - self.past.0.window),
            ControlKind::None => (&[][..], self.past.0.last),
        };
        let baseline = self.rollout.baseline.as_ref().filter(|_| self.rule.tolerance.is_some());
        let mut standing: Vec<Standout> = Vec::new();
        for label in &self.rule.narrow_by {
            let mut candidate = self.sums(&seen, self.past.0.last, &self.rollout.candidate, label);
            // What the whole counted and no slice has is nobody's.
            let told = candidate.values().fold(Counts::default(), |sum, counts| sum + *counts);
            let whole = whole.observation.total().candidate;
            *candidate.entry(String::new()).or_default() += Counts {
                started: whole.started.saturating_sub(told.started),
                failed: whole.failed.saturating_sub(told.failed),
                live: 0.0,
            };
            let control = baseline.map(|version| self.sums(control, since, version, label));
            let control = control.unwrap_or_default();
            standing.extend(standouts(label, &candidate, &control, self.rule.ceiling));
        }
        standing.sort_by(|a, b| b.excess_share.total_cmp(&a.excess_share));
        standing
    }

    /// What a version started and failed after `since`, by a label's value; workers that died
    /// stand under none.
    fn sums(
        &self,
        answers: &[&RuleAnswer],
        since: Timestamp,
        version: &Version,
        label: &str,
    ) -> BTreeMap<String, Counts> {
        let mut sums = BTreeMap::<String, Counts>::new();
        let mut add = |series: &Series, of: fn(u64) -> Counts| {
            let own = owner(self.config, series);
            if !own.is_some_and(|(fleet, of)| fleet == self.name && of == *version) {
                return;
            }
            let value = series.labels.get(label).cloned().unwrap_or_default();
            let points = series.points.iter().filter(|(at, _)| *at > since);
            *sums.entry(value).or_default() += of(points.map(|(_, value)| count(*value)).sum());
        };
        for answer in answers {
            for series in &answer.started {
                add(series, |started| Counts { started, ..Counts::default() });
            }
            for series in answer.failed.iter().chain(&answer.died) {
                add(series, |failed| Counts { failed, ..Counts::default() });
            }
        }
        sums
    }

    /// The rule's watch of the fleet without a slice, over all that the whole has taken.
    fn rest(&self, slice: &Slice) -> RuleWatch {
        let table = |answer| {
            Table::read_where(self.config, answer, |series| {
                let of_fleet = owner(self.config, series).is_some_and(|(f, _)| f == self.name);
                of_fleet && series.labels.get(&slice.label) != Some(&slice.value)
            })
        };
        let (span, past) = self.past;
        let past = table(past);
        let rest =
            RuleWatch::new(self.rule, &past, span, self.name, self.rollout, self.observation);
        let (mut rest, ticks) = ([rest], [table(&self.answer.ticks)]);
        for end in &self.ends {
            take_tick(&mut rest, &ticks, self.name, self.rollout, *end);
        }
        if let Some(end) = self.ahead {
            let ahead = [table(&self.answer.unfinished)];
            take_tick(&mut rest, &ahead, self.name, self.rollout, end);
        }
        let [rest] = rest;
        rest
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::parse::parse;

    const CONFIG: &str = r#"
listen: 127.0.0.1:0
prometheus: { url: "http://127.0.0.1:9090" }
rule_files: [unused.yml]
ledger: sqlite:unused.db
signing_key_file: unused.key
fleets: [{ name: voice, version_label: version, workers: info, drain: { manifest: {} } }]
"#;

    const TICKS: i64 = 5;

    fn config() -> FleetConfig {
        parse(CONFIG, Path::new("test.yml")).config.unwrap().fleets.remove(0)
    }

    fn at(tick: i64) -> Timestamp {
        Timestamp::from_millis(tick * 1000)
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
            let table = |is_meant: &dyn Fn(&Series) -> bool| {
                Table::read_where(&config, &answer, is_meant)
            };
            for (label, value) in [("tenant", "a"), ("tenant", "b"), ("agent", "y")] {
                let is_in = |series: &Series| series.labels.get(label).is_some_and(|v| v == value);
                let parts = [table(&is_in), table(&|series| !is_in(series))];
                let whole = table(&|_| true);
                for tick in 0..TICKS {
                    let counts = |table: &Table| {
                        table.row("voice", &version).at(at(tick)).map(|cell| cell.counts)
                    };
                    let sum = parts.iter().filter_map(counts).reduce(|sum, part| sum + part);
                    prop_assert_eq!(sum, counts(&whole), "{} {} {}", label, value, tick);
                }
            }
        }
    }
}
