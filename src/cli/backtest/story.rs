//! What would have become of one rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::counts::{Counts, Tick};
use crate::domain::decision::Decision;
use crate::domain::evidence::Evidence;
use crate::domain::history::Rollout;
use crate::domain::narrow::Slice;
use crate::domain::time::Timestamp;
use crate::evaluate::judge::Judgement;
use crate::evaluate::observed::RuleWatch;
use crate::evaluate::slices::Narrow;
use crate::rules::Group;

/// One rollout.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) fleet: String,
    pub(super) rollout: Rollout,
    /// Every change of what would have been said.
    pub(super) told: Vec<Told>,
    pub(super) end: End,
    /// By group and rule.
    pub(super) traces: BTreeMap<(usize, usize), Trace>,
    /// What its sessions did after it would have been rolled back.
    pub(super) after: After,
    /// It served on as the next version's baseline.
    pub(super) kept: bool,
}

/// How a rollout would have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Still under observation.
    Open,
    RolledBack {
        at: Timestamp,
    },
    Promoted {
        at: Timestamp,
    },
    /// Its workers left before anything was decided.
    Gone {
        at: Timestamp,
    },
}

/// Something said of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) at: Timestamp,
    pub(super) decision: &'static str,
    /// Why, with the figures it rests on; empty for nothing to say.
    pub(super) text: String,
    /// The slice that is to be mended.
    pub(super) slice: Option<Slice>,
    /// Without the figures, which change with every look.
    reason: &'static str,
}

/// One rule watching the rollout.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// `group/rule`.
    pub(super) name: String,
    pub(super) threshold_log10: f64,
    pub(super) interval: Duration,
    pub(super) points: Vec<(Timestamp, Evidence)>,
    pub(super) ticks: Vec<Tick>,
    pub(super) dropped: u64,
    pub(super) dispersion: f64,
}

/// The candidate's sessions after the decision.
#[derive(Debug, Default)]
pub(super) struct After {
    pub(super) started: u64,
    pub(super) failed: u64,
    pub(super) dropped: u64,
    /// The share that the control failed; none: there was none to compare with.
    pub(super) control_ratio: Option<f64>,
    pub(super) last: Option<Timestamp>,
}

impl After {
    pub(super) fn add(&mut self, at: Timestamp, counts: Counts, dropped: u64) {
        self.started += counts.started;
        self.failed += counts.failed;
        self.dropped += dropped;
        self.last = Some(at);
    }

    /// Sessions that would not have failed on the version before; never below 0.
    pub(super) fn saved(&self) -> u64 {
        let expected = self.control_ratio.unwrap_or(0.0) * self.started as f64;
        let lost = (self.failed + self.dropped) as f64;
        whole((lost - expected).max(0.0))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

impl Story {
    pub(super) fn new(fleet: &str, rollout: &Rollout) -> Self {
        Self {
            fleet: fleet.to_owned(),
            rollout: rollout.clone(),
            told: Vec::new(),
            end: End::Open,
            traces: BTreeMap::new(),
            after: After::default(),
            kept: false,
        }
    }

    /// Remembers what the rules say now.
    pub(super) fn follow(
        &mut self,
        groups: &[Group],
        judgement: &Judgement,
        threshold_log10: f64,
        at: Timestamp,
    ) {
        for (group, rule, watch) in &judgement.rules {
            let trace = self.traces.entry((*group, *rule)).or_default();
            let ticks = watch.observation.ticks();
            if ticks.len() == trace.ticks.len() {
                continue;
            }
            if trace.name.is_empty()
                && let Some(group) = groups.get(*group)
            {
                trace.name = name(group, *rule);
                trace.interval = group.interval;
                trace.threshold_log10 = threshold_log10;
                trace.dispersion = watch.observation.settings().dispersion;
            }
            trace.ticks.extend(ticks.iter().skip(trace.ticks.len()));
            trace.points.push((at, watch.observation.evidence()));
            trace.dropped = watch.dropped;
        }
    }

    /// Remembers what is said, if it is something else than before.
    pub(super) fn tell(&mut self, told: Told) {
        let said = |told: &Told| (told.decision, told.reason, told.slice.clone());
        let before = self.told.last().map(said);
        if before.map_or(told.decision != "wait", |before| before != said(&told)) {
            self.told.push(told);
        }
    }

    /// It would be rolled back now; returns the rule whose sessions are counted from now on.
    pub(super) fn convict(&mut self, judgement: &Judgement, at: Timestamp) -> (usize, usize) {
        self.end = End::RolledBack { at };
        let Some((group, rule, watch)) = strongest(judgement) else { return (0, 0) };
        let control = watch.observation.total().control;
        if control.started > 0 {
            self.after.control_ratio = Some(control.failed as f64 / control.started as f64);
        }
        (*group, *rule)
    }

    /// Candidate and control until the decision, summed, by the rule with the most evidence.
    pub(super) fn totals(&self) -> Tick {
        let last = |trace: &Trace| {
            let strongest = trace.points.last().and_then(|(_, e)| e.strongest_log10());
            strongest.unwrap_or(f64::NEG_INFINITY)
        };
        let strongest = self.traces.values().max_by(|a, b| last(a).total_cmp(&last(b)));
        let mut sum = Tick::default();
        for tick in strongest.iter().flat_map(|trace| &trace.ticks) {
            sum.candidate += tick.candidate;
            sum.control += tick.control;
        }
        sum
    }

    /// Calls that the candidate's dead workers took with them until the decision.
    pub(super) fn dropped(&self) -> u64 {
        self.traces.values().map(|trace| trace.dropped).max().unwrap_or(0)
    }
}

fn name(group: &Group, rule: usize) -> String {
    let rule = group.sessions.get(rule).map_or("", |rule| rule.name.as_str());
    format!("{}/{rule}", group.name)
}

fn strongest(judgement: &Judgement) -> Option<&(usize, usize, RuleWatch)> {
    let strength = |watch: &RuleWatch| {
        watch.observation.evidence().strongest_log10().unwrap_or(f64::NEG_INFINITY)
    };
    judgement.rules.iter().max_by(|a, b| strength(&a.2).total_cmp(&strength(&b.2)))
}

impl Told {
    pub(super) fn of(
        decision: &Decision,
        judgement: &Judgement,
        groups: &[Group],
        at: Timestamp,
    ) -> Self {
        let (reason, rule) = match decision {
            Decision::Wait => ("", None),
            Decision::Promote => ("observed, and nothing speaks against it", None),
            Decision::RollBack(ground)
            | Decision::FixForward(ground, _)
            | Decision::Escalate(ground)
            | Decision::Hold(ground) => (ground.reason, ground.rule.as_deref()),
        };
        let mut text = reason.to_owned();
        if let Some(rule) = rule {
            text = format!("{text} ({rule})");
        }
        let named = |(group, place, watch): &(usize, usize, RuleWatch)| {
            let name = groups.get(*group).map(|group| name(group, *place));
            (name.as_deref() == rule).then(|| figures(watch))
        };
        if let Some(figures) = judgement.rules.iter().find_map(named) {
            text = format!("{text}: {figures}");
        }
        let narrow = judgement.narrow.as_ref();
        let narrow = narrow.filter(|_| matches!(decision, Decision::FixForward(..)));
        if let Some(Narrow { standout, rest, .. }) = narrow {
            text = format!("{text}; {standout}, the rest: {}", figures(rest));
        }
        let slice = narrow.map(|narrow| narrow.standout.slice.clone());
        Self { at, decision: decision.name(), text, slice, reason }
    }
}

fn figures(watch: &RuleWatch) -> String {
    let total = watch.observation.total();
    let side = |c: &Counts| super::figures::ratio(c.failed, c.started);
    let strongest = watch.observation.evidence().strongest_log10().unwrap_or(0.0);
    format!(
        "{} failed, of its control {}; evidence 10^{strongest:.1}",
        side(&total.candidate),
        side(&total.control)
    )
}

/// A version's sessions over the whole time, in bins that widen as they must.
#[derive(Debug, Default)]
pub(super) struct Series {
    bin: Duration,
    bins: BTreeMap<Timestamp, Counts>,
}

/// Bins of one curve at most.
const BINS_MAX: usize = 400;

impl Series {
    pub(super) fn add(&mut self, at: Timestamp, counts: Counts) {
        if self.bin.is_zero() {
            self.bin = Duration::from_mins(1);
        }
        *self.bins.entry(at.align_down(self.bin)).or_default() += counts;
        if self.bins.len() > BINS_MAX {
            self.bin *= 2;
            let narrow = std::mem::take(&mut self.bins);
            for (at, counts) in narrow {
                *self.bins.entry(at.align_down(self.bin)).or_default() += counts;
            }
        }
    }

    /// The failure ratio at the end of each bin with sessions.
    pub(super) fn ratios(&self) -> Vec<(Timestamp, f64)> {
        let busy = self.bins.iter().filter(|(_, counts)| counts.started > 0);
        busy.map(|(at, c)| (*at + self.bin, c.failed as f64 / c.started as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_widens_its_bins_and_loses_no_session() {
        let mut series = Series::default();
        for tick in 0..20_000 {
            let at = Timestamp::from_millis(tick * 15_000);
            series.add(at, Counts { started: 2, failed: 1, live: 0.0 });
        }
        assert!(series.bins.len() <= BINS_MAX && series.bins.len() > BINS_MAX / 3);
        assert_eq!(series.bins.values().map(|counts| counts.started).sum::<u64>(), 40_000);
        assert!(series.ratios().iter().all(|(_, ratio)| (ratio - 0.5).abs() < 1e-12));
    }

    #[test]
    fn what_the_control_would_have_failed_too_is_not_saved() {
        let mut after = After { control_ratio: Some(0.02), ..After::default() };
        after.add(Timestamp::from_millis(0), Counts { started: 1000, failed: 120, live: 0.0 }, 5);
        assert_eq!(after.saved(), 105);
        after.control_ratio = Some(0.5);
        assert_eq!(after.saved(), 0);
    }
}
