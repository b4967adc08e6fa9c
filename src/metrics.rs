//! What rollbackd counts of itself.
//!
//! Fleets, versions and rules are labels, so whoever lets one of them go calls `forget_…`: a
//! series lives no longer than what it is about.
//!
//! **Invariant:** a metric that cannot be counted never stops what is being counted, so nothing
//! here fails after [`Metrics::new`].

mod families;
mod process;
mod refused;
mod states;

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Registry, TextEncoder};

use self::families::Families;
pub use self::refused::Refused;
use crate::domain::rollback::State;
use crate::domain::time::Timestamp;

/// Prometheus' text format, as [`Metrics::encode`] writes it.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What became of a webhook of Alertmanager's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertResult {
    /// It named firing alerts, and the controller has them.
    Accepted,
    /// Nothing in it fires.
    Ignored,
    /// It is not a webhook of version 4.
    Malformed,
    /// The controller is busy; Alertmanager will send it again.
    Refused,
}

impl AlertResult {
    const ALL: [Self; 4] = [Self::Accepted, Self::Ignored, Self::Malformed, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
        }
    }
}

/// All of rollbackd's own metrics. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Under names of their own, without the prefix.
    process: Registry,
    families: Families,
}

impl Metrics {
    /// Registers everything on a registry of its own; `version` is rollbackd's, `revision` the
    /// source's it was built from.
    ///
    /// # Errors
    /// Only when a name stands here twice or is not a name.
    pub fn new(version: &str, revision: &str) -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("rollbackd".to_owned()), None)?;
        let families = Families::register(&registry)?;
        let metrics = Self { registry, process: Registry::new(), families };
        with(&metrics.families.build_info, &[version, revision], |gauge| gauge.set(1.0));
        // A counter that exists at 0 shows its first step.
        for result in AlertResult::ALL {
            with(&metrics.families.alerts_received, &[result.as_str()], |counter| {
                counter.inc_by(0.0);
            });
        }
        for refused in Refused::ALL {
            with(&metrics.families.requests_refused, &[refused.as_str()], |counter| {
                counter.inc_by(0.0);
            });
        }
        for outcome in ["written", "failed"] {
            with(&metrics.families.checkpoints, &[outcome], |counter| counter.inc_by(0.0));
        }
        for state in State::PASSING {
            drop(
                metrics
                    .families
                    .rollback_step_duration
                    .get_metric_with_label_values(&[state.name()])?,
            );
        }
        Ok(metrics)
    }

    /// Also says what this process takes, which started at `started_at`.
    ///
    /// # Errors
    /// When it does already.
    pub fn with_process(self, started_at: Timestamp) -> prometheus::Result<Self> {
        process::register(&self.process, started_at)?;
        Ok(self)
    }

    /// Everything in Prometheus' text format, of the type [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// When a collector is unsound.
    pub fn encode(&self) -> prometheus::Result<String> {
        let families = [self.registry.gather(), self.process.gather()].concat();
        TextEncoder::new().encode_to_string(&families)
    }

    /// A rule judged one candidate.
    pub fn evaluated(&self, rule: &str, verdict: &str) {
        with(&self.families.evaluations, &[rule, verdict], prometheus::Counter::inc);
    }

    /// All rules were evaluated `at`, which took `duration`.
    pub fn evaluation_finished(&self, at: Timestamp, duration: Duration) {
        self.families.evaluation_duration.observe(duration.as_secs_f64());
        self.families.last_evaluation_timestamp.set(at.as_seconds());
    }

    /// A query was answered, or not.
    pub fn query_finished(&self, duration: Duration, succeeded: bool) {
        self.families.query_duration.observe(duration.as_secs_f64());
        if !succeeded {
            self.families.query_failures.inc();
        }
    }

    /// The share of a version's sessions that failed, 0 to 1.
    pub fn set_session_failure_ratio(&self, fleet: &str, version: &str, ratio: f64) {
        with(&self.families.session_failure_ratio, &[fleet, version], |gauge| gauge.set(ratio));
    }

    /// The evidence a rule has against a candidate.
    pub fn set_evidence_log10(&self, fleet: &str, version: &str, rule: &str, log10: f64) {
        with(&self.families.evidence_log10, &[fleet, version, rule], |gauge| gauge.set(log10));
    }

    /// What a value rule found for a candidate; without a value the series goes.
    pub fn set_rule_value(&self, fleet: &str, version: &str, rule: &str, value: Option<f64>) {
        let (gauges, labels) = (&self.families.rule_value, [fleet, version, rule]);
        match value {
            Some(value) => with(gauges, &labels, |gauge| gauge.set(value)),
            // An error says that there was none.
            None => drop(gauges.remove_label_values(&labels)),
        }
    }

    /// The evidence at which a candidate of this fleet is convicted.
    pub fn set_evidence_threshold_log10(&self, fleet: &str, log10: f64) {
        with(&self.families.evidence_threshold_log10, &[fleet], |gauge| gauge.set(log10));
    }

    /// What the last look saw of a version: its workers alive and its sessions in progress.
    pub fn set_seen(&self, fleet: &str, version: &str, workers: f64, live: f64) {
        with(&self.families.workers, &[fleet, version], |gauge| gauge.set(workers));
        with(&self.families.live_sessions, &[fleet, version], |gauge| gauge.set(live));
    }

    /// The state a rollout is in; the series of the state before goes.
    pub fn set_rollout_state(&self, fleet: &str, version: &str, state: &str) {
        self.families.rollout_state.set(fleet, version, state);
    }

    /// Only these of a fleet's versions are under observation: what was shown of other rollouts
    /// goes.
    pub fn keep_rollouts(&self, fleet: &str, observed: impl Fn(&str) -> bool) {
        for version in self.families.rollout_state.forget(fleet, |version| !observed(version)) {
            for gauges in [&self.families.evidence_log10, &self.families.rule_value] {
                forget(gauges, |label, value| match label {
                    "fleet" => value == fleet,
                    "version" => value == version,
                    _ => true,
                });
            }
        }
    }

    /// The state of the rollback under way from a version, if there is one in this fleet.
    pub fn set_rollback_state(&self, fleet: &str, under_way: Option<(&str, &str)>) {
        let bad = under_way.map(|(version, _)| version);
        drop(self.families.rollback_state.forget(fleet, |version| Some(version) != bad));
        if let Some((version, state)) = under_way {
            self.families.rollback_state.set(fleet, version, state);
        }
    }

    /// A rollback came to its end.
    pub fn rollback_finished(&self, fleet: &str, outcome: &str) {
        with(&self.families.rollbacks, &[fleet, outcome], prometheus::Counter::inc);
    }

    /// A rollback left a step.
    pub fn rollback_step_finished(&self, step: &str, duration: Duration) {
        with(&self.families.rollback_step_duration, &[step], |histogram| {
            histogram.observe(duration.as_secs_f64());
        });
    }

    /// Sessions still live on a version that drains.
    pub fn set_draining_sessions(&self, fleet: &str, version: &str, sessions: f64) {
        with(&self.families.draining_sessions, &[fleet, version], |gauge| gauge.set(sessions));
    }

    /// Whether a rollback would find workers of the last good version alive, or could start some.
    pub fn set_last_good_ready(&self, fleet: &str, ready: bool) {
        let value = if ready { 1.0 } else { 0.0 };
        with(&self.families.last_good_ready, &[fleet], |gauge| gauge.set(value));
    }

    /// Workers alive of a denied version that no rollback under way takes back; none: no series.
    pub fn set_denied_workers(&self, fleet: &str, version: &str, workers: u32) {
        let vec = &self.families.denied_workers;
        if workers == 0 {
            // Usually not there: a denied version is gone.
            drop(vec.remove_label_values(&[fleet, version]));
        } else {
            with(vec, &[fleet, version], |gauge| gauge.set(f64::from(workers)));
        }
    }

    /// Whether the ledger takes no records, so that nothing is done.
    pub fn set_ledger_failing(&self, failing: bool) {
        self.families.ledger_failing.set(if failing { 1.0 } else { 0.0 });
    }

    /// Every record of the ledger was found to be what it should be, signatures included.
    pub fn set_ledger_verified(&self) {
        self.families.ledger_verified.set(1.0);
    }

    /// A checkpoint was due, and was written or not.
    pub fn checkpoint_finished(&self, written: bool) {
        let outcome = if written { "written" } else { "failed" };
        with(&self.families.checkpoints, &[outcome], prometheus::Counter::inc);
    }

    /// Whether many fleets regress at once, and how many do.
    pub fn set_breaker(&self, open: bool, regressed: usize) {
        self.families.breaker_open.set(if open { 1.0 } else { 0.0 });
        self.families.regressed_fleets.set(regressed as f64);
    }

    /// A webhook came.
    pub fn alert_received(&self, result: AlertResult) {
        with(&self.families.alerts_received, &[result.as_str()], prometheus::Counter::inc);
    }

    /// A request or a connection was refused.
    pub fn request_refused(&self, refused: Refused) {
        with(&self.families.requests_refused, &[refused.as_str()], prometheus::Counter::inc);
    }

    /// A notice was `sent`, `failed` or `refused`.
    pub fn notice_finished(&self, to: &str, outcome: &str) {
        with(&self.families.notices, &[to, outcome], prometheus::Counter::inc);
    }

    /// Records were appended to the ledger.
    pub fn records_appended(&self, count: u64) {
        self.families.ledger_records.inc_by(count);
    }

    /// A version has gone from a fleet: so do its series.
    pub fn forget_version(&self, fleet: &str, version: &str) {
        drop(self.families.rollout_state.forget(fleet, |known| known == version));
        let gauges = [
            &self.families.session_failure_ratio,
            &self.families.evidence_log10,
            &self.families.rule_value,
            &self.families.draining_sessions,
            &self.families.workers,
            &self.families.live_sessions,
        ];
        for vec in gauges {
            forget(vec, |label, value| match label {
                "fleet" => value == fleet,
                "version" => value == version,
                _ => true,
            });
        }
    }

    /// A fleet has gone: so do its series.
    pub fn forget_fleet(&self, fleet: &str) {
        drop(self.families.rollout_state.forget(fleet, |_| true));
        drop(self.families.rollback_state.forget(fleet, |_| true));
        let gauges = [
            &self.families.session_failure_ratio,
            &self.families.evidence_log10,
            &self.families.evidence_threshold_log10,
            &self.families.rule_value,
            &self.families.draining_sessions,
            &self.families.last_good_ready,
            &self.families.denied_workers,
            &self.families.workers,
            &self.families.live_sessions,
        ];
        for vec in gauges {
            forget(vec, |label, value| label != "fleet" || value == fleet);
        }
        forget(&self.families.rollbacks, |label, value| label != "fleet" || value == fleet);
    }

    /// A rule is no longer in force: its series go.
    pub fn forget_rule(&self, rule: &str) {
        for gauges in [&self.families.evidence_log10, &self.families.rule_value] {
            forget(gauges, |label, value| label != "rule" || value == rule);
        }
        forget(&self.families.evaluations, |label, value| label != "rule" || value == rule);
    }
}

/// Does something to one series. Only a wrong number of labels could prevent it.
fn with<B: MetricVecBuilder>(vec: &MetricVec<B>, labels: &[&str], act: impl FnOnce(&B::M)) {
    match vec.get_metric_with_label_values(labels) {
        Ok(metric) => act(&metric),
        Err(error) => tracing::error!(%error, "failed to count"),
    }
}

/// Removes the series all of whose labels, given as name and value, are `gone`.
fn forget<B: MetricVecBuilder>(vec: &MetricVec<B>, gone: impl Fn(&str, &str) -> bool) {
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels = metric.get_label();
            if labels.iter().all(|label| gone(label.name(), label.value())) {
                let named: HashMap<_, _> =
                    labels.iter().map(|label| (label.name(), label.value())).collect();
                // Someone else removed it in between: as wanted.
                drop(vec.remove(&named));
            }
        }
    }
}

#[cfg(test)]
mod tests;
