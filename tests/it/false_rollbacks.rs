//! Healthy candidates under every shape of traffic: how often is one convicted?
//!
//! Sessions are simulated (`rollbackd::simulate`), so that young sessions, late failures and moving
//! traffic do to the counts what they do in production. Seeded: a run that fails fails again.

use rollbackd::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use rollbackd::domain::share::{Share, Tolerance};
use rollbackd::simulate::traffic::{Rollout, Scenario, Sessions, Shape, Traffic, random};
use rollbackd::simulate::trial::{End, Judge};

const FAIL_SHARE: f64 = 0.02;

fn scenario(rate: f64, at_set_up: f64, shape: Shape) -> Scenario {
    Scenario {
        traffic: Traffic { rate, session_seconds: 180.0, at_set_up },
        shape,
        baseline_share: FAIL_SHARE,
        candidate_share: FAIL_SHARE,
        worse_from: 0,
        ticks: 240,
        tick_seconds: 15.0,
        history_seconds: 6.0 * 3600.0,
    }
}

/// Both tests, sharing 0.1 %.
fn judge() -> Judge {
    Judge {
        settings: DetectorSettings {
            observation_ticks: 240,
            tolerance: Some(Tolerance::NONE),
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        },
        measured: true,
        threshold_log10: 2000_f64.log10(),
    }
}

fn is_convicted(scenario: &Scenario, seed: u64) -> bool {
    let rollout = scenario.draw(&mut random(seed, 0, 0));
    matches!(judge().judge(&rollout).end, End::Convicted(_))
}

#[test]
fn healthy_candidates_are_not_convicted_whatever_the_traffic_does() {
    let shapes = [
        ("half and half", Shape::HALF),
        ("falling from half to a twentieth", Shape::FALLING),
        ("rising from 1 to 99 %", Shape::RISING),
        ("switched at once", Shape::SWITCHED),
    ];
    let (mut runs, mut convicted) = (0_u32, Vec::new());
    for (name, shape) in shapes {
        for rate in [0.2, 1.0, 4.0] {
            for at_set_up in [1.0, 0.0, 0.5] {
                for seed in 0..12 {
                    runs += 1;
                    if is_convicted(&scenario(rate, at_set_up, shape), seed) {
                        convicted.push((name, rate, at_set_up, seed));
                    }
                }
            }
        }
    }
    // 432 runs at 0.1 % each: one conviction in two and a half such tests.
    assert!(runs > 400 && convicted.is_empty(), "{convicted:?} of {runs}");
}

#[test]
fn a_threefold_failure_rate_is_found_in_every_run() {
    // Against the baseline beside it, and against its past when it is gone.
    for shape in [Shape::HALF, Shape::SWITCHED] {
        for seed in 0..20 {
            let worse = scenario(4.0, 0.5, shape);
            let worse = Scenario { candidate_share: 3.0 * FAIL_SHARE, ..worse };
            assert!(is_convicted(&worse, seed), "{shape:?}, seed {seed}");
        }
    }
}

/// Both versions fail half of their sessions for five minutes; afterwards the candidate fails
/// `then` of them.
fn provider_outage(rate: f64, then: f64, seed: u64) -> Rollout {
    let Scenario { traffic, ticks, tick_seconds, .. } = scenario(rate, 1.0, Shape::HALF);
    let mut random = random(seed, 1, 0);
    let fails = |tick: usize| if (100..120).contains(&tick) { 0.5 } else { FAIL_SHARE };
    let of_candidate = |tick: usize| if tick < 124 { fails(tick) } else { then };
    let mut candidate = Sessions::fresh(&mut random, traffic, tick_seconds);
    let candidate = (0..ticks).map(|tick| candidate.next(0.5, of_candidate(tick))).collect();
    let mut baseline = Sessions::settled(&mut random, traffic, tick_seconds, FAIL_SHARE);
    let baseline = (0..ticks).map(|tick| baseline.next(0.5, fails(tick))).collect();
    Rollout { candidate, baseline, history: Vec::new() }
}

#[test]
fn an_outage_of_both_versions_convicts_hardly_any_candidate() {
    // With the ceiling's tests of both versions side by side it was a third at one session/s.
    for rate in [1.0, 10.0] {
        let is_convicted = |seed: &u64| {
            matches!(
                judge().judge(&provider_outage(rate, FAIL_SHARE, *seed)).end,
                End::Convicted(_)
            )
        };
        let convicted: Vec<u64> = (0..200).filter(is_convicted).collect();
        assert!(convicted.len() <= 4, "{rate}/s: {convicted:?} of 200");
    }
}

#[test]
fn the_ceiling_finds_what_regresses_after_an_outage() {
    // It had convicted nobody until long afterwards: half of these after half an hour.
    let mut judge = judge();
    judge.settings.tolerance = None;
    let convicted_after = |seed| match judge.judge(&provider_outage(1.0, 0.5, seed)).end {
        End::Convicted(tick) => tick.saturating_sub(124) + 1,
        End::Suspect | End::Cleared => usize::MAX,
    };
    let mut ticks: Vec<usize> = (0..200).map(convicted_after).collect();
    ticks.sort_unstable();
    assert!(ticks[100] <= 8 && ticks[190] <= 16, "{ticks:?}");
}
