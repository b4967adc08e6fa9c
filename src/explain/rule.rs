//! What one rule says, in sentences.

use std::time::Duration;

use super::figures::{Test, tests};
use super::words::{about, clock, odds, part, ratio, share, span, thousands};
use crate::ports::view::{ValueView, VerdictView};

/// A dispersion that is worth a sentence.
const DISPERSION_TOLD: f64 = 1.05;

/// What a rule says of a candidate now; `left` is how long it is still observed.
pub(super) fn now(
    verdict: &VerdictView,
    candidate: &str,
    baseline: &str,
    left: Option<Duration>,
) -> Vec<String> {
    let mut sentences = vec![format!(
        "{}: {}. {}",
        verdict.rule,
        meaning(&verdict.verdict, baseline),
        counts(verdict, candidate, baseline)
    )];
    if verdict.silent_ticks > 0 {
        let silent = Duration::from_secs_f64(
            (f64::from(verdict.silent_ticks) * verdict.interval_seconds).clamp(0.0, 1e9),
        );
        sentences.push(format!("For {} no sample of its sessions has come.", span(silent)));
    }
    for test in tests(verdict) {
        sentences.push(format!(
            "{} {}",
            standing(&test, baseline),
            missing(&test, verdict, (candidate, baseline), left)
        ));
    }
    sentences
}

/// What a rule said when it was decided.
pub(super) fn then(verdict: &VerdictView, candidate: &str, baseline: &str) -> Vec<String> {
    let mut sentences =
        vec![format!("{} then: {}", verdict.rule, counts(verdict, candidate, baseline))];
    sentences.extend(tests(verdict).iter().map(|test| standing(test, baseline)));
    sentences
}

/// What a value rule says of a candidate.
pub(super) fn value(rule: &ValueView, candidate: &str) -> String {
    let value = match rule.value {
        Some(value) => format!("{candidate} has {value}"),
        None => format!("{candidate} has no value"),
    };
    let told = rule.escalate_above.map(|limit| format!(" People are told above {limit}."));
    let lasting = span(Duration::from_secs_f64(rule.for_seconds.clamp(0.0, 1e9)));
    let rolled_back = rule
        .rollback_above
        .map(|limit| format!(" It is rolled back when above {limit} for {lasting}."));
    let since = rule
        .over_since
        .as_ref()
        .map(|since| format!(" It has been above that since {}.", clock(since)));
    let meaning = match rule.verdict.as_str() {
        "healthy" => "healthy",
        "pending" => "over the limit that rolls back, not for long enough yet",
        "over" => "over the limit above which people are told",
        "regressed" => "regressed, over the limit for long enough",
        "no_data" => "no data, its workers are alive and the value is not seen",
        other => other,
    };
    let parts = [told, rolled_back, since].map(Option::unwrap_or_default).concat();
    format!("{}: {meaning}. {value}.{parts}", rule.rule)
}

fn meaning(verdict: &str, baseline: &str) -> String {
    match verdict {
        "healthy" => "healthy, nothing speaks against it".to_owned(),
        "suspect" => "suspect, there is evidence against it and not enough to act on".to_owned(),
        "regressed" => "regressed, it fails more than is allowed".to_owned(),
        "no_data" => "no data, its workers are alive and their sessions are not seen".to_owned(),
        "outage" => {
            format!("an outage, it failed while {baseline} did as well, so no version is to blame")
        }
        other => other.to_owned(),
    }
}

/// What was counted on both sides.
fn counts(verdict: &VerdictView, candidate: &str, baseline: &str) -> String {
    let sessions = format!(" sessions of {candidate} failed");
    let failed = part(verdict.failed, verdict.started, &sessions);
    let of_control = part(verdict.control_failed, verdict.control_started, "");
    let compared = match verdict.control.as_str() {
        "concurrent" => format!("{failed}; of {baseline} at the same time {of_control}."),
        "history" => {
            format!("{failed}; of {baseline}, in its past from before the rollout, {of_control}.")
        }
        _ => format!(
            "{failed}. There is nothing to compare it with: {baseline} takes too few sessions now, \
             and none were counted before the rollout. Only a ceiling can judge."
        ),
    };
    let dropped = (verdict.dropped > 0).then(|| {
        format!(
            " Workers that died took {} sessions with them; each such worker counts as one failure.",
            thousands(verdict.dropped as f64)
        )
    });
    let bursts = (verdict.dispersion >= DISPERSION_TOLD).then(|| {
        let times = verdict.dispersion;
        format!(" Failures here come in bursts, so each counts as 1/{times:.1} of one.")
    });
    compared + &dropped.unwrap_or_default() + &bursts.unwrap_or_default()
}

/// How far a test is.
fn standing(test: &Test, baseline: &str) -> String {
    let allowed = match test.against {
        "baseline" if test.allowed > 1.0 => {
            format!("Against {baseline} (at most {} times its share may fail)", test.allowed)
        }
        "baseline" => format!("Against {baseline} (no more than its share may fail)"),
        _ => format!("Against the ceiling (at most {} may fail)", share(test.allowed)),
    };
    let needed = odds(test.threshold_log10);
    match test.evidence_log10 {
        Some(log10) if log10 > 0.0 => {
            format!("{allowed} the evidence is {}, and {needed} convicts.", odds(log10))
        }
        Some(_) => format!("{allowed} there is no evidence; {needed} convicts."),
        None => format!("{allowed} the evidence cannot be told; {needed} convicts."),
    }
}

/// What a test still needs.
fn missing(
    test: &Test,
    verdict: &VerdictView,
    (candidate, baseline): (&str, &str),
    left: Option<Duration>,
) -> String {
    if test.convicts() {
        return "That is enough.".to_owned();
    }
    let recent = &verdict.recent;
    if recent.started == 0 {
        return "It has nothing to go by yet.".to_owned();
    }
    if test.against == "baseline" && recent.baseline_growth_log10.is_none() {
        return "It cannot decide: there is nothing to compare with.".to_owned();
    }
    let mut lately = format!("{} of {candidate}", ratio(recent.failed, recent.started));
    if test.against == "baseline" {
        let of_control = ratio(recent.control_failed, recent.control_started);
        lately = format!("{lately} and {of_control} of {baseline}");
    }
    let (Some(sessions), Some(seconds)) = (test.sessions_missing, test.seconds_missing) else {
        return format!("While things go on as lately ({lately} fails), it will not convict.");
    };
    let takes = Duration::from_secs_f64(seconds.clamp(0.0, 1e9));
    let late = match left {
        Some(left) if takes > left => ", longer than it is still observed",
        Some(_) | None => "",
    };
    format!(
        "If things go on as lately ({lately} fails), that takes about {} more sessions, some \
         {}{late}.",
        thousands(about(sessions)),
        span(takes)
    )
}
