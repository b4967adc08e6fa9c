//! The metric families: their names, help texts, labels and buckets.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, Opts,
    Registry, Result,
};

use super::states::States;

/// Sub-second work: queries and evaluations.
const WORK_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Steps of a rollback: from a signature to a drain of hours.
const STEP_SECONDS: &[f64] =
    &[0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0];

/// All families; [`super::Metrics`] says what each is for.
#[derive(Clone, Debug)]
pub(super) struct Families {
    pub(super) build_info: GaugeVec,
    pub(super) evaluations: CounterVec,
    pub(super) evaluation_duration: Histogram,
    pub(super) query_duration: Histogram,
    pub(super) query_failures: IntCounter,
    pub(super) session_failure_ratio: GaugeVec,
    pub(super) evidence_log10: GaugeVec,
    pub(super) evidence_threshold_log10: GaugeVec,
    pub(super) rule_value: GaugeVec,
    pub(super) rollout_state: States,
    pub(super) rollback_state: States,
    pub(super) workers: GaugeVec,
    pub(super) live_sessions: GaugeVec,
    pub(super) rollbacks: CounterVec,
    pub(super) rollback_step_duration: HistogramVec,
    pub(super) draining_sessions: GaugeVec,
    pub(super) last_good_ready: GaugeVec,
    pub(super) denied_workers: GaugeVec,
    pub(super) ledger_failing: Gauge,
    pub(super) ledger_verified: Gauge,
    pub(super) checkpoints: CounterVec,
    pub(super) breaker_open: Gauge,
    pub(super) regressed_fleets: Gauge,
    pub(super) alerts_received: CounterVec,
    pub(super) requests_refused: CounterVec,
    pub(super) notices: CounterVec,
    pub(super) ledger_records: IntCounter,
    pub(super) last_evaluation_timestamp: Gauge,
}

impl Families {
    /// Registers every family.
    #[rustfmt::skip]
    pub(super) fn register(r: &Registry) -> Result<Self> {
        Ok(Self {
            build_info: gauges(r, "build_info", "1, labelled with the version and the revision it was built from.", &["version", "revision"])?,
            evaluations: counters(r, "evaluations_total", "Times a rule judged a candidate, by verdict.", &["rule", "verdict"])?,
            evaluation_duration: histogram(r, "evaluation_duration_seconds", "How long an evaluation of all rules took.", WORK_SECONDS)?,
            query_duration: histogram(r, "query_duration_seconds", "How long Prometheus took to answer a query.", WORK_SECONDS)?,
            query_failures: registered(r, IntCounter::new("query_failures_total", "Queries that got no usable answer.")?)?,
            session_failure_ratio: gauges(r, "session_failure_ratio", "Share of a version's sessions that failed or were dropped under observation.", &["fleet", "version"])?,
            evidence_log10: gauges(r, "evidence_log10", "Evidence against a candidate: log10 of the e-value.", &["fleet", "version", "rule"])?,
            evidence_threshold_log10: gauges(r, "evidence_threshold_log10", "Evidence at which a candidate is convicted: log10 of the e-value.", &["fleet"])?,
            rule_value: gauges(r, "rule_value", "What a value rule found for a candidate.", &["fleet", "version", "rule"])?,
            rollout_state: States::new(gauges(r, "rollout_state", "1 for the state a rollout is in.", &["fleet", "version", "state"])?),
            rollback_state: States::new(gauges(r, "rollback_state", "1 for the state the rollback under way from a version is in.", &["fleet", "version", "state"])?),
            workers: gauges(r, "workers", "Workers of a version seen alive.", &["fleet", "version"])?,
            live_sessions: gauges(r, "live_sessions", "Sessions of a version in progress.", &["fleet", "version"])?,
            rollbacks: counters(r, "rollbacks_total", "Rollbacks that came to an end, by outcome.", &["fleet", "outcome"])?,
            rollback_step_duration: histograms(r, "rollback_step_duration_seconds", "How long a rollback stayed in a step.", STEP_SECONDS, &["step"])?,
            draining_sessions: gauges(r, "draining_sessions", "Sessions still live on a version that drains.", &["fleet", "version"])?,
            last_good_ready: gauges(r, "last_good_ready", "1 if workers of the last good version take sessions, or its start was checked and would work.", &["fleet"])?,
            denied_workers: gauges(r, "denied_workers", "Workers alive of a denied version that no rollback under way takes back.", &["fleet", "version"])?,
            ledger_failing: registered(r, Gauge::new("ledger_failing", "1 while the ledger takes no records, so that nothing is done.")?)?,
            ledger_verified: registered(r, Gauge::new("ledger_verified", "1 once every hash and signature in the ledger was found to hold since the start.")?)?,
            checkpoints: counters(r, "checkpoints_total", "Checkpoints of the ledger at the configured pace, by outcome: written or failed.", &["outcome"])?,
            breaker_open: registered(r, Gauge::new("breaker_open", "1 while so many fleets regress at once that none is rolled back by itself.")?)?,
            regressed_fleets: registered(r, Gauge::new("regressed_fleets", "Fleets that regressed within the breaker's time.")?)?,
            alerts_received: counters(r, "alerts_received_total", "Webhooks of Alertmanager's, by what became of them.", &["result"])?,
            requests_refused: counters(r, "requests_refused_total", "Requests and connections refused, by reason.", &["reason"])?,
            notices: counters(r, "notices_total", "Notices to people and systems, by whom they are for and their outcome.", &["to", "outcome"])?,
            ledger_records: registered(r, IntCounter::new("ledger_records_total", "Records appended to the ledger.")?)?,
            last_evaluation_timestamp: registered(r, Gauge::new("last_evaluation_timestamp_seconds", "When rules were last evaluated, since the Unix epoch.")?)?,
        })
    }
}

fn histogram(r: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
    registered(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
}

fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    by: &[&str],
) -> Result<HistogramVec> {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(r, HistogramVec::new(opts, by)?)
}

fn counters(r: &Registry, name: &str, help: &str, by: &[&str]) -> Result<CounterVec> {
    registered(r, CounterVec::new(Opts::new(name, help), by)?)
}

fn gauges(r: &Registry, name: &str, help: &str, by: &[&str]) -> Result<GaugeVec> {
    registered(r, GaugeVec::new(Opts::new(name, help), by)?)
}

fn registered<C: Collector + Clone + 'static>(r: &Registry, metric: C) -> Result<C> {
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}
