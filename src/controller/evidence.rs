//! What a decision rests on: in a sentence for people, and in its record so that it can be derived
//! again from that alone.

use serde_json::{Map, Value, json};

use crate::config::FleetConfig;
use crate::domain::counts::Counts;
use crate::domain::decision::{Decision, Situation};
use crate::domain::history::Rollout;
use crate::domain::share::{Share, Tolerance};
use crate::domain::value::ValueObservation;
use crate::evaluate::judge::{Judgement, rule_name, threshold_log10};
use crate::evaluate::observed::RuleWatch;
use crate::ledger::derive::{narrow_json, observation_json, situation_json};
use crate::ledger::record::rfc3339;
use crate::rules::{Group, SessionRule, ValueRule, query};

use super::show;

/// The session rules of a judgement, with what they watch.
fn sessions<'a>(
    groups: &'a [Group],
    judgement: &'a Judgement,
) -> impl Iterator<Item = (&'a Group, &'a SessionRule, &'a RuleWatch)> {
    judgement.rules.iter().filter_map(|(group, place, watch)| {
        let group = groups.get(*group)?;
        Some((group, group.sessions.get(*place)?, watch))
    })
}

/// The value rules of a judgement, with what they watch.
pub(super) fn values<'a>(
    groups: &'a [Group],
    judgement: &'a Judgement,
) -> impl Iterator<Item = (&'a Group, &'a ValueRule, &'a ValueObservation)> {
    judgement.values.iter().filter_map(|(group, place, watch)| {
        let group = groups.get(*group)?;
        Some((group, group.values.get(*place)?, watch))
    })
}

/// The decision in a sentence, with the figures of the rule that it rests on, or of the one that
/// speaks most strongly.
pub(super) fn sentence(
    config: &FleetConfig,
    groups: &[Group],
    rollout: &Rollout,
    judgement: &Judgement,
    decision: &Decision,
) -> String {
    let ground = decision.ground();
    let reason = ground.map_or("observed, and nothing speaks against it", |g| g.reason);
    let named = |group: &Group, rule: &str| {
        ground.and_then(|g| g.rule.as_deref()) == Some(&rule_name(group, rule))
    };
    let mut value_rules = values(groups, judgement);
    if let Some((_, rule, watch)) = value_rules.find(|(group, rule, _)| named(group, &rule.name)) {
        return format!("{reason} ({}): {}", rule.name, figures_of_value(rule, watch, rollout));
    }
    let strength = |watch: &RuleWatch| {
        watch.observation.evidence().strongest_log10().unwrap_or(f64::NEG_INFINITY)
    };
    let rank = |(group, rule, watch): &(&Group, &SessionRule, &RuleWatch)| {
        (named(group, &rule.name), strength(watch))
    };
    let strongest = sessions(groups, judgement).max_by(|a, b| {
        let ((a_named, a), (b_named, b)) = (rank(a), rank(b));
        a_named.cmp(&b_named).then(a.total_cmp(&b))
    });
    let Some((_, rule, watch)) = strongest else { return reason.to_owned() };
    let narrow = judgement.narrow.as_ref().map(|narrow| format!("; {}", narrow.standout));
    let total = watch.observation.total();
    let share = |counts: &Counts| 100.0 * counts.failed as f64 / (counts.started.max(1)) as f64;
    format!(
        "{reason} ({}): {} of {} sessions of {} failed ({:.1}%), of its control {} of {} \
         ({:.1}%); evidence 10^{:.1}, convicting at 10^{:.1}{}",
        rule.name,
        total.candidate.failed,
        total.candidate.started,
        rollout.candidate,
        share(&total.candidate),
        total.control.failed,
        total.control.started,
        share(&total.control),
        strength(watch),
        threshold_log10(config.false_rollback_rate, groups),
        narrow.unwrap_or_default(),
    )
}

fn figures_of_value(rule: &ValueRule, watch: &ValueObservation, rollout: &Rollout) -> String {
    let value = match watch.value() {
        Some(value) => format!("{} has {value}", rollout.candidate),
        None => format!("{} has no value", rollout.candidate),
    };
    let limit = |name: &str, limit: Option<f64>| {
        limit.map(|limit| format!(", {name} {limit}")).unwrap_or_default()
    };
    let since = watch.over_since().map(|since| format!("; over it since {}", rfc3339(since)));
    format!(
        "{value}{}{}{}",
        limit("escalate_above", rule.escalate_above),
        limit("rollback_above", rule.rollback_above),
        since.unwrap_or_default()
    )
}

/// Everything a decision rests on, by kind of rule.
pub(super) fn record(
    config: &FleetConfig,
    groups: &[Group],
    judgement: &Judgement,
    situation: &Situation,
) -> Map<String, Value> {
    let threshold_log10 = threshold_log10(config.false_rollback_rate, groups);
    let of_rule = |group: &Group, rule: &SessionRule, watch: &RuleWatch| {
        let mut evidence = session(group, rule, watch, threshold_log10);
        evidence["queries"] = json!(show::queries(config, rule, group.interval));
        evidence
    };
    let rules = sessions(groups, judgement).map(|(group, rule, watch)| of_rule(group, rule, watch));
    let values = values(groups, judgement).map(|(group, rule, watch)| {
        let FleetConfig { workers, by, version_label, .. } = config;
        let ticks = watch.ticks().iter().map(|(at, value)| json!([rfc3339(*at), value]));
        json!({
            "rule": rule_name(group, &rule.name),
            "digest": rule.digest,
            "interval_seconds": group.interval.as_secs_f64(),
            "escalate_above": rule.escalate_above,
            "rollback_above": rule.rollback_above,
            "for_seconds": rule.hold_for.as_secs_f64(),
            "verdict": watch.verdict().name(),
            "over_since": watch.over_since().map(rfc3339),
            "queries": { "value": query::value(rule, workers, by, version_label, group.interval) },
            "ticks": ticks.collect::<Vec<Value>>(),
        })
    });
    let all = [
        ("rules", rules.collect::<Value>()),
        ("values", values.collect::<Value>()),
        ("situation", situation_json(situation)),
    ];
    let narrow = judgement.narrow.as_ref().and_then(|narrow| {
        let group = groups.get(narrow.rule.0)?;
        let rule = group.sessions.get(narrow.rule.1)?;
        let rest = session(group, rule, &narrow.rest, threshold_log10);
        let figures = narrow_json(&narrow.standout, &rest);
        Some(("narrow", figures))
    });
    all.into_iter().chain(narrow).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a session rule's verdict can be derived from.
fn session(group: &Group, rule: &SessionRule, watch: &RuleWatch, threshold_log10: f64) -> Value {
    let settings = watch.observation.settings();
    let evidence = watch.observation.evidence();
    let side = |c: &Counts| json!([c.started, c.failed, c.live]);
    let ticks = watch.observation.ticks().iter();
    let ticks = ticks.map(|tick| json!([side(&tick.candidate), side(&tick.control)]));
    let mut recorded = json!({
        "rule": rule_name(group, &rule.name),
        "digest": rule.digest,
        "interval_seconds": group.interval.as_secs_f64(),
        "threshold_log10": threshold_log10,
        "observation_ticks": settings.observation_ticks,
        "tolerance": settings.tolerance.map(Tolerance::get),
        "ceiling": settings.ceiling.map(Share::get),
        "dispersion": settings.dispersion,
        "pool_sessions": settings.pool_sessions,
        "control": watch.observation.control().name(),
        "baseline_log10": finite(evidence.baseline_log10),
        "ceiling_log10": finite(evidence.ceiling_log10),
        "dropped": watch.dropped,
        "ticks": ticks.collect::<Vec<Value>>(),
        "ticks_left_out": watch.observation.ticks_left_out(),
    });
    if let Value::Object(fields) = &mut recorded {
        fields.extend(observation_json(&watch.observation, threshold_log10));
    }
    recorded
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}
