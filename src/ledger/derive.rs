//! Decisions, derived again from their own records.
//!
//! A record holds the ticks, the settings and the situation; the same functions that decided then
//! are asked again. What a record does not hold, because an older or a newer rollbackd wrote it,
//! is *not derivable*: never taken for good.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use self::narrow::narrow_json;
use super::record::{Record, parse_rfc3339};
use crate::domain::counts::{Counts, Tick};
use crate::domain::decision::{Finding, Mode, Situation, decide};
use crate::domain::evidence::DetectorSettings;
use crate::domain::narrow::{Breadth, Slice};
use crate::domain::observation::{ControlKind, Observation};
use crate::domain::share::{Share, Tolerance};
use crate::domain::value::{ValueLimits, ValueObservation, ValueVerdict};
use crate::domain::verdict::Verdict;

mod narrow;

/// Which reading of the evidence a record's verdict is: raised whenever the same ticks may come to
/// another verdict. 2: the ceiling waits for the baseline to be seen. 3: it begins again after an
/// outage.
const JUDGING: u64 = 3;

/// How far a derived logarithm may be from the recorded one: other machines round otherwise.
const LOG10_TOLERANCE: f64 = 1e-9;

/// What came of deriving a decision again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Derived {
    /// The same.
    Same,
    /// Something else: what, in words.
    Differs(Vec<String>),
    /// The record does not hold what it takes: what is missing or unknown.
    NotDerivable(String),
}

/// A field that a record does not have, or not as this program knows it.
struct Missing(String);

impl Missing {
    fn of(field: &str) -> Self {
        Self(format!("`{field}` is missing, or not as this rollbackd writes it"))
    }
}

/// What is known when a decision is due, but for what the rules say, as records hold it.
#[must_use]
pub fn situation_json(situation: &Situation) -> Value {
    // Spelled out, so that a new fact makes the compiler ask here, and below.
    let Situation {
        sessions: _,
        breadth,
        values: _,
        observation_over,
        has_sessions,
        has_last_good,
        paused,
        rolling_back,
        one_of_many,
        within_limits,
        mode,
        roll_back_when_unsure,
    } = situation;
    json!({
        "breadth": breadth_json(breadth),
        "observation_over": observation_over,
        "has_sessions": has_sessions,
        "has_last_good": has_last_good,
        "paused": paused,
        "rolling_back": rolling_back,
        "one_of_many": one_of_many,
        "within_limits": within_limits,
        "mode": mode.name(),
        "roll_back_when_unsure": roll_back_when_unsure,
    })
}

/// The slice of a narrow regression, else how much is known.
fn breadth_json(breadth: &Breadth) -> Value {
    match breadth {
        Breadth::Wide => "wide".into(),
        Breadth::Unknown => "unknown".into(),
        Breadth::Narrow(slice) => json!({ "label": slice.label, "value": slice.value }),
    }
}

/// Before a regression could be narrow, and recorded as such, every one was wide.
fn breadth(written: Option<&Value>) -> Option<Breadth> {
    let Some(written) = written else { return Some(Breadth::Wide) };
    match (written.as_str(), written.as_object()) {
        (Some("wide"), _) => Some(Breadth::Wide),
        (Some("unknown"), _) => Some(Breadth::Unknown),
        (_, Some(slice)) => {
            let part = |name: &str| Some(slice.get(name)?.as_str()?.to_owned());
            Some(Breadth::Narrow(Slice { label: part("label")?, value: part("value")? }))
        }
        (_, None) => None,
    }
}

fn situation(
    fields: &Map<String, Value>,
    sessions: Finding<Verdict>,
    values: Finding<ValueVerdict>,
) -> Result<Situation, Missing> {
    let fact = |name: &str| fields.get(name).and_then(Value::as_bool).ok_or(Missing::of(name));
    let mode = fields.get("mode").and_then(Value::as_str);
    let mode = Mode::ALL.into_iter().find(|known| Some(known.name()) == mode);
    let known = Situation {
        sessions,
        breadth: breadth(fields.get("breadth")).ok_or(Missing::of("breadth"))?,
        values,
        observation_over: fact("observation_over")?,
        has_sessions: fact("has_sessions")?,
        has_last_good: fact("has_last_good")?,
        paused: fact("paused")?,
        rolling_back: fact("rolling_back")?,
        one_of_many: fact("one_of_many")?,
        within_limits: fact("within_limits")?,
        mode: mode.ok_or(Missing::of("mode"))?,
        roll_back_when_unsure: fact("roll_back_when_unsure")?,
    };
    let written = situation_json(&known);
    match fields.keys().find(|field| written.get(field.as_str()).is_none()) {
        Some(unknown) => Err(Missing(format!("`{unknown}` is not known to this rollbackd"))),
        None => Ok(known),
    }
}

/// How a session rule's watch is recorded, so that [`derive()`] can repeat it: beside settings and
/// ticks, what each tick was compared with, and how many of the last had no sample.
#[must_use]
pub fn observation_json(observation: &Observation, threshold_log10: f64) -> Map<String, Value> {
    let mut runs: Vec<(ControlKind, u32)> = Vec::new();
    for kind in observation.controls() {
        match runs.last_mut().filter(|(last, _)| last == kind) {
            Some((_, length)) => *length += 1,
            None => runs.push((*kind, 1)),
        }
    }
    let runs: Vec<_> = runs.iter().map(|(kind, length)| json!([kind.name(), length])).collect();
    let fields = [
        ("verdict", observation.verdict(threshold_log10).name().into()),
        ("controls", runs.into()),
        ("silent_ticks", observation.silent_ticks().into()),
        ("judging", JUDGING.into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Derives the decision in a record again; `None` if the record holds none.
#[must_use]
pub fn derive(record: &Record) -> Option<Derived> {
    let decided = record.extra.get("decision")?.as_str().unwrap_or_default();
    record.event.starts_with("rollout.").then(|| {
        let mut differences = Vec::new();
        match again(record, decided, &mut differences) {
            _ if !differences.is_empty() => Derived::Differs(differences),
            Ok(()) => Derived::Same,
            Err(Missing(what)) => Derived::NotDerivable(what),
        }
    })
}

/// Finds the differences between what is recorded and what is derived, as far as it comes.
fn again(record: &Record, decided: &str, differences: &mut Vec<String>) -> Result<(), Missing> {
    let (mut sessions, mut values) = (Vec::new(), Vec::new());
    let mut wholes = BTreeMap::new();
    for rule in list(&record.extra, "rules")? {
        let name = text(rule, "rule")?.to_owned();
        let (watch, verdict) = session(rule, &name, differences)?;
        wholes.insert(name.clone(), watch.total().candidate);
        sessions.push((verdict, name));
    }
    for rule in list(&record.extra, "values")? {
        let name = text(rule, "rule")?.to_owned();
        values.push((value(rule, &name, differences)?, name));
    }
    let fields = record.extra.get("situation").and_then(Value::as_object);
    let situation = situation(
        fields.ok_or(Missing::of("situation"))?,
        Finding::worst(Verdict::Healthy, sessions),
        Finding::worst(ValueVerdict::Healthy, values),
    )?;
    narrow::again(&record.extra, &situation.breadth, &wholes, differences)?;
    let decision = decide(&situation);
    if decision.name() != decided {
        differences.push(format!("{decided} is recorded, {} derived", decision.name()));
    } else if let Some(ground) = decision.ground() {
        let reason = record.extra.get("reason").and_then(Value::as_str).unwrap_or_default();
        if !reason.starts_with(ground.reason) {
            differences.push(format!("the reason derived is \"{}\"", ground.reason));
        }
    }
    Ok(())
}

/// Whether two numbers are the same but for how machines round.
fn same(recorded: f64, derived: f64) -> bool {
    (recorded - derived).abs() <= LOG10_TOLERANCE * recorded.abs().max(1.0)
}

/// A session rule's watch again, and what it says.
fn session(
    rule: &Value,
    name: &str,
    differences: &mut Vec<String>,
) -> Result<(Observation, Verdict), Missing> {
    let share = optional(rule, "ceiling")?.map(Share::new).transpose();
    let tolerance = optional(rule, "tolerance")?.map(Tolerance::new).transpose();
    let settings = DetectorSettings {
        observation_ticks: count(rule, "observation_ticks")?,
        tolerance: tolerance.map_err(|_| Missing::of("tolerance"))?,
        ceiling: share.map_err(|_| Missing::of("ceiling"))?,
        dispersion: number(rule, "dispersion")?,
        pool_sessions: u64::from(count(rule, "pool_sessions")?),
    };
    let ticks = ticks(rule)?;
    let kinds = controls(rule).and_then(|kinds| {
        if kinds.len() == ticks.len() { Ok(kinds) } else { Err(Missing::of("controls")) }
    });
    let silent_ticks = count(rule, "silent_ticks");
    // The evidence does not depend on what the ticks were compared with; only the verdict does.
    let kind_of = |tick: usize| kinds.as_ref().map_or(ControlKind::None, |kinds| kinds[tick]);
    let ticks = ticks.into_iter().enumerate().map(|(place, tick)| (tick, kind_of(place)));
    let silent = silent_ticks.as_ref().copied().unwrap_or_default();
    let watch = Observation::recorded(settings, ticks, silent);
    let evidence = watch.evidence();
    for (field, derived) in
        [("baseline_log10", evidence.baseline_log10), ("ceiling_log10", evidence.ceiling_log10)]
    {
        let recorded = optional(rule, field)?;
        // No finite number is recorded as none.
        let derived = derived.filter(|log10| log10.is_finite());
        let is_same = match (recorded, derived) {
            (Some(recorded), Some(derived)) => same(recorded, derived),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            differences
                .push(format!("{name}: {field} {recorded:?} is recorded, {derived:?} derived"));
        }
    }
    kinds?;
    silent_ticks?;
    let verdict = watch.verdict(number(rule, "threshold_log10")?);
    let recorded = text(rule, "verdict")?;
    if recorded != verdict.name() {
        differences.push(format!("{name}: {recorded} is recorded, {} derived", verdict.name()));
    }
    Ok((watch, verdict))
}

fn value(rule: &Value, name: &str, differences: &mut Vec<String>) -> Result<ValueVerdict, Missing> {
    let seconds = |field: &str| {
        Duration::try_from_secs_f64(number(rule, field)?).map_err(|_| Missing::of(field))
    };
    let mut watch = ValueObservation::new(ValueLimits {
        escalate_above: optional(rule, "escalate_above")?,
        rollback_above: optional(rule, "rollback_above")?,
        hold_for: seconds("for_seconds")?,
        interval: seconds("interval_seconds")?,
    });
    for tick in rule.get("ticks").and_then(Value::as_array).ok_or(Missing::of("ticks"))? {
        let at = tick.get(0).and_then(Value::as_str).and_then(parse_rfc3339);
        watch.observe(at.ok_or(Missing::of("ticks"))?, tick.get(1).and_then(Value::as_f64));
    }
    let (recorded, derived) = (text(rule, "verdict")?, watch.verdict());
    if recorded != derived.name() {
        differences.push(format!("{name}: {recorded} is recorded, {} derived", derived.name()));
    }
    Ok(derived)
}

fn controls(rule: &Value) -> Result<Vec<ControlKind>, Missing> {
    let bad = || Missing::of("controls");
    let runs = rule.get("controls").and_then(Value::as_array).ok_or_else(bad)?;
    let mut kinds = Vec::new();
    for run in runs {
        let name = run.get(0).and_then(Value::as_str);
        let kind = ControlKind::ALL.into_iter().find(|kind| Some(kind.name()) == name);
        let length = run.get(1).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        // No record is longer than its ticks, whatever it says.
        let most = rule.get("ticks").and_then(Value::as_array).map_or(0, Vec::len);
        let (kind, length) = kind.zip(length.filter(|n| *n <= most)).ok_or_else(bad)?;
        kinds.extend(std::iter::repeat_n(kind, length));
    }
    Ok(kinds)
}

fn ticks(rule: &Value) -> Result<Vec<Tick>, Missing> {
    let bad = || Missing::of("ticks");
    let side = |tick: &Value, index: usize| {
        let side = tick.get(index)?;
        let whole = |place: usize| side.get(place)?.as_u64();
        Some(Counts { started: whole(0)?, failed: whole(1)?, live: side.get(2)?.as_f64()? })
    };
    // Older records know no such field, and left none out.
    if rule.get("ticks_left_out").and_then(Value::as_u64).is_some_and(|left_out| left_out > 0) {
        return Err(Missing("its first `ticks` are left out".to_owned()));
    }
    if rule.get("judging").and_then(Value::as_u64) != Some(JUDGING) {
        return Err(Missing("it was judged as another rollbackd judges".to_owned()));
    }
    let ticks = rule.get("ticks").and_then(Value::as_array).ok_or_else(bad)?;
    let ticks: Option<Vec<_>> = ticks
        .iter()
        .map(|tick| Some(Tick { candidate: side(tick, 0)?, control: side(tick, 1)? }))
        .collect();
    ticks.ok_or_else(bad)
}

fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a Vec<Value>, Missing> {
    fields.get(name).and_then(Value::as_array).ok_or(Missing::of(name))
}

fn text<'a>(rule: &'a Value, field: &str) -> Result<&'a str, Missing> {
    rule.get(field).and_then(Value::as_str).ok_or(Missing::of(field))
}

fn number(rule: &Value, field: &str) -> Result<f64, Missing> {
    rule.get(field).and_then(Value::as_f64).ok_or(Missing::of(field))
}

fn count(rule: &Value, field: &str) -> Result<u32, Missing> {
    let number = rule.get(field).and_then(Value::as_u64);
    number.and_then(|number| u32::try_from(number).ok()).ok_or(Missing::of(field))
}

/// A number or `null`; that the field is not there at all is not that.
fn optional(rule: &Value, field: &str) -> Result<Option<f64>, Missing> {
    match rule.get(field) {
        None => Err(Missing::of(field)),
        Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Missing::of(field)),
    }
}

#[cfg(test)]
mod tests;
