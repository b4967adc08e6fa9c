//! The figures of a candidate, a rollback and a version's past, as the view has them.

use std::sync::Arc;

use crate::domain::evidence::growth_log10;
use crate::domain::history::{FleetHistory, Past, Rollout};
use crate::domain::observation::Observation;
use crate::domain::rollback::{Awaiting, State};
use crate::domain::share::{Share, Tolerance};
use crate::domain::thinned::Thinned;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::judge::{Judgement, rule_name};
use crate::evaluate::observed::{GroupWatch, RuleWatch};
use crate::ledger::record::rfc3339;
use crate::ports::view::{
    NarrowView, PastView, PointView, RecentView, RolloutView, ValueView, VerdictView,
};
use crate::rules::{Group, SessionRule};

use super::super::fleet::Fleet;

/// Sessions of the candidate by which it is told how things go at present.
const RECENT_SESSIONS: u64 = 100;

pub(super) fn awaiting(state: State) -> Option<&'static str> {
    match state {
        State::Stuck(Awaiting::Capacity) => Some("capacity"),
        State::Stuck(Awaiting::Emptiness { .. }) => Some("emptiness"),
        State::Chosen
        | State::Gated
        | State::Starting
        | State::Capable
        | State::Draining
        | State::Recorded
        | State::Confirming { .. }
        | State::Clean
        | State::Abandoned => None,
    }
}

pub(super) fn past(history: &FleetHistory) -> Vec<PastView> {
    let view = |(version, past): (&Version, &Past)| PastView {
        version: version.to_string(),
        outcome: past.outcome.name().to_owned(),
        at: rfc3339(past.at),
        seq: past.seq,
    };
    history.past().iter().map(view).collect()
}

/// Up to when every group has counted a candidate's ticks; none if one has not begun.
pub(super) fn counted_until(fleet: &Fleet, rollout: &Rollout) -> Option<Timestamp> {
    let watch = fleet.observed.watches.get(&rollout.candidate)?;
    let counted = |group: &GroupWatch| group.rules.as_ref().map(|_| group.cursor);
    watch.groups.values().map(counted).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// The last ticks of an observation, and where they lead.
fn recent(observation: &Observation) -> RecentView {
    let (ticks, sum) = observation.recent(RECENT_SESSIONS);
    let growth = growth_log10(observation.settings(), &sum);
    RecentView {
        ticks: ticks as u64,
        started: sum.candidate.started,
        failed: sum.candidate.failed,
        control_started: sum.control.started,
        control_failed: sum.control.failed,
        baseline_growth_log10: growth.baseline_log10,
        ceiling_growth_log10: growth.ceiling_log10,
    }
}

pub(super) fn verdicts(
    fleet: &Fleet,
    rollout: &Rollout,
    groups: &[Group],
    threshold_log10: f64,
) -> Vec<VerdictView> {
    let watch = fleet.observed.watches.get(&rollout.candidate);
    let watched = watch.into_iter().flat_map(|watch| &watch.groups);
    let rules = watched.filter_map(|(index, watch)| {
        let group = groups.get(*index)?;
        let rules = group.sessions.iter().zip(watch.rules.as_ref()?).enumerate();
        Some(rules.map(move |(number, (rule, seen))| {
            let course = watch.courses.get(number).map(Thinned::points).unwrap_or_default();
            verdict(group, rule, seen, threshold_log10, course)
        }))
    });
    rules.flatten().collect()
}

/// What one session rule says, and how it came to it.
fn verdict(
    group: &Group,
    rule: &SessionRule,
    watch: &RuleWatch,
    threshold_log10: f64,
    course: Arc<Vec<PointView>>,
) -> VerdictView {
    let (observation, total) = (&watch.observation, watch.observation.total());
    VerdictView {
        rule: rule_name(group, &rule.name),
        verdict: observation.verdict(threshold_log10).name().to_owned(),
        baseline_log10: observation.evidence().baseline_log10,
        ceiling_log10: observation.evidence().ceiling_log10,
        threshold_log10,
        control: observation.control().name().to_owned(),
        dispersion: observation.settings().dispersion,
        started: total.candidate.started,
        failed: total.candidate.failed,
        control_started: total.control.started,
        control_failed: total.control.failed,
        dropped: watch.dropped,
        tolerance: observation.settings().tolerance.map(Tolerance::get),
        ceiling: observation.settings().ceiling.map(Share::get),
        interval_seconds: group.interval.as_secs_f64(),
        ticks: observation.ticks().len() as u64,
        silent_ticks: observation.silent_ticks(),
        recent: recent(observation),
        course,
    }
}

/// The slice that its regression sits in, and what is said of the rest.
pub(super) fn narrow(
    fleet: &Fleet,
    rollout: &Rollout,
    groups: &[Group],
    threshold_log10: f64,
) -> Option<NarrowView> {
    let narrow = fleet.observed.watches.get(&rollout.candidate)?.narrow.as_ref()?;
    let (group, standout) = (groups.get(narrow.rule.0)?, &narrow.standout);
    let rule = group.sessions.get(narrow.rule.1)?;
    Some(NarrowView {
        label: standout.slice.label.clone(),
        value: standout.slice.value.clone(),
        excess_share: standout.excess_share(),
        traffic_share: standout.traffic_share(),
        rest: verdict(group, rule, &narrow.rest, threshold_log10, Arc::default()),
    })
}

/// A candidate as it is judged when its rollout ends, the tick that is not over included: kept to
/// be shown afterwards.
pub(in super::super) fn judged(
    fleet: &Fleet,
    rollout: &Rollout,
    groups: &[Group],
    judgement: &Judgement,
    threshold_log10: f64,
    at: Timestamp,
) -> RolloutView {
    let watches = fleet.observed.watches.get(&rollout.candidate);
    let verdicts = judgement.rules.iter().filter_map(|(index, number, seen)| {
        let group = groups.get(*index)?;
        let watch = watches.and_then(|watch| watch.groups.get(index));
        let mut course = watch.and_then(|watch| watch.courses.get(*number)).cloned();
        let course = course.get_or_insert_default();
        course.push(seen.point(at));
        Some(verdict(group, group.sessions.get(*number)?, seen, threshold_log10, course.points()))
    });
    RolloutView {
        candidate: rollout.candidate.to_string(),
        baseline: rollout.baseline.as_ref().map(ToString::to_string),
        started_at: rfc3339(rollout.started_at),
        observe_until: rfc3339(rollout.observe_until),
        verdicts: verdicts.collect(),
        values: values(fleet, rollout, groups),
        ..RolloutView::default()
    }
}

pub(super) fn values(fleet: &Fleet, rollout: &Rollout, groups: &[Group]) -> Vec<ValueView> {
    let watch = fleet.observed.watches.get(&rollout.candidate);
    let watched = watch.into_iter().flat_map(|watch| &watch.groups);
    let rules = watched.filter_map(|(index, watch)| {
        let group = groups.get(*index)?;
        Some(group.values.iter().zip(&watch.values).map(move |(rule, seen)| ValueView {
            rule: rule_name(group, &rule.name),
            verdict: seen.verdict().name().to_owned(),
            value: seen.value(),
            escalate_above: rule.escalate_above,
            rollback_above: rule.rollback_above,
            for_seconds: rule.hold_for.as_secs_f64(),
            over_since: seen.over_since().map(rfc3339),
        }))
    });
    rules.flatten().collect()
}
