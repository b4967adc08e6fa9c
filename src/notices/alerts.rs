//! What is so now, as Alertmanager's alerts.
//!
//! An alert is told again and again while it is so, with an end that lies ahead, so that it ends by
//! itself if rollbackd does. A label says what it is about and does not change while it is so;
//! figures and reasons are annotations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::fleet::entry_of;
use crate::domain::template;
use crate::domain::time::Timestamp;
use crate::ledger::record::{parse_rfc3339, rfc3339};
use crate::ports::view::{FleetView, NarrowView, RollbackView, RolloutView, RuleView, View};

/// How long an alert stands without being told again.
const STANDS_FOR: Duration = Duration::from_mins(4);
/// How long a rollback that has ended is told of.
const ENDED_FOR: Duration = Duration::from_mins(15);
/// How long the end of an alert is told again, in case the first word was lost.
const RESOLVED_FOR: Duration = Duration::from_mins(15);

/// Labels and their values: which alert it is.
pub type Labels = BTreeMap<&'static str, String>;

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// With `alertname`, `severity` and what it is about.
    pub labels: Labels,
    /// For people to read.
    pub annotations: BTreeMap<String, String>,
    /// Since when, where that is known.
    pub starts_at: Option<Timestamp>,
}

impl Alert {
    fn new(name: &str, severity: &str, fleet: &str, summary: String) -> Self {
        let labels = [("alertname", name), ("severity", severity), ("fleet", fleet)];
        Self {
            labels: labels.map(|(label, value)| (label, value.to_owned())).into(),
            annotations: BTreeMap::from([("summary".to_owned(), summary)]),
            starts_at: None,
        }
    }

    fn label(mut self, name: &'static str, value: &str) -> Self {
        self.labels.insert(name, value.to_owned());
        self
    }

    fn since(mut self, at: &str) -> Self {
        self.starts_at = parse_rfc3339(at);
        self
    }

    fn describe(mut self, text: &str) -> Self {
        self.annotations.insert("description".to_owned(), text.to_owned());
        self
    }

    /// Which slice fails, and how much of it all that is.
    fn of_slice(mut self, slice: &NarrowView) -> Self {
        let (name, percent) = (slice_name(slice), |share: f64| 100.0 * share.clamp(0.0, 1.0));
        let text = format!(
            "{name} fails more than allowed: it has {:.0}% of the failures beyond those expected, \
             in {:.0}% of the sessions",
            percent(slice.excess_share),
            percent(slice.traffic_share)
        );
        self.annotations.insert("slice".to_owned(), name);
        self.describe(&text)
    }

    /// The rule's own annotations, which overrule all of ours but those named.
    fn of_rule(
        mut self,
        rule: Option<&RuleView>,
        ours: &[&str],
        value: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let annotations = rule.into_iter().flat_map(|rule| &rule.annotations);
        for (name, text) in annotations.filter(|(name, _)| !ours.contains(&name.as_str())) {
            self.annotations.insert(name.clone(), template::expand(text, &value));
        }
        self
    }
}

/// Everything that people should know, as the controller shows it.
#[must_use]
pub fn alerts(view: &View, now: Timestamp) -> Vec<Alert> {
    let mut found = Vec::new();
    if view.breaker.open {
        let text = format!(
            "{} of {} fleets regress at once: none is rolled back by itself",
            view.breaker.regressed, view.breaker.fleets
        );
        found.push(Alert::new("ManyFleetsRegress", "critical", "", text));
    }
    for fleet in view.fleets.values() {
        of_fleet(fleet, &mut found);
        for rollout in &fleet.rollouts {
            found.extend(of_rollout(fleet, rollout, &view.rules));
        }
    }
    let told = |rollback| Some(with_rule(of_rollback(rollback, now)?, rollback, view));
    found.extend(view.rollbacks.iter().filter_map(told));
    found
}

fn of_fleet(fleet: &FleetView, found: &mut Vec<Alert>) {
    let name = &fleet.fleet;
    if let Some(reason) = &fleet.holding {
        let text = format!("nothing can be decided about {name}");
        found.push(Alert::new("FleetHeld", "warning", name, text).describe(reason));
    }
    if !fleet.last_good_ready {
        let text = format!("{name} has no way back");
        let alert = Alert::new("LastGoodNotReady", "critical", name, text);
        found.push(alert.describe(&fleet.last_good_state));
    }
}

/// A candidate that is neither watched in peace nor rolled back.
fn of_rollout(fleet: &FleetView, rollout: &RolloutView, rules: &[RuleView]) -> Option<Alert> {
    let (name, candidate, slice) = (&fleet.fleet, &rollout.candidate, rollout.narrow.as_ref());
    let (alert, severity, what) = match rollout.decision.as_str() {
        "escalate" => ("RolloutEscalated", "critical", "needs a person".to_owned()),
        "fix_forward" => ("FixForward", "warning", fix_forward(slice)),
        "hold" => ("RolloutHeld", "warning", "is held".to_owned()),
        _ => return None,
    };
    let summary = format!("{candidate} of {name} {what}");
    let mends = rollout.decision == "fix_forward";
    let reason = rollout.held.clone().unwrap_or_default();
    let alert = Alert::new(alert, severity, name, summary).label("version", candidate);
    let mut alert = alert.describe(&reason).since(&rollout.started_at);
    if let Some(slice) = slice.filter(|_| mends) {
        alert = alert.of_slice(slice);
    }
    let decides = rollout.held_rule.as_deref();
    let rule = decides.and_then(|id| rules_of(name, rules).find(|rule| rule_id(rule) == id));
    // The rule's words are about a version that fails as a whole; here they would hide what to do.
    let ours = if mends { &["summary"][..] } else { &[] };
    alert = alert.of_rule(rule, ours, |placeholder| figure(fleet, rollout, decides, placeholder));
    Some(match decides {
        Some(id) => alert.label("rule", id),
        None => alert,
    })
}

fn fix_forward(slice: Option<&NarrowView>) -> String {
    let slice = slice.map_or_else(|| "one slice".to_owned(), slice_name);
    format!("fails in {slice}; fix it forward")
}

fn slice_name(slice: &NarrowView) -> String {
    format!("{}={:?}", slice.label, slice.value)
}

/// The rules of a fleet's entry, which may be split into several fleets: `entry:value`.
fn rules_of<'v>(fleet: &'v str, rules: &'v [RuleView]) -> impl Iterator<Item = &'v RuleView> {
    rules.iter().filter(|rule| entry_of(fleet) == rule.fleet)
}

fn rule_id(rule: &RuleView) -> String {
    format!("{}/{}", rule.group, rule.name)
}

/// What an annotation's placeholder stands for.
fn figure(
    fleet: &FleetView,
    rollout: &RolloutView,
    rule: Option<&str>,
    placeholder: &str,
) -> Option<String> {
    let verdict = rollout.verdicts.iter().find(|v| Some(v.rule.as_str()) == rule);
    let value = rollout.values.iter().find(|v| Some(v.rule.as_str()) == rule);
    let ratio = |failed: u64, started: u64| {
        format!("{:.1}%", 100.0 * failed as f64 / started.max(1) as f64)
    };
    Some(match placeholder {
        "version" => rollout.candidate.clone(),
        "fleet" => fleet.fleet.clone(),
        "baseline" => rollout.baseline.clone().unwrap_or_default(),
        "ratio" => verdict.map_or_else(String::new, |v| ratio(v.failed, v.started)),
        "baseline_ratio" => {
            verdict.map_or_else(String::new, |v| ratio(v.control_failed, v.control_started))
        }
        "value" => value.and_then(|v| v.value).map_or_else(String::new, |v| format!("{v:.3}")),
        "slice" => rollout.narrow.as_ref().map_or_else(String::new, slice_name),
        _ => return None,
    })
}

fn of_rollback(rollback: &RollbackView, now: Timestamp) -> Option<Alert> {
    let (from, to, fleet) = (&rollback.from_version, &rollback.version, &rollback.fleet);
    let (name, severity, text) = match (rollback.state.as_str(), &rollback.finished_at) {
        ("stuck", _) => {
            let text = format!("the rollback of {fleet} from {from} to {to} is stuck");
            ("RollbackStuck", "critical", text)
        }
        (_, None) => {
            let text = format!("{fleet} is being rolled back from {from} to {to}");
            ("RollbackUnderWay", "warning", text)
        }
        (state, Some(at)) => {
            let ended = parse_rfc3339(at)?;
            if now.since(ended) > ENDED_FOR {
                return None;
            }
            let text = format!("the rollback of {fleet} from {from} to {to} has ended: {state}");
            ("RollbackEnded", "info", text)
        }
    };
    let alert = Alert::new(name, severity, fleet, text).label("version", from);
    let alert = alert.label("rollback", &rollback.id).describe(&rollback.reason);
    Some(alert.since(rollback.finished_at.as_deref().unwrap_or(&rollback.started_at)))
}

/// Adds what the rule that decided on a rollback says beside its summary and description: those
/// are about the candidate as it was then, and ours about how far the rollback has come.
fn with_rule(alert: Alert, rollback: &RollbackView, view: &View) -> Alert {
    let Some(fleet) = view.fleets.get(&rollback.fleet) else { return alert };
    let rule = rule_of(rollback, &view.rules);
    let id = rule.map(rule_id);
    let of_it = |judged: &&RolloutView| judged.candidate == rollback.from_version;
    let unknown =
        RolloutView { candidate: rollback.from_version.clone(), ..RolloutView::default() };
    let judged = fleet.judged.as_deref().filter(of_it).unwrap_or(&unknown);
    let ours = ["summary", "description"];
    alert.of_rule(rule, &ours, |placeholder| figure(fleet, judged, id.as_deref(), placeholder))
}

/// The rule that decided on a rollback. Its reason, which outlives a restart, names it as in
/// `fails more than allowed (SessionsFailing): …`; none where two in force have that name.
fn rule_of<'v>(rollback: &'v RollbackView, rules: &'v [RuleView]) -> Option<&'v RuleView> {
    let (_, named) = rollback.reason.split_once(" (")?;
    let is_named = |rule: &&RuleView| {
        named.strip_prefix(rule.name.as_str()).is_some_and(|rest| rest.starts_with("): "))
    };
    let mut found = rules_of(&rollback.fleet, rules).filter(is_named);
    found.next().filter(|_| found.next().is_none())
}

/// What Alertmanager was told, so that it is also told of the end.
#[derive(Debug, Default)]
pub struct Board {
    shown: BTreeMap<Labels, Shown>,
}

#[derive(Debug)]
struct Shown {
    annotations: BTreeMap<String, String>,
    since: Timestamp,
    /// When it was over.
    ended: Option<Timestamp>,
}

impl Board {
    /// Takes what is so now; whether an alert is new, over, or says something else.
    pub fn update(&mut self, alerts: Vec<Alert>, now: Timestamp) -> bool {
        let mut news = false;
        let mut current = BTreeMap::new();
        for alert in alerts {
            let labels = self.known_as(alert.labels);
            let before = self.shown.remove(&labels).filter(|shown| shown.ended.is_none());
            news |= before.as_ref().is_none_or(|shown| shown.annotations != alert.annotations);
            let since = before.map_or(alert.starts_at.unwrap_or(now), |shown| shown.since);
            let shown = Shown { annotations: alert.annotations, since, ended: None };
            current.insert(labels, shown);
        }
        for (labels, mut shown) in std::mem::take(&mut self.shown) {
            news |= shown.ended.is_none();
            let ended = *shown.ended.get_or_insert(now);
            if now.since(ended) < RESOLVED_FOR && ended <= now {
                current.insert(labels, shown);
            }
        }
        self.shown = current;
        news
    }

    /// An alert that is up keeps the rule it began with, whichever decides now: with other labels
    /// it would be another alert, and people would be told of an end that is none.
    fn known_as(&self, labels: Labels) -> Labels {
        // Nearly every one, each second.
        if self.shown.get(&labels).is_some_and(|shown| shown.ended.is_none()) {
            return labels;
        }
        let same = |known: &Labels| but_rule(known).eq(but_rule(&labels));
        let up = self.shown.iter().filter(|(_, shown)| shown.ended.is_none());
        let known = up.map(|(known, _)| known).find(|known| same(known)).cloned();
        known.unwrap_or(labels)
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The body of `POST /api/v2/alerts`.
    #[must_use]
    pub fn payload(&self, now: Timestamp) -> Vec<u8> {
        let alert = |(labels, shown): (&Labels, &Shown)| {
            json!({
                "labels": labels.iter().filter(|(_, value)| !value.is_empty()).collect::<BTreeMap<_, _>>(),
                "annotations": shown.annotations,
                "startsAt": rfc3339(shown.since),
                "endsAt": rfc3339(shown.ended.unwrap_or(now + STANDS_FOR)),
            })
        };
        Value::Array(self.shown.iter().map(alert).collect()).to_string().into_bytes()
    }
}

fn but_rule(labels: &Labels) -> impl Iterator<Item = (&&'static str, &String)> {
    labels.iter().filter(|(name, _)| **name != "rule")
}

#[cfg(test)]
mod tests;
