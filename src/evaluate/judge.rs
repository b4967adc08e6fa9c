//! What all rules say of one candidate.

use std::collections::BTreeMap;

use crate::domain::decision::Finding;
use crate::domain::history::Rollout;
use crate::domain::narrow::Breadth;
use crate::domain::share::Share;
use crate::domain::time::Timestamp;
use crate::domain::value::{ValueObservation, ValueVerdict};
use crate::domain::verdict::Verdict;
use crate::domain::version::Version;
use crate::rules::{Group, SessionRule};

use super::answers::Table;
use super::observed::{Observed, RuleWatch};
use super::plan::Span;
use super::slices::Narrow;

/// What the rules of a group would say if the tick that is not over ended now, by fleet, candidate
/// and group.
pub(crate) type Ahead = BTreeMap<(String, Version, usize), Vec<RuleWatch>>;

/// What all rules say of one candidate.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// The worst over the session rules.
    pub(crate) sessions: Finding<Verdict>,
    /// The worst over the value rules.
    pub(crate) worst_value: Finding<ValueVerdict>,
    /// Of what the session rules convict: wide, unless [`super::slices::examine`] finds more.
    pub(crate) breadth: Breadth,
    /// The slice that it sits in.
    pub(crate) narrow: Option<Narrow>,
    /// The candidate has started sessions, or shown values where no rule counts sessions.
    pub(crate) has_sessions: bool,
    /// Session rules, by group and place in it.
    pub(crate) rules: Vec<(usize, usize, RuleWatch)>,
    /// Value rules, by group and place in it.
    pub(crate) values: Vec<(usize, usize, ValueObservation)>,
    /// Up to when all groups have counted.
    pub(crate) counted_until: Timestamp,
    /// Whether every group has been compared with the past.
    pub(crate) complete: bool,
}

/// `log10(1/α)` of one test of this entry: its false rollback rate, shared by all its tests.
pub(crate) fn threshold_log10(rate: Share, groups: &[Group]) -> f64 {
    let of_rule = |rule: &SessionRule| {
        usize::from(rule.tolerance.is_some()) + usize::from(rule.ceiling.is_some())
    };
    let tests: usize = groups.iter().flat_map(|group| &group.sessions).map(of_rule).sum();
    (tests.max(1) as f64 / rate.get()).log10()
}

/// Adds what the rules of one group would say of each candidate.
pub(crate) fn look_ahead(
    fleet: &Observed,
    name: &str,
    group: usize,
    span: Span,
    tables: &[Table],
    ahead: &mut Ahead,
) {
    for candidate in fleet.watches.keys() {
        if let Some(rules) = fleet.look_ahead(name, candidate, group, span, tables) {
            ahead.insert((name.to_owned(), candidate.clone(), group), rules);
        }
    }
}

impl Judgement {
    /// Whether a rule's evidence, or value, has passed its bound.
    pub(crate) fn has_regressed(&self) -> bool {
        self.sessions.verdict == Verdict::Regressed
            || self.worst_value.verdict == ValueVerdict::Regressed
    }

    /// The name of the state that the rollout is in: the worse kind of rule's word.
    pub(crate) fn state(&self) -> &'static str {
        match (self.sessions.verdict, self.worst_value.verdict) {
            (Verdict::Regressed, _) if self.narrow.is_some() => "fix_forward",
            (Verdict::Regressed, _) => Verdict::Regressed.name(),
            (_, value @ (ValueVerdict::Regressed | ValueVerdict::Over))
            | (Verdict::Healthy, value) => value.name(),
            (sessions, _) => sessions.name(),
        }
    }
}

/// What people and the record call a rule.
pub(crate) fn rule_name(group: &Group, rule: &str) -> String {
    format!("{}/{rule}", group.name)
}

/// The worst verdict, and the first rule that says so; none for one that is healthy.
fn worst<V: Ord + Copy>(
    healthy: V,
    verdicts: impl Iterator<Item = (V, (usize, usize))>,
    name: impl Fn((usize, usize)) -> Option<String>,
) -> Finding<V> {
    let worse = |worst: (V, Option<_>), (verdict, place)| {
        if verdict > worst.0 { (verdict, Some(place)) } else { worst }
    };
    let (verdict, place) = verdicts.fold((healthy, None), worse);
    Finding { verdict, rule: place.and_then(name) }
}

/// What all rules say of one candidate, the unfinished tick included where there was a look at it.
pub(crate) fn judge(
    fleet: &Observed,
    name: &str,
    groups: &[Group],
    rollout: &Rollout,
    threshold: f64,
    ahead: &mut Ahead,
) -> Judgement {
    let (mut rules, mut values) = (Vec::new(), Vec::new());
    let (mut counted_until, mut complete) = (rollout.observe_until, true);
    let watches = fleet.watches.get(&rollout.candidate).map(|watch| &watch.groups);
    for (index, watch) in watches.into_iter().flatten() {
        values.extend((0..).zip(&watch.values).map(|(place, seen)| (*index, place, seen.clone())));
        let early = ahead.remove(&(name.to_owned(), rollout.candidate.clone(), *index));
        let Some(these) = early.or_else(|| watch.rules.clone()) else {
            complete = false;
            continue;
        };
        counted_until = counted_until.min(watch.cursor);
        complete &= these.iter().all(|rule| rule.observation.was_seen());
        rules.extend((0..).zip(these).map(|(place, rule)| (*index, place, rule)));
    }
    let of_session = |(group, place): (usize, usize)| {
        let group = groups.get(group)?;
        Some(rule_name(group, &group.sessions.get(place)?.name))
    };
    let of_value = |(group, place): (usize, usize)| {
        let group = groups.get(group)?;
        Some(rule_name(group, &group.values.get(place)?.name))
    };
    let verdicts = rules
        .iter()
        .map(|(g, p, rule): &(_, _, RuleWatch)| (rule.observation.verdict(threshold), (*g, *p)));
    let value_verdicts =
        values.iter().map(|(g, p, seen): &(_, _, ValueObservation)| (seen.verdict(), (*g, *p)));
    let counts_sessions = groups.iter().any(|group| !group.sessions.is_empty());
    let had = |rule: &RuleWatch| rule.observation.total().candidate.started > 0;
    Judgement {
        sessions: worst(Verdict::Healthy, verdicts, of_session),
        breadth: Breadth::Wide,
        narrow: None,
        worst_value: worst(ValueVerdict::Healthy, value_verdicts, of_value),
        has_sessions: rules.iter().any(|(_, _, rule)| had(rule))
            || !counts_sessions && values.iter().any(|(_, _, seen)| seen.has_values()),
        rules,
        values,
        counted_until,
        complete,
    }
}
