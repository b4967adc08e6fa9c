//! Reading one rule.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use promql_parser::parser::value::ValueType;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::parse::FleetTraits;
use super::{SessionRule, ValueRule, labels, promql, selector};
use crate::domain::counts::{Counts, Tick};
use crate::domain::evidence::{Detector, DetectorSettings, POOL_SESSIONS};
use crate::domain::share::{InvalidTolerance, Share, Tolerance};
use crate::domain::template;
use crate::yaml::values::{self, Read};
use crate::yaml::{Map, Node, Scope};

/// What annotations may speak of.
const ANNOTATION_PLACEHOLDERS: &[&str] =
    &["version", "ratio", "baseline", "baseline_ratio", "value", "fleet", "slice"];

/// A rule of either kind.
pub(super) enum Rule {
    Session(SessionRule),
    Value(ValueRule),
}

/// What a rule takes from its group.
pub(super) struct InGroup<'g> {
    pub(super) group: &'g str,
    pub(super) fleet: &'g str,
    pub(super) interval: Duration,
    /// Of its fleet; none where the config does not have it, or does not read.
    pub(super) traits: Option<&'g FleetTraits>,
}

/// Reads a rule whose group is named `context` in problems; `seen` are the names before it.
pub(super) fn read(
    mut map: Map<'_, '_>,
    context: &str,
    group: &InGroup<'_>,
    seen: &mut BTreeSet<String>,
) -> Option<Rule> {
    let name = map.required("name", values::text);
    let shown = name.as_deref().unwrap_or("?");
    map.rename(Scope::Named(format!("{context}, regression \"{shown}\"")));
    if let Some(name) = &name
        && !seen.insert(name.clone())
    {
        map.fault_as_is("name", "a regression of this name is already in the group");
    }
    if map.has("value") {
        value_rule(map, name, group).map(Rule::Value)
    } else if map.has("started") || map.has("failed") {
        session_rule(map, name, group).map(Rule::Session)
    } else {
        map.fault_whole("expected `started` and `failed` counters, or a `value`");
        None
    }
}

fn session_rule(
    mut map: Map<'_, '_>,
    name: Option<String>,
    group: &InGroup<'_>,
) -> Option<SessionRule> {
    map.require("started");
    let started = selector(&mut map, "started", "counter");
    map.require("failed");
    let failed = selector(&mut map, "failed", "counter");
    let live = selector(&mut map, "live", "gauge");
    let ceiling = map.optional("ceiling", values::share);
    let tolerance = tolerance(&mut map);
    if !map.has("ceiling") && !map.has("tolerance") {
        map.fault_whole("neither `ceiling` nor `tolerance` is given; use either or both");
    }
    let dispersion = map.optional("dispersion", dispersion);
    let narrow_by = map.list("narrow_by", values::label_name);
    if narrow_by.iter().collect::<BTreeSet<_>>().len() < narrow_by.len() {
        map.fault("narrow_by", "a label is here twice");
    }
    if let Some(traits) = group.traits {
        fits_fleet(&map, traits, [("started", &started), ("failed", &failed), ("live", &live)]);
        reachable(&map, traits, tolerance, ceiling, dispersion);
    }
    let annotations = annotations(&mut map);
    let digest = digest(
        &map,
        &json!({
            "group": group.group,
            "fleet": group.fleet,
            "interval_seconds": group.interval.as_secs_f64(),
            "name": name,
            "started": started,
            "failed": failed,
            "live": live,
            "ceiling": ceiling.map(Share::get),
            "tolerance": tolerance.map(Tolerance::get),
            "dispersion": dispersion,
            "narrow_by": narrow_by,
        }),
    );
    map.finish();
    Some(SessionRule {
        name: name?,
        started: started?,
        failed: failed?,
        live,
        ceiling,
        tolerance,
        dispersion,
        narrow_by,
        annotations,
        digest: digest?,
    })
}

fn value_rule(
    mut map: Map<'_, '_>,
    name: Option<String>,
    group: &InGroup<'_>,
) -> Option<ValueRule> {
    let value = map.required("value", vector);
    if let (Some(value), Some(traits)) = (&value, group.traits) {
        keeps_labels(&map, value, traits);
    }
    let escalate_above = map.optional("escalate_above", values::number);
    let rollback_above = map.optional("rollback_above", values::number);
    if !map.has("escalate_above") && !map.has("rollback_above") {
        map.fault_whole(
            "neither `escalate_above` nor `rollback_above` is given; use either or both",
        );
    }
    if let (Some(escalate), Some(rollback)) = (escalate_above, rollback_above)
        && escalate > rollback
    {
        map.fault_as_is(
            "rollback_above",
            format!("rollback_above {rollback} is below escalate_above {escalate}"),
        );
    }
    let hold_for = map.optional("for", values::duration).unwrap_or(group.interval);
    if hold_for < group.interval {
        let (hold_for, interval) =
            (humantime::format_duration(hold_for), humantime::format_duration(group.interval));
        map.fault("for", format!("{hold_for} is shorter than the group's interval of {interval}"));
    }
    let annotations = annotations(&mut map);
    let digest = digest(
        &map,
        &json!({
            "group": group.group,
            "fleet": group.fleet,
            "interval_seconds": group.interval.as_secs_f64(),
            "name": name,
            "value": value,
            "escalate_above": escalate_above,
            "rollback_above": rollback_above,
            "for_seconds": hold_for.as_secs_f64(),
        }),
    );
    map.finish();
    Some(ValueRule {
        name: name?,
        value: value?,
        escalate_above,
        rollback_above,
        hold_for,
        annotations,
        digest: digest?,
    })
}

/// A value that loses a label belongs to no version, or to no fleet.
fn keeps_labels(map: &Map<'_, '_>, value: &str, traits: &FleetTraits) {
    let Ok(expr) = promql::parse(value) else { return };
    for label in traits.by.iter().chain([&traits.version_label]) {
        if let Some(why) = labels::lost(&expr, label) {
            map.fault("value", format!("the result has no label `{label}`: {why}"));
        }
    }
}

/// A selector that names one version never sees another.
fn fits_fleet(
    map: &Map<'_, '_>,
    traits: &FleetTraits,
    selectors: [(&'static str, &Option<String>); 3],
) {
    let label = &traits.version_label;
    for (key, selector) in selectors {
        let fixed = selector.as_deref().and_then(|selector| labels::fixed(selector, label));
        if let Some(version) = fixed {
            let message = format!(
                "`{label}=\"{version}\"` selects one version only; leave it out, versions are told \
                 apart by it"
            );
            map.fault(key, message);
        }
    }
}

/// More sessions a second than any fleet has.
const SESSIONS_A_SECOND_MAX: f64 = 10_000.0;

/// Not even if every session failed, and the baseline's none, all through an observation?
fn reachable(
    map: &Map<'_, '_>,
    traits: &FleetTraits,
    tolerance: Option<Tolerance>,
    ceiling: Option<Share>,
    dispersion: Option<f64>,
) {
    let tests = u8::from(tolerance.is_some()) + u8::from(ceiling.is_some());
    let threshold_log10 = (f64::from(tests.max(1)) / traits.false_rollback_rate.get()).log10();
    let mut detector = Detector::new(DetectorSettings {
        observation_ticks: 1,
        tolerance,
        ceiling,
        dispersion: dispersion.unwrap_or(1.0),
        pool_sessions: POOL_SESSIONS,
    });
    let sessions = SESSIONS_A_SECOND_MAX * traits.observe_for.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let started = sessions.clamp(1.0, 1e15) as u64;
    let evidence = detector.observe(&Tick {
        candidate: Counts { started, failed: started, live: 0.0 },
        control: Counts { started, failed: 0, live: 0.0 },
    });
    let rate = traits.false_rollback_rate;
    let observe_for = humantime::format_duration(traits.observe_for);
    for (key, log10, smaller) in [
        ("tolerance", evidence.baseline_log10, "a smaller `tolerance`"),
        ("ceiling", evidence.ceiling_log10, "a lower `ceiling`"),
    ] {
        if log10.is_some_and(|log10| log10 < threshold_log10) {
            map.fault(
                key,
                format!(
                    "no traffic can convict: if 10,000 sessions a second failed for all of \
                     observe_for ({observe_for}), the evidence would not reach a \
                     false_rollback_rate of {rate}; use {smaller}, or a higher rate"
                ),
            );
        }
    }
}

fn selector(map: &mut Map<'_, '_>, key: &'static str, kind: &str) -> Option<String> {
    let text = map.optional(key, values::text)?;
    match selector::check(&text) {
        Ok(selector) => Some(selector),
        Err(message) => {
            map.fault_as_is(key, format!("`{key}` is not a {kind} selector: {message}"));
            None
        }
    }
}

fn tolerance(map: &mut Map<'_, '_>) -> Option<Tolerance> {
    let read = map.node("tolerance").map(values::tolerance)?;
    match read {
        Ok(tolerance) => return Some(tolerance),
        Err(error @ InvalidTolerance::NotAFactor) => map.fault("tolerance", error),
        Err(error @ InvalidTolerance::BelowOne(_)) => {
            map.fault_as_is("tolerance", error.to_string());
        }
    }
    None
}

fn dispersion(node: &Node) -> Read<f64> {
    match values::number(node)? {
        value if value >= 1.0 => Ok(value),
        value => Err(format!("{value} is below 1, less spread than chance itself has")),
    }
}

/// `PromQL` that gives an instant vector.
fn vector(node: &Node) -> Read<String> {
    let text = values::text(node)?;
    let expr = promql::parse(&text).map_err(|error| format!("not PromQL: {error}"))?;
    let kind = expr.value_type();
    if kind == ValueType::Vector {
        Ok(text)
    } else {
        Err(format!("expected an instant vector, found a {kind}"))
    }
}

fn annotations(map: &mut Map<'_, '_>) -> BTreeMap<String, String> {
    map.texts("annotations", |_, text| template::check(text, ANNOTATION_PLACEHOLDERS))
}

/// SHA-256 of the canonical JSON (RFC 8785) of what decides; annotations only tell, so they are
/// not part of it.
fn digest(map: &Map<'_, '_>, rule: &serde_json::Value) -> Option<String> {
    match serde_json_canonicalizer::to_vec(rule) {
        Ok(bytes) => Some(hex::encode(Sha256::digest(&bytes))),
        Err(error) => {
            map.fault_whole(format!("has no canonical form: {error}"));
            None
        }
    }
}
