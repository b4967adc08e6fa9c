//! What the controller shows: the view, the manifests, its metrics and its records' texts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::error;

use crate::config::FleetConfig;
use crate::domain::decision::{Decision, Mode};
use crate::domain::history::Rollout;
use crate::domain::manifest::Manifest;
use crate::domain::rollback::Rollback;
use crate::domain::time::Timestamp;
use crate::evaluate::judge::{Judgement, rule_name, threshold_log10};
use crate::ledger::event::ACTOR;
use crate::ledger::record::{Draft, rfc3339};
use crate::metrics::Metrics;
use crate::ports::inbox::{Outcome, Told};
use crate::ports::ledger::Ledger;
use crate::ports::manifest::SignedManifest;
use crate::ports::metrics::MetricSource;
use crate::ports::platform::Platform;
use crate::ports::view::{
    BreakerView, FleetView, RollbackView, RolloutView, RuleView, VersionView, View,
};
use crate::rules::query::{self, SessionQueries};
use crate::rules::{Group, SessionRule};
use crate::signing::{Signer, canonical_json};

use super::fleet::Fleet;
use super::{Controller, Entry, belongs, evidence};

mod figures;

pub(super) use figures::judged;
use figures::{awaiting, counted_until, narrow, past, values, verdicts};

/// How long a worker may believe a manifest it has.
const MANIFEST_LIFE: Duration = Duration::from_hours(24);

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// Signs the manifests that have changed, or are half through their life.
    pub(super) fn publish(&self) {
        let now = self.ports.clock.now();
        for name in self.fleets.keys() {
            let young = |signed: &SignedManifest| now.since(signed.issued_at) < MANIFEST_LIFE / 2;
            if !self.ports.manifests.borrow().get(name).is_some_and(young) {
                self.publish_one(name);
            }
        }
    }

    /// Signs one fleet's manifest anew and replaces it at once.
    pub(super) fn publish_one(&self, name: &str) {
        let Some(fleet) = self.fleets.get(name) else { return };
        let Some(signed) = sign(&self.ports.signer, name, fleet, self.ports.clock.now()) else {
            error!(fleet = name, "the manifest could not be signed");
            return;
        };
        self.ports.manifests.send_modify(|manifests| {
            Arc::make_mut(manifests).insert(name.to_owned(), signed);
        });
    }

    /// Replaces the view.
    pub(super) fn show(&self) {
        self.publish();
        let fleets = self.fleets.iter().filter(|(name, _)| self.config_of(name).is_some());
        let now = self.ports.clock.now();
        let (seen, open) = (self.regressions(now), self.breaker_is_open(now));
        self.ports.metrics.set_breaker(open, seen.regressed);
        self.ports.metrics.set_ledger_failing(self.ledger_failing.is_some());
        let mut rollbacks: Vec<RollbackView> = self
            .fleets
            .iter()
            .flat_map(|(name, fleet)| {
                fleet.observed.history.rollbacks().iter().map(move |r| (name, fleet, r))
            })
            .map(|(name, fleet, rollback)| self.rollback_view(name, fleet, rollback))
            .collect();
        rollbacks.sort_by_key(|rollback| recorded_as(&rollback.id));
        let view = View {
            ready: self.ready,
            breaker: BreakerView {
                open,
                regressed: seen.regressed,
                fleets: seen.fleets,
                regressed_fleets: self.regressed_fleets(now),
            },
            fleets: fleets
                .map(|(name, fleet)| (name.clone(), self.fleet_view(name, fleet)))
                .collect(),
            rollbacks,
            rules: self.rules_shown.clone(),
            last_seq: self.last_seq,
            recent: self.chronicle.recent(),
            rollouts: self.chronicle.rollouts(),
        };
        self.ports.view.send_replace(Arc::new(view));
    }

    fn fleet_view(&self, name: &str, fleet: &Fleet) -> FleetView {
        let entry = self.entries.iter().find(|entry| belongs(name, entry));
        let last_good = fleet.observed.history.last_good();
        let readiness = fleet.readiness();
        self.ports.metrics.set_last_good_ready(name, readiness.is_ready());
        self.count_fleet(name, fleet);
        let versions = fleet.observed.seen.iter().map(|(version, seen)| VersionView {
            version: version.to_string(),
            workers: u32::try_from(seen.workers.len()).unwrap_or(u32::MAX),
            live: seen.live,
            denied: fleet.observed.history.denied().contains(version),
            returned: fleet.returned(version),
        });
        let rollouts = fleet.observed.history.rollouts().values().map(|rollout| {
            let groups = entry.map_or(&[][..], |entry| &entry.groups);
            let threshold =
                entry.map_or(f64::NAN, |e| threshold_log10(e.config.false_rollback_rate, groups));
            let told = fleet.told.get(&rollout.candidate);
            RolloutView {
                candidate: rollout.candidate.to_string(),
                baseline: rollout.baseline.as_ref().map(ToString::to_string),
                started_at: rfc3339(rollout.started_at),
                observe_until: rfc3339(rollout.observe_until),
                held: told.and_then(Decision::ground).map(|ground| ground.reason.to_owned()),
                held_rule: told.and_then(Decision::ground).and_then(|ground| ground.rule.clone()),
                counted_until: counted_until(fleet, rollout).map(rfc3339),
                decision: told.map_or("wait", Decision::name).to_owned(),
                verdicts: verdicts(fleet, rollout, groups, threshold),
                values: values(fleet, rollout, groups),
                narrow: narrow(fleet, rollout, groups, threshold),
            }
        });
        let pause = fleet.observed.history.paused(self.ports.clock.now());
        FleetView {
            fleet: name.to_owned(),
            paused: pause.is_some(),
            paused_until: pause.and_then(|pause| pause.until).map(rfc3339),
            mode: entry.map_or("", |entry| mode_name(entry.config.mode)).to_owned(),
            last_good: last_good.map(ToString::to_string),
            good: fleet.observed.history.good().map(ToString::to_string).collect(),
            last_good_ready: readiness.is_ready(),
            last_good_state: readiness.text(),
            versions: versions.collect(),
            rollouts: rollouts.collect(),
            rollback: fleet.observed.history.rollback().map(|rollback| rollback.id.clone()),
            holding: self.ledger_failing.clone().or_else(|| fleet.holding.clone()),
            last_evaluation: entry.map(|entry| rfc3339(entry.last_look)),
            when_unsure: entry.map_or("", |e| e.config.when_unsure.name()).to_owned(),
            denied: fleet.observed.history.denied().iter().map(ToString::to_string).collect(),
            past: past(&fleet.observed.history),
            judged: fleet.judged.clone(),
        }
    }

    /// What its own metrics say of one fleet.
    fn count_fleet(&self, name: &str, fleet: &Fleet) {
        let denied = fleet.denied_workers(self.ports.clock.now());
        for version in fleet.observed.history.denied() {
            let workers = denied.get(version).copied().unwrap_or(0);
            self.ports.metrics.set_denied_workers(name, version.as_str(), workers);
        }
        let under_way = fleet.observed.history.rollback();
        let state = under_way.map(|rollback| (rollback.bad.as_str(), rollback.state.name()));
        self.ports.metrics.set_rollback_state(name, state);
        let rollouts = fleet.observed.history.rollouts();
        let observed = |version: &str| rollouts.keys().any(|known| known.as_str() == version);
        self.ports.metrics.keep_rollouts(name, observed);
        for (version, seen) in &fleet.observed.seen {
            let workers = seen.workers.len() as f64;
            self.ports.metrics.set_seen(name, version.as_str(), workers, seen.live);
        }
    }

    fn rollback_view(&self, name: &str, fleet: &Fleet, rollback: &Rollback) -> RollbackView {
        let sighting = fleet.sighting(&rollback.good, &rollback.bad, self.ports.clock.now());
        RollbackView {
            id: rollback.id.clone(),
            fleet: name.to_owned(),
            from_version: rollback.bad.to_string(),
            version: rollback.good.to_string(),
            state: rollback.state.name().to_owned(),
            reason: rollback.reason.clone(),
            started_at: rfc3339(rollback.chosen_at),
            finished_at: rollback.state.is_final().then(|| rfc3339(rollback.state_since)),
            bad_workers: sighting.bad_workers,
            bad_live: sighting.bad_live,
            good_workers: sighting.good_able,
            workers_needed: rollback.workers_needed,
            state_since: rfc3339(rollback.state_since),
            awaiting: awaiting(rollback.state).map(ToOwned::to_owned),
            steps: self.chronicle.steps(&rollback.id),
            live: fleet.live_since(&rollback.id),
        }
    }
}

/// The record that a rollback's id ends with: their order, whatever the clock said.
fn recorded_as(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|seq| seq.parse().ok()).unwrap_or_default()
}

type Annotations = BTreeMap<String, String>;

/// The rules in force, as they are shown.
pub(super) fn rule_views(entries: &[Entry]) -> Arc<[RuleView]> {
    let of_entry = |entry: &Entry| {
        let config = entry.config.clone();
        entry.groups.iter().flat_map(|group| rules_of(group, &config)).collect::<Vec<_>>()
    };
    entries.iter().flat_map(of_entry).collect()
}

fn rules_of(group: &Group, config: &FleetConfig) -> Vec<RuleView> {
    let view =
        |name: &str, kind: &str, digest: &str, annotations: &Annotations, queries| RuleView {
            group: group.name.clone(),
            name: name.to_owned(),
            annotations: annotations.clone(),
            fleet: group.fleet.to_string(),
            file: group.file.clone(),
            kind: kind.to_owned(),
            digest: digest.to_owned(),
            queries,
        };
    let sessions = group.sessions.iter().map(|rule| {
        let queries = queries(config, rule, group.interval);
        view(&rule.name, "sessions", &rule.digest, &rule.annotations, queries)
    });
    let values = group.values.iter().map(|rule| {
        let FleetConfig { workers, by, version_label, .. } = config;
        let query = query::value(rule, workers, by, version_label, group.interval);
        let queries = BTreeMap::from([("value".to_owned(), query)]);
        view(&rule.name, "value", &rule.digest, &rule.annotations, queries)
    });
    sessions.chain(values).collect()
}

/// The queries of a rule, by what they count.
pub(super) fn queries(
    config: &FleetConfig,
    rule: &SessionRule,
    interval: Duration,
) -> BTreeMap<String, String> {
    let queries = SessionQueries::new(rule, &config.by, &config.version_label, interval);
    let all = [
        ("started", Some(queries.started)),
        ("failed", Some(queries.failed)),
        ("live", queries.live),
        ("dropped", queries.dropped),
        ("died", queries.died),
    ];
    all.into_iter().filter_map(|(name, query)| Some((name.to_owned(), query?))).collect()
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Automatic => "automatic",
        Mode::Approve => "approve",
        Mode::Observe => "observe",
    }
}

fn sign(signer: &Signer, name: &str, fleet: &Fleet, now: Timestamp) -> Option<SignedManifest> {
    let history = &fleet.observed.history;
    let admitted = history.last_good().into_iter().chain(history.rollouts().keys());
    let manifest = Manifest {
        fleet: name.to_owned(),
        serial: history.serial(),
        admitted: admitted.cloned().collect(),
        denied: history.denied().clone(),
        draining: history.draining(),
        last_good: history.last_good().cloned(),
        issued_at: now,
        expires_at: now + MANIFEST_LIFE,
    };
    let versions = |versions: &std::collections::BTreeSet<crate::domain::version::Version>| {
        versions.iter().map(|version| json!(version.as_str())).collect::<Value>()
    };
    let bytes = canonical_json(&json!({
        "fleet": manifest.fleet,
        "serial": manifest.serial,
        "admitted": versions(&manifest.admitted),
        "denied": versions(&manifest.denied),
        "draining": versions(&manifest.draining),
        "last_good": manifest.last_good.as_ref().map(crate::domain::version::Version::as_str),
        "issued_at": rfc3339(manifest.issued_at),
        "expires_at": rfc3339(manifest.expires_at),
    }))
    .ok()?;
    Some(SignedManifest {
        signature: signer.sign(&bytes),
        manifest_json: String::from_utf8(bytes).ok()?,
        serial: manifest.serial,
        issued_at: now,
        key: signer.public_key().to_owned(),
    })
}

/// Counts a judgement in the controller's own metrics.
pub(super) fn count(
    metrics: &Metrics,
    fleet: &str,
    rollout: &Rollout,
    groups: &[Group],
    judgement: &Judgement,
    threshold_log10: f64,
) {
    let candidate = rollout.candidate.as_str();
    metrics.set_rollout_state(fleet, candidate, judgement.state());
    metrics.set_evidence_threshold_log10(fleet, threshold_log10);
    for (group, rule, watch) in evidence::values(groups, judgement) {
        let name = rule_name(group, &rule.name);
        metrics.evaluated(&name, watch.verdict().name());
        metrics.set_rule_value(fleet, candidate, &name, watch.value());
    }
    for (group, number, watch) in &judgement.rules {
        let Some(group) = groups.get(*group) else { continue };
        let Some(rule) = group.sessions.get(*number) else { continue };
        let observation = &watch.observation;
        let name = rule_name(group, &rule.name);
        metrics.evaluated(&name, observation.verdict(threshold_log10).name());
        if let Some(log10) = observation.evidence().strongest_log10() {
            metrics.set_evidence_log10(fleet, candidate, &name, log10);
        }
        let total = observation.total();
        let sides = [
            (Some(&rollout.candidate), total.candidate),
            (rollout.baseline.as_ref(), total.control),
        ];
        for (version, counts) in sides {
            if let Some(version) = version.filter(|_| counts.started > 0) {
                let ratio = counts.failed as f64 / counts.started as f64;
                metrics.set_session_failure_ratio(fleet, version.as_str(), ratio);
            }
        }
    }
}

/// The record of how far a system outside has been told.
pub(super) fn told(at: Timestamp, told: &Told) -> Draft {
    let (event, result, reason) = match &told.outcome {
        Outcome::Begun => ("notice.begun", "ok", None),
        Outcome::Delivered => ("notice.delivered", "ok", None),
        Outcome::Refused(reason) => ("notice.refused", "refused", Some(reason.as_str())),
    };
    let mut extra = Map::new();
    extra.insert("up_to_seq".to_owned(), told.up_to_seq.into());
    if let Some(reason) = reason {
        extra.insert("reason".to_owned(), reason.into());
    }
    Draft {
        at,
        event: event.to_owned(),
        actor: ACTOR.to_owned(),
        target: told.sink.to_owned(),
        result: result.to_owned(),
        version: None,
        extra,
    }
}

/// The record of a refused worker.
pub(super) fn rejected(
    at: Timestamp,
    fleet: &str,
    worker_id: String,
    version: String,
    reason: String,
) -> Draft {
    let mut extra = Map::new();
    extra.insert("fleet".to_owned(), fleet.into());
    extra.insert("reason".to_owned(), reason.into());
    Draft {
        at,
        event: "worker.rejected".to_owned(),
        actor: ACTOR.to_owned(),
        target: worker_id,
        result: "rejected".to_owned(),
        version: Some(version),
        extra,
    }
}

/// The record of a decision, with everything it rests on.
pub(super) fn decided(
    at: Timestamp,
    fleet: &str,
    event: &str,
    rollout: &Rollout,
    decision: &Decision,
    reason: &str,
    evidence: Map<String, Value>,
) -> Draft {
    let mut extra = Map::new();
    extra.insert("fleet".to_owned(), fleet.into());
    let baseline = rollout.baseline.as_ref().map(ToString::to_string);
    extra.insert("baseline".to_owned(), json!(baseline));
    extra.insert("decision".to_owned(), decision.name().into());
    extra.insert("reason".to_owned(), reason.into());
    extra.extend(evidence);
    Draft {
        at,
        event: event.to_owned(),
        actor: ACTOR.to_owned(),
        target: fleet.to_owned(),
        result: decision.name().to_owned(),
        version: Some(rollout.candidate.to_string()),
        extra,
    }
}
