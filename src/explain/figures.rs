//! Each test's figures, from the view or from a record.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::ledger::record::Record;
use crate::ports::view::VerdictView;

/// What one test of one rule says of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Test {
    /// `group/rule`; of what is left without a slice, `group/rule without label value`.
    pub rule: String,
    /// What it compares with: `baseline` or `ceiling`.
    pub against: &'static str,
    /// Sessions the candidate started, …
    pub started: u64,
    /// … and failed.
    pub failed: u64,
    /// What it is compared with: `concurrent`, `history` or `none`.
    pub control: String,
    /// Sessions the control started, …
    pub control_started: u64,
    /// … and failed.
    pub control_failed: u64,
    /// How much more failures scatter than chance; each counts as one divided by it.
    pub dispersion: f64,
    /// What is allowed: a factor on the baseline's share, or a share.
    pub allowed: f64,
    /// The evidence that it fails more than that, as log10 of odds; none if it does not compute.
    pub evidence_log10: Option<f64>,
    /// The evidence that convicts, as log10 of odds.
    pub threshold_log10: f64,
    /// Sessions that the candidate must still start until then, if things go on as they went in
    /// the last ticks; none where it never comes to that, or is there already.
    pub sessions_missing: Option<f64>,
    /// How long that takes at the present rate, in seconds.
    pub seconds_missing: Option<f64>,
}

impl Test {
    /// Whether this test convicts.
    #[must_use]
    pub fn convicts(&self) -> bool {
        self.evidence_log10.is_some_and(|log10| log10 >= self.threshold_log10)
    }
}

/// The tests of a rule's verdict: against the baseline, against the ceiling.
pub(super) fn tests(verdict: &VerdictView) -> Vec<Test> {
    let recent = &verdict.recent;
    let session_seconds =
        recent.ticks as f64 * verdict.interval_seconds / (recent.started.max(1)) as f64;
    let test = |against, allowed: Option<f64>, evidence: Option<f64>, growth: Option<f64>| {
        let evidence_log10 = evidence.filter(|log10| log10.is_finite());
        let missing = evidence_log10.map(|log10| verdict.threshold_log10 - log10);
        let sessions = missing
            .zip(growth)
            .filter(|(missing, growth)| *missing > 0.0 && *growth > 0.0)
            .map(|(missing, growth)| (missing / growth).ceil());
        Some(Test {
            rule: verdict.rule.clone(),
            against,
            started: verdict.started,
            failed: verdict.failed,
            control: verdict.control.clone(),
            control_started: verdict.control_started,
            control_failed: verdict.control_failed,
            dispersion: verdict.dispersion,
            allowed: allowed?,
            evidence_log10,
            threshold_log10: verdict.threshold_log10,
            sessions_missing: sessions,
            seconds_missing: sessions.map(|sessions| (sessions * session_seconds).ceil()),
        })
    };
    let baseline =
        test("baseline", verdict.tolerance, verdict.baseline_log10, recent.baseline_growth_log10);
    let ceiling =
        test("ceiling", verdict.ceiling, verdict.ceiling_log10, recent.ceiling_growth_log10);
    baseline.into_iter().chain(ceiling).collect()
}

/// The verdicts that a decision's record holds.
pub(super) fn recorded(record: &Record) -> Vec<VerdictView> {
    let rules = record.extra.get("rules").and_then(Value::as_array);
    rules.into_iter().flatten().map(verdict).collect()
}

fn verdict(rule: &Value) -> VerdictView {
    let number = |key: &str| rule[key].as_f64();
    let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    let ticks = rule["ticks"].as_array().map_or(&[][..], Vec::as_slice);
    let sum = |side: usize, part: usize| -> u64 {
        ticks.iter().filter_map(|tick| tick[side][part].as_u64()).sum()
    };
    VerdictView {
        rule: text("rule"),
        baseline_log10: number("baseline_log10"),
        ceiling_log10: number("ceiling_log10"),
        threshold_log10: number("threshold_log10").unwrap_or(f64::NAN),
        control: text("control"),
        dispersion: number("dispersion").unwrap_or(1.0),
        started: sum(0, 0),
        failed: sum(0, 1),
        control_started: sum(1, 0),
        control_failed: sum(1, 1),
        dropped: rule["dropped"].as_u64().unwrap_or(0),
        tolerance: number("tolerance"),
        ceiling: number("ceiling"),
        interval_seconds: number("interval_seconds").unwrap_or(f64::NAN),
        ticks: ticks.len() as u64,
        ..VerdictView::default()
    }
}
