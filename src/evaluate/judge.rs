//! What all rules say of one candidate.

use std::collections::BTreeMap;

use crate::domain::history::Rollout;
use crate::domain::share::Share;
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::domain::version::Version;
use crate::rules::{Group, SessionRule};

use super::answers::Table;
use super::observed::{Observed, RuleWatch};
use super::plan::Span;

/// What the rules of a group would say if the tick that is not over ended now, by fleet, candidate
/// and group.
pub(crate) type Ahead = BTreeMap<(String, Version, usize), Vec<RuleWatch>>;

/// What all rules say of one candidate.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// The worst over the rules.
    pub(crate) verdict: Verdict,
    pub(crate) has_sessions: bool,
    /// By group and rule.
    pub(crate) rules: Vec<(usize, usize, RuleWatch)>,
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

/// What all rules say of one candidate, the unfinished tick included where there was a look at it.
pub(crate) fn judge(
    fleet: &Observed,
    name: &str,
    rollout: &Rollout,
    threshold: f64,
    ahead: &mut Ahead,
) -> Judgement {
    let mut judgement = Judgement {
        verdict: Verdict::Healthy,
        has_sessions: false,
        rules: Vec::new(),
        counted_until: rollout.observe_until,
        complete: true,
    };
    let groups = fleet.watches.get(&rollout.candidate).map(|watch| &watch.groups);
    for (index, watch) in groups.into_iter().flatten() {
        let early = ahead.remove(&(name.to_owned(), rollout.candidate.clone(), *index));
        let Some(rules) = early.or_else(|| watch.rules.clone()) else {
            judgement.complete = false;
            continue;
        };
        judgement.counted_until = judgement.counted_until.min(watch.cursor);
        for (number, rule) in rules.into_iter().enumerate() {
            judgement.verdict = judgement.verdict.max(rule.observation.verdict(threshold));
            judgement.has_sessions |= rule.observation.total().candidate.started > 0;
            judgement.rules.push((*index, number, rule));
        }
    }
    judgement
}
