//! What is known of one fleet: its history, what is seen of it now, and the rollouts watched.
//!
//! **Invariant:** what is not in [`FleetHistory`] can be seen again, from Prometheus, after a
//! restart.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::FleetConfig;
use crate::domain::counts::Counts;
use crate::domain::decision::Situation;
use crate::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use crate::domain::history::{FleetHistory, Happening, Rollout};
use crate::domain::observation::Observation;
use crate::domain::thinned::Thinned;
use crate::domain::time::Timestamp;
use crate::domain::value::{ValueLimits, ValueObservation};
use crate::domain::version::Version;
use crate::ports::view::PointView;
use crate::rules::{Group, SessionRule, ValueRule};

use super::answers::{Cell, Row, Table, Values, VersionSeen};
use super::judge::Judgement;
use super::plan::Span;
use super::slices::Narrow;

/// Looks in a row without any trace of a candidate after which its rollout is over.
pub(crate) const ABSENT_LOOKS_MAX: u32 = 20;

/// One fleet, as far as evidence and decisions go.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// What the ledger remembers.
    pub(crate) history: FleetHistory,
    /// What the last look saw.
    pub(crate) seen: BTreeMap<Version, VersionSeen>,
    /// Whether there was a look since the start.
    pub(crate) looked: bool,
    /// Rollouts being watched, by candidate.
    pub(crate) watches: BTreeMap<Version, Watch>,
}

/// A rollout being watched by all rules of all groups.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// By index of the entry's groups.
    pub(crate) groups: BTreeMap<usize, GroupWatch>,
    /// It is convicted, and may be so by one slice of its sessions.
    pub(crate) slices_wanted: bool,
    /// The slice that its regression sits in, as of the last look.
    pub(crate) narrow: Option<Narrow>,
    /// Looks in a row without a trace of the candidate.
    absent_looks: u32,
}

/// A rollout being watched by the rules of one group.
#[derive(Debug)]
pub(crate) struct GroupWatch {
    /// The end of the last tick taken.
    pub(crate) cursor: Timestamp,
    /// In the order of the group's session rules; `None` until the history was read.
    pub(crate) rules: Option<Vec<RuleWatch>>,
    /// How each session rule came to where it is, for people to look at.
    pub(crate) courses: Vec<Thinned<PointView>>,
    /// The end of the last tick that the value rules have taken.
    pub(crate) values_cursor: Timestamp,
    /// In the order of the group's value rules.
    pub(crate) values: Vec<ValueObservation>,
}

/// One rule watching one candidate.
#[derive(Clone, Debug)]
pub(crate) struct RuleWatch {
    pub(crate) observation: Observation,
    /// Sessions that dead workers of the candidate took with them.
    pub(crate) dropped: u64,
}

impl RuleWatch {
    fn new(
        rule: &SessionRule,
        table: &Table,
        span: Span,
        fleet: &str,
        rollout: &Rollout,
        (ticks, interval): (u32, Duration),
    ) -> Self {
        let baseline = rollout.baseline.as_ref().map(|baseline| table.row(fleet, baseline));
        let chunk = |end| {
            let counts = baseline.and_then(|row: Row<'_>| row.at(end)).unwrap_or_default().counts;
            as_ticks(counts, span.window, interval)
        };
        // A baseline without any sample in that time has no past to compare with.
        let known = baseline.is_some_and(|row| span.ends().any(|end| row.at(end).is_some()));
        let past: Vec<Counts> = if known { span.ends().map(chunk).collect() } else { Vec::new() };
        let observation = Observation::new(settings(rule, ticks), rule.dispersion.is_none(), past);
        Self { observation, dropped: 0 }
    }

    /// What it has counted until `end`, when the last tick ended.
    pub(crate) fn point(&self, end: Timestamp) -> PointView {
        let (total, evidence) = (self.observation.total(), self.observation.evidence());
        PointView {
            at_seconds: end.as_millis() as f64 / 1000.0,
            started: total.candidate.started,
            failed: total.candidate.failed,
            control_started: total.control.started,
            control_failed: total.control.failed,
            baseline_log10: evidence.baseline_log10,
            ceiling_log10: evidence.ceiling_log10,
        }
    }

    fn take(&mut self, candidate: Option<Cell>, baseline: Option<Cell>) {
        self.dropped += candidate.map_or(0, |cell| cell.dropped);
        let counts = |cell: Option<Cell>| cell.map(|cell| cell.counts);
        self.observation.observe(counts(candidate), counts(baseline));
    }
}

impl GroupWatch {
    fn new(group: &Group, rollout: &Rollout) -> Self {
        let start = rollout.started_at.align_down(group.interval);
        let observation = |rule: &ValueRule| {
            ValueObservation::new(ValueLimits {
                escalate_above: rule.escalate_above,
                rollback_above: rule.rollback_above,
                hold_for: rule.hold_for,
                interval: group.interval,
            })
        };
        let values = group.values.iter().map(observation).collect();
        Self { cursor: start, rules: None, courses: Vec::new(), values_cursor: start, values }
    }
}

/// What a rule asks of its detector.
pub(super) fn settings(rule: &SessionRule, observation_ticks: u32) -> DetectorSettings {
    DetectorSettings {
        observation_ticks,
        tolerance: rule.tolerance,
        ceiling: rule.ceiling,
        dispersion: rule.dispersion.unwrap_or(1.0),
        pool_sessions: POOL_SESSIONS,
    }
}

/// A chunk of history beside a tick of an observation: as if the ticks in it were pooled. Live
/// sessions, a mean over the chunk, are at risk for all of its length.
pub(super) fn as_ticks(chunk: Counts, window: Duration, interval: Duration) -> Counts {
    let ticks = window.as_secs_f64() / interval.as_secs_f64().max(1e-3);
    Counts { live: chunk.live * ticks, ..chunk }
}

/// Ticks in an observation.
pub(crate) fn observation_ticks(observe_for: Duration, interval: Duration) -> u32 {
    let ticks = observe_for.as_millis() / interval.as_millis().max(1);
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

impl Observed {
    /// What is new in `seen`, as happenings to record. `interval` is the entry's shortest tick.
    pub(crate) fn discover(
        &self,
        config: &FleetConfig,
        seen: &BTreeMap<Version, VersionSeen>,
        at: Timestamp,
        interval: Duration,
    ) -> Discovery {
        let alive: Vec<&Version> = seen
            .iter()
            .filter(|(_, version)| !version.workers.is_empty())
            .map(|(version, _)| version)
            .filter(|version| !self.history.denied().contains(*version))
            .collect();
        let mut found = Discovery::default();
        let Some(last_good) = self.history.last_good() else {
            match first_of(&alive, seen) {
                Some(version) => {
                    found.happenings.push(Happening::BaselineAdopted { version: version.clone() });
                }
                None if alive.is_empty() => {}
                None => {
                    found.unclear =
                        Some("several versions appeared at once, and none is known as good");
                }
            }
            return found;
        };
        for version in alive {
            // Discovered while the clock was ahead: its observation would begin some time later.
            if self.history.rollouts().get(version).is_some_and(|r| r.started_at > at) {
                found.happenings.push(Happening::RolloutEnded { candidate: version.clone() });
                continue;
            }
            let known = version == last_good || self.history.rollouts().contains_key(version);
            if known || self.is_retiring(version) {
                continue;
            }
            let started_at = at.align_down(interval) - interval;
            let baseline_workers = seen.get(last_good).map_or(0, |good| good.workers.len());
            found.happenings.push(Happening::RolloutStarted {
                rollout: Rollout {
                    candidate: version.clone(),
                    baseline: Some(last_good.clone()),
                    started_at,
                    observe_until: started_at + config.observe_for,
                    baseline_workers: u32::try_from(baseline_workers).unwrap_or(u32::MAX),
                },
            });
        }
        found
    }

    /// A version that was good before and has not been away since: it finishes its sessions.
    fn is_retiring(&self, version: &Version) -> bool {
        let was_good = self.history.was_promoted(version);
        let was_alive = self.seen.get(version).is_some_and(|seen| !seen.workers.is_empty());
        was_good && (was_alive || !self.looked)
    }

    /// Forgets what was counted past `now`: the clock was put back, and Prometheus is asked again.
    pub(crate) fn put_back(&mut self, now: Timestamp) {
        let ahead = |group: &GroupWatch| group.cursor.max(group.values_cursor) > now;
        self.watches.retain(|_, watch| !watch.groups.values().any(ahead));
    }

    /// Begins watching each rollout that is not watched yet.
    pub(crate) fn begin_watches(&mut self, groups: &[Group]) {
        let rollouts = self.history.rollouts();
        self.watches.retain(|candidate, _| rollouts.contains_key(candidate));
        for (candidate, rollout) in rollouts {
            let watch = self.watches.entry(candidate.clone()).or_default();
            for (index, group) in groups.iter().enumerate() {
                watch.groups.entry(index).or_insert_with(|| GroupWatch::new(group, rollout));
            }
        }
    }

    /// Compares the rollouts that began at the end of `span` with their past.
    pub(crate) fn read_history(
        &mut self,
        name: &str,
        group: (usize, &Group),
        observe_for: Duration,
        span: Span,
        tables: &[Table],
    ) {
        let ticks = observation_ticks(observe_for, group.1.interval);
        for (candidate, watch) in &mut self.watches {
            let Some(rollout) = self.history.rollouts().get(candidate) else { continue };
            let Some(watch) = watch.groups.get_mut(&group.0) else { continue };
            if watch.rules.is_some() || watch.cursor != span.last {
                continue;
            }
            let rules = group.1.sessions.iter().zip(tables);
            let ticks = (ticks, group.1.interval);
            let rules =
                rules.map(|(rule, table)| RuleWatch::new(rule, table, span, name, rollout, ticks));
            watch.rules = Some(rules.collect());
        }
    }

    /// Takes the ticks that are over.
    pub(crate) fn take_ticks(&mut self, name: &str, group: usize, span: Span, tables: &[Table]) {
        let rollouts = self.history.rollouts();
        for (candidate, watch) in &mut self.watches {
            let Some(rollout) = rollouts.get(candidate) else { continue };
            let Some(watch) = watch.groups.get_mut(&group) else { continue };
            let Some(rules) = &mut watch.rules else { continue };
            for end in span.ends().filter(|end| *end > watch.cursor) {
                take_tick(rules, tables, name, rollout, end);
                watch.courses.resize_with(rules.len(), Thinned::default);
                for (course, rule) in watch.courses.iter_mut().zip(&*rules) {
                    course.push(rule.point(end));
                }
            }
            watch.cursor = watch.cursor.max(span.last);
        }
    }

    /// Takes the value rules' ticks.
    pub(crate) fn take_values(&mut self, name: &str, group: usize, span: Span, read: &[Values]) {
        for (candidate, watch) in &mut self.watches {
            let Some(watch) = watch.groups.get_mut(&group) else { continue };
            for end in span.ends().filter(|end| *end > watch.values_cursor) {
                for (observation, values) in watch.values.iter_mut().zip(read) {
                    observation.observe(end, values.at(name, candidate, end));
                }
            }
            watch.values_cursor = watch.values_cursor.max(span.last);
        }
    }

    /// What the rules would say if the tick that is not over ended now.
    pub(crate) fn look_ahead(
        &self,
        name: &str,
        candidate: &Version,
        group: usize,
        span: Span,
        tables: &[Table],
    ) -> Option<Vec<RuleWatch>> {
        let rollout = self.history.rollouts().get(candidate)?;
        let watch = self.watches.get(candidate)?.groups.get(&group)?;
        let mut rules = watch.rules.clone()?;
        // Only where the unfinished tick follows the last one taken; else one would be left out.
        (span.last - span.window == watch.cursor).then(|| {
            take_tick(&mut rules, tables, name, rollout, span.last);
            rules
        })
    }

    /// Whether a candidate regresses for the first time, by proof or by doubt at its end that is
    /// reason enough: what the breaker counts.
    pub(crate) fn regresses(
        &self,
        config: &FleetConfig,
        rollout: &Rollout,
        judgement: &Judgement,
        now: Timestamp,
    ) -> bool {
        let unsure = || self.situation(config, rollout, judgement, now).rolls_back_unsure();
        !self.history.has_regressed(&rollout.candidate) && (judgement.has_regressed() || unsure())
    }

    /// What is known of a candidate at `now`, when a decision is due.
    pub(crate) fn situation(
        &self,
        config: &FleetConfig,
        rollout: &Rollout,
        judgement: &Judgement,
        now: Timestamp,
    ) -> Situation {
        // How far the observation has come never goes past its end: limits and pauses go by `now`.
        let counted = judgement.counted_until.min(now);
        let rollbacks = self.history.decided(now, config.limits.per);
        Situation {
            sessions: judgement.sessions.clone(),
            values: judgement.worst_value.clone(),
            breadth: judgement.breadth.clone(),
            observation_over: judgement.complete && counted >= rollout.observe_until,
            has_sessions: judgement.has_sessions,
            has_last_good: self.history.last_good_except(Some(&rollout.candidate)).is_some(),
            paused: self.history.paused(now).is_some(),
            rolling_back: self.history.rollback().is_some(),
            one_of_many: self.history.is_held_back(&rollout.candidate),
            within_limits: rollbacks < usize::try_from(config.limits.rollbacks).unwrap_or(0),
            mode: config.mode,
            roll_back_when_unsure: config.when_unsure == crate::config::WhenUnsure::Rollback,
        }
    }

    /// Counts the looks without a trace of each candidate; returns those gone for too long.
    pub(crate) fn count_absent(&mut self, seen: &BTreeMap<Version, VersionSeen>) -> Vec<Version> {
        let trace = |version: &VersionSeen| {
            !version.workers.is_empty() || version.unreachable > 0 || version.live > 0.0
        };
        let mut gone = Vec::new();
        for (candidate, watch) in &mut self.watches {
            watch.absent_looks =
                if seen.get(candidate).is_some_and(trace) { 0 } else { watch.absent_looks + 1 };
            if watch.absent_looks > ABSENT_LOOKS_MAX
                && self.history.rollouts().contains_key(candidate)
            {
                gone.push(candidate.clone());
            }
        }
        gone
    }
}

fn take_tick(
    rules: &mut [RuleWatch],
    tables: &[Table],
    fleet: &str,
    rollout: &Rollout,
    end: Timestamp,
) {
    for (rule, table) in rules.iter_mut().zip(tables) {
        let candidate = table.row(fleet, &rollout.candidate).at(end);
        let baseline = rollout.baseline.as_ref();
        let baseline = baseline.and_then(|baseline| table.row(fleet, baseline).at(end));
        rule.take(candidate, baseline);
    }
}

/// What a look brought to light.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    /// To be recorded.
    pub(crate) happenings: Vec<Happening>,
    /// Why no version can be taken as good.
    pub(crate) unclear: Option<&'static str>,
}

/// The version that carried the fleet before the others: the only one alive, or the one that the
/// lineage saw strictly first.
fn first_of<'a>(
    alive: &[&'a Version],
    seen: &BTreeMap<Version, VersionSeen>,
) -> Option<&'a Version> {
    if let [only] = alive {
        return Some(only);
    }
    let first_seen = |version: &&Version| seen.get(*version).and_then(|seen| seen.first_seen);
    let mut times: Vec<(Timestamp, &Version)> = alive
        .iter()
        .map(|version| Some((first_seen(version)?, *version)))
        .collect::<Option<_>>()?;
    times.sort_unstable();
    match times.as_slice() {
        [first, second, ..] if first.0 < second.0 => Some(first.1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn seen(first: Option<i64>) -> VersionSeen {
        VersionSeen {
            workers: vec!["w".to_owned()],
            first_seen: first.map(Timestamp::from_millis),
            ..VersionSeen::default()
        }
    }

    #[test]
    fn live_sessions_of_the_past_weigh_by_how_long_its_chunks_are() {
        let chunk = Counts { started: 90, failed: 2, live: 180.0 };
        let (tick, window) = (Duration::from_secs(15), Duration::from_secs(90));
        assert_eq!(as_ticks(chunk, tick, tick), chunk);
        assert_eq!(as_ticks(chunk, window, tick), Counts { live: 1080.0, ..chunk });
    }

    #[test]
    fn the_version_seen_strictly_first_carried_the_fleet() {
        type Case = (&'static str, &'static [(&'static str, Option<i64>)], Option<&'static str>);
        #[rustfmt::skip]
        let cases: &[Case] = &[
            ("the only one",          &[("v1", None)],                     Some("v1")),
            ("the earlier one",       &[("v1", Some(9)), ("v0", Some(5))], Some("v0")),
            ("both at the same time", &[("v1", Some(5)), ("v2", Some(5))], None),
            ("one of unknown age",    &[("v1", Some(5)), ("v2", None)],    None),
        ];
        for (name, versions, want) in cases {
            let all: BTreeMap<Version, VersionSeen> =
                versions.iter().map(|(version, first)| (v(version), seen(*first))).collect();
            let alive: Vec<&Version> = all.keys().collect();
            assert_eq!(first_of(&alive, &all).map(Version::as_str), *want, "{name}");
        }
    }
}
