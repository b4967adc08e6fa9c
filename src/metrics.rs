//! What rollbackd counts of itself.
//!
//! Fleets, versions and rules are labels, so whoever lets one of them go calls `forget_…`: a
//! series lives no longer than what it is about.
//!
//! **Invariant:** a metric that cannot be counted never stops what is being counted, so nothing
//! here fails after [`Metrics::new`].

mod families;
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
        let metrics = Self { families: Families::register(&registry)?, registry };
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

    /// Where further collectors may register; `rollbackd_` is put before their names.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything in Prometheus' text format, of the type [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// When a collector registered elsewhere is unsound.
    pub fn encode(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
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
mod tests {
    use super::*;

    fn series(metrics: &Metrics, containing: &str) -> Vec<String> {
        let text = metrics.encode().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(containing));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn every_metric_has_the_prefix_and_is_there_once_used() {
        let metrics = Metrics::new("1.2.3", "abc").unwrap();
        metrics.evaluated("sessions/Failing", "healthy");
        metrics.evaluation_finished(Timestamp::from_millis(1_500), Duration::from_millis(20));
        metrics.query_finished(Duration::from_millis(5), false);
        metrics.set_session_failure_ratio("voice", "v2", 0.25);
        metrics.set_evidence_log10("voice", "v2", "sessions/Failing", 1.5);
        metrics.set_evidence_threshold_log10("voice", 3.3);
        metrics.set_rollout_state("voice", "v2", "observing");
        metrics.set_rollback_state("voice", Some(("v2", "starting")));
        metrics.set_seen("voice", "v2", 2.0, 7.0);
        metrics.rollback_finished("voice", "clean");
        metrics.rollback_step_finished("draining", Duration::from_secs(90));
        metrics.set_draining_sessions("voice", "v2", 4.0);
        metrics.set_last_good_ready("voice", true);
        metrics.set_denied_workers("voice", "v2", 1);
        metrics.set_ledger_failing(true);
        metrics.set_ledger_verified();
        metrics.set_breaker(true, 4);
        metrics.notice_finished("cdevents", "sent");
        metrics.records_appended(2);
        for want in [
            r#"rollbackd_build_info{revision="abc",version="1.2.3"} 1"#,
            r#"rollbackd_evaluations_total{rule="sessions/Failing",verdict="healthy"} 1"#,
            "rollbackd_evaluation_duration_seconds_count 1",
            "rollbackd_query_duration_seconds_count 1",
            "rollbackd_query_failures_total 1",
            r#"rollbackd_session_failure_ratio{fleet="voice",version="v2"} 0.25"#,
            r#"rollbackd_evidence_log10{fleet="voice",rule="sessions/Failing",version="v2"} 1.5"#,
            r#"rollbackd_rollout_state{fleet="voice",state="observing",version="v2"} 1"#,
            r#"rollbackd_evidence_threshold_log10{fleet="voice"} 3.3"#,
            r#"rollbackd_rollback_state{fleet="voice",state="starting",version="v2"} 1"#,
            r#"rollbackd_workers{fleet="voice",version="v2"} 2"#,
            r#"rollbackd_live_sessions{fleet="voice",version="v2"} 7"#,
            r#"rollbackd_rollbacks_total{fleet="voice",outcome="clean"} 1"#,
            r#"rollbackd_rollback_step_duration_seconds_count{step="draining"} 1"#,
            r#"rollbackd_draining_sessions{fleet="voice",version="v2"} 4"#,
            r#"rollbackd_last_good_ready{fleet="voice"} 1"#,
            r#"rollbackd_denied_workers{fleet="voice",version="v2"} 1"#,
            "rollbackd_ledger_failing 1",
            "rollbackd_ledger_verified 1",
            "rollbackd_breaker_open 1",
            "rollbackd_regressed_fleets 4",
            r#"rollbackd_alerts_received_total{result="malformed"} 0"#,
            r#"rollbackd_notices_total{outcome="sent",to="cdevents"} 1"#,
            "rollbackd_ledger_records_total 2",
            "rollbackd_last_evaluation_timestamp_seconds 1.5",
        ] {
            assert_eq!(series(&metrics, want), [want]);
        }
    }

    #[test]
    fn a_state_is_shown_alone_and_only_while_there_is_one() {
        let metrics = Metrics::new("1", "a").unwrap();
        metrics.set_rollback_state("voice", Some(("v2", "starting")));
        metrics.set_rollback_state("chat", Some(("v2", "stuck")));
        metrics.set_rollback_state("voice", Some(("v2", "draining")));
        let state = |fleet, state| {
            format!(r#"rollbackd_rollback_state{{fleet="{fleet}",state="{state}",version="v2"}} 1"#)
        };
        let shown = series(&metrics, "rollbackd_rollback_state");
        assert_eq!(shown, [state("chat", "stuck"), state("voice", "draining")]);
        metrics.set_rollback_state("voice", None);
        assert_eq!(series(&metrics, "rollbackd_rollback_state"), [state("chat", "stuck")]);

        metrics.set_rollout_state("voice", "v3", "suspect");
        metrics.set_evidence_log10("voice", "v3", "sessions/Failing", 1.5);
        metrics.keep_rollouts("voice", |version| version == "v3");
        assert_eq!(series(&metrics, "rollbackd_rollout_state").len(), 1);
        metrics.keep_rollouts("voice", |_| false);
        assert_eq!(series(&metrics, "rollbackd_rollout_state"), [""; 0]);
        assert_eq!(series(&metrics, "rollbackd_evidence_log10"), [""; 0]);
    }

    #[test]
    fn a_rollout_is_in_one_state_at_a_time() {
        let metrics = Metrics::new("1", "a").unwrap();
        metrics.set_rollout_state("voice", "v2", "observing");
        metrics.set_rollout_state("voice", "v3", "observing");
        metrics.set_rollout_state("voice", "v2", "promoted");
        let want = [
            r#"rollbackd_rollout_state{fleet="voice",state="observing",version="v3"} 1"#,
            r#"rollbackd_rollout_state{fleet="voice",state="promoted",version="v2"} 1"#,
        ];
        assert_eq!(series(&metrics, "rollout_state"), want);
    }

    #[test]
    fn series_go_when_what_they_are_about_goes() {
        let metrics = Metrics::new("1", "a").unwrap();
        for fleet in ["voice", "chat"] {
            for version in ["v1", "v2"] {
                metrics.set_session_failure_ratio(fleet, version, 0.1);
                metrics.set_evidence_log10(fleet, version, "g/a", 0.1);
                metrics.set_evidence_log10(fleet, version, "g/b", 0.1);
                metrics.set_rollout_state(fleet, version, "observing");
                metrics.set_draining_sessions(fleet, version, 1.0);
            }
            metrics.set_last_good_ready(fleet, true);
            metrics.rollback_finished(fleet, "clean");
        }
        metrics.evaluated("g/b", "healthy");

        metrics.forget_version("voice", "v2");
        let left = series(&metrics, r#"fleet="voice""#);
        assert_eq!(left.iter().filter(|line| line.contains("v2")).count(), 0, "{left:?}");
        assert_eq!(left.len(), 7, "{left:?}");

        metrics.forget_fleet("voice");
        assert_eq!(series(&metrics, r#"fleet="voice""#).len(), 0);
        assert_eq!(series(&metrics, r#"fleet="chat""#).len(), 12);

        metrics.forget_rule("g/b");
        assert_eq!(series(&metrics, "g/b").len(), 0);
        assert_eq!(series(&metrics, "g/a").len(), 2);
    }
}
