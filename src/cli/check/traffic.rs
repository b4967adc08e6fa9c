//! How long a regression would take to be found at a fleet's own traffic.

use std::time::Duration;

use super::finding::Level;
use crate::config::FleetConfig;
use crate::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use crate::evaluate::observed::observation_ticks;
use crate::rules::{Group, SessionRule};
use crate::simulate::statistics::quantile;
use crate::simulate::traffic::{Scenario, Shape, Traffic, random};
use crate::simulate::trial::{End, Judge};

/// Rollouts drawn: enough for a median.
const ROLLOUTS: u64 = 100;

/// Failures drawn at most in one rollout and its past: each is drawn by itself, and with so many
/// the first ticks decide, at any rate above.
const FAILURES_MAX: f64 = 100_000.0;

/// Every run says the same.
const SEED: u64 = 1;

/// How long a session is taken to last.
const SESSION_SECONDS: f64 = 60.0;

/// What the version that carries a fleet did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Facts {
    pub(super) started: f64,
    pub(super) failed: f64,
    /// Sessions started a second by all versions of the fleet.
    pub(super) rate: f64,
}

/// What came of simulated rollouts of one regression.
struct Found {
    /// The share of rollouts in which it was found.
    share: f64,
    /// Half of those: how long it took.
    median: Option<Duration>,
}

/// What there is to say of finding a ceiling-size regression.
pub(super) fn told(
    fleet: &FleetConfig,
    group: &Group,
    rule: &SessionRule,
    facts: &Facts,
    threshold_log10: f64,
) -> (Level, String) {
    let rate = facts.rate;
    // Half a session, where none failed yet.
    let usual = (facts.failed.max(0.5) / facts.started).min(0.5);
    let allowed = rule.tolerance.map_or(usual, |tolerance| usual * tolerance.get());
    // Twice what is allowed is the least that anybody asks about where there is no ceiling.
    let (worse, what) = match rule.ceiling.map(crate::domain::share::Share::get) {
        Some(ceiling) if rule.tolerance.is_some() && ceiling > allowed * 1.5 => {
            (ceiling, "failing at the ceiling")
        }
        Some(ceiling) => ((2.0 * ceiling).min(0.99), "failing twice the ceiling"),
        None => ((2.0 * allowed).min(0.99), "failing twice what is allowed"),
    };
    let found = find(fleet, group, rule, (rate, usual, worse), threshold_log10);
    let traffic = format!(
        "at {} sessions/s, half of them its own, a candidate {what} ({})",
        digits(rate),
        percent(worse)
    );
    let observe_for = humantime::format_duration(fleet.observe_for);
    match found.median.filter(|_| found.share >= 0.5) {
        Some(median) => {
            let median = humantime::format_duration(median);
            let share = 100.0 * found.share;
            let text = format!(
                "{traffic} is found after about {median} ({share:.0}% of them within {observe_for})"
            );
            let level = if found.share < 0.9 { Level::Warning } else { Level::Note };
            (level, text)
        }
        None => (
            Level::Warning,
            format!(
                "{traffic} is found in {:.0}% of rollouts within {observe_for}; observe for \
                 longer, or give the candidate more sessions",
                100.0 * found.share
            ),
        ),
    }
}

fn find(
    fleet: &FleetConfig,
    group: &Group,
    rule: &SessionRule,
    (rate, usual, worse): (f64, f64, f64),
    threshold_log10: f64,
) -> Found {
    let ticks = observation_ticks(fleet.observe_for, group.interval);
    let judge = Judge {
        settings: DetectorSettings {
            observation_ticks: ticks,
            tolerance: rule.tolerance,
            ceiling: rule.ceiling,
            dispersion: rule.dispersion.unwrap_or(1.0),
            pool_sessions: POOL_SESSIONS,
        },
        measured: rule.dispersion.is_none(),
        threshold_log10,
    };
    let tick_seconds = group.interval.as_secs_f64();
    let observed_seconds = f64::from(ticks) * tick_seconds;
    let failures_per_rate =
        usual * fleet.history.as_secs_f64() + usual.midpoint(worse) * observed_seconds;
    let scenario = Scenario {
        traffic: Traffic {
            rate: rate.min(FAILURES_MAX / failures_per_rate),
            session_seconds: SESSION_SECONDS,
            at_set_up: 0.5,
        },
        shape: Shape { first: 0.5, last: 0.5 },
        baseline_share: usual,
        candidate_share: worse,
        worse_from: 0,
        ticks: usize::try_from(ticks).unwrap_or(usize::MAX),
        tick_seconds,
        history_seconds: fleet.history.as_secs_f64(),
    };
    let mut took: Vec<usize> = (0..ROLLOUTS)
        .filter_map(|run| {
            let rollout = scenario.draw(&mut random(SEED, 0, run));
            match judge.judge(&rollout).end {
                End::Convicted(tick) => Some(tick + 1),
                End::Suspect | End::Cleared => None,
            }
        })
        .collect();
    took.sort_unstable();
    let median =
        quantile(&took, 0.5).map(|ticks| group.interval * u32::try_from(ticks).unwrap_or(u32::MAX));
    Found { share: took.len() as f64 / ROLLOUTS as f64, median }
}

fn digits(rate: f64) -> String {
    if rate < 1.0 { format!("{rate:.3}") } else { format!("{rate:.1}") }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}
