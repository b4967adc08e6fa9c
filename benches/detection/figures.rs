//! What the detector is to reach: ratios to Wald's bound, total failure, outages, speed.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;
use rollbackd::domain::counts::{Counts, Tick};
use rollbackd::domain::evidence::{Detector, DetectorSettings, POOL_SESSIONS};
use rollbackd::domain::share::Tolerance;
use rollbackd::simulate::statistics::{quantile, quantile_interval, wald_sessions, wilson};
use rollbackd::simulate::traffic::{Rollout, Scenario, Sessions, Shape, Traffic, random};
use rollbackd::simulate::trial::{End, Judge, Trial};

use super::cells::{
    ALPHA, Healthy, KINDS, Place, RATES, SEED, SHAPES, TICK_SECONDS, TICKS, Taken, USUAL, judge,
    taken,
};
use super::peers::Setting;

/// A line of the table.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) reach: String,
    pub(crate) measured: String,
    pub(crate) holds: bool,
}

/// False rollbacks by shape: the worst of its cells, and all together.
pub(crate) fn false_rollbacks(healthy: &[(Place, Healthy)]) -> Vec<Figure> {
    let of_shape = |(number, (name, _)): (usize, &(&str, Shape))| {
        let cells: Vec<&(Place, Healthy)> =
            healthy.iter().filter(|(place, _)| place.shape == number).collect();
        let runs: usize = cells.iter().map(|(_, cell)| cell.runs).sum();
        let hits: usize = cells.iter().map(|(_, cell)| cell.rollbackd).sum();
        let worst = cells.iter().max_by_key(|(_, cell)| cell.rollbackd);
        let worst = worst.map_or(String::new(), |(place, cell)| {
            let (low, high) = wilson(cell.rollbackd, cell.runs);
            format!(
                "; worst cell {} of {} ({:.3}–{:.3} %) at {}/s, {}",
                cell.rollbackd,
                cell.runs,
                100.0 * low,
                100.0 * high,
                RATES[place.rate],
                KINDS[place.kind].0
            )
        });
        let (low, high) = wilson(hits, runs);
        Figure {
            what: format!("false rollbacks, {name}, every rate and kind of failure"),
            reach: "≤ 0.1 % each".to_owned(),
            measured: format!(
                "{:.4} % ({hits} of {runs}; {:.4}–{:.4} %){worst}",
                100.0 * hits as f64 / runs as f64,
                100.0 * low,
                100.0 * high
            ),
            // What speaks against it is a cell whose interval lies above.
            holds: cells.iter().all(|(_, c)| wilson(c.rollbackd, c.runs).0 <= ALPHA),
        }
    };
    SHAPES.iter().enumerate().map(of_shape).collect()
}

/// Median sessions over Wald's bound, at ticks of a second with a session each.
pub(crate) fn wald(runs: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    for live in [false, true] {
        for (hours, reach) in [(24.0, [1.5, 1.5, 2.0]), (6.0, [1.7, 1.7, 2.3])] {
            for (factor, reach) in [2.0, 3.0, 10.0].into_iter().zip(reach) {
                figures.push(ratio_to_wald(hours, factor, live, reach, runs));
            }
        }
    }
    figures
}

/// With a live gauge or without.
fn ratio_to_wald(hours: f64, factor: f64, live: bool, reach: f64, runs: usize) -> Figure {
    let ticks = 3600;
    let scenario = Scenario {
        traffic: Traffic { rate: 1.0, session_seconds: 180.0, at_set_up: 1.0 },
        shape: Shape::SWITCHED,
        baseline_share: USUAL,
        candidate_share: USUAL * factor,
        worse_from: 0,
        ticks,
        tick_seconds: 1.0,
        history_seconds: hours * 3600.0,
    };
    let judge = Judge {
        settings: DetectorSettings {
            observation_ticks: 3600,
            tolerance: Some(Tolerance::NONE),
            ceiling: None,
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        },
        measured: true,
        threshold_log10: (1.0 / ALPHA).log10(),
    };
    let number = 100_000 + hours as u64 * 100 + factor as u64;
    let one = |run| {
        let mut rollout = scenario.draw(&mut random(SEED, number, run));
        if !live {
            without_live(&mut rollout);
        }
        let trial = judge.judge(&rollout);
        match trial.end {
            End::Convicted(_) => trial.started,
            End::Suspect | End::Cleared => u64::MAX,
        }
    };
    let mut sessions: Vec<u64> = (0..runs as u64).into_par_iter().map(one).collect();
    sessions.sort_unstable();
    let bound = wald_sessions(ALPHA, USUAL, USUAL * factor);
    let ratio = |sessions: u64| match sessions {
        u64::MAX => f64::INFINITY,
        sessions => sessions as f64 / bound,
    };
    let median = quantile(&sessions, 0.5).map_or(f64::NAN, ratio);
    let (low, high) = quantile_interval(&sessions, 0.5)
        .map_or((f64::NAN, f64::NAN), |(l, h)| (ratio(l), ratio(h)));
    let gauge = if live { ", with a `live` gauge" } else { "" };
    Figure {
        what: format!(
            "{factor}× found, median sessions over Wald's {bound:.0}, {hours} h of history{gauge}"
        ),
        reach: format!("≤ {reach}"),
        measured: format!("{median:.2} ({low:.2}–{high:.2})"),
        holds: median <= reach,
    }
}

fn without_live(rollout: &mut Rollout) {
    let seen = rollout.candidate.iter_mut().chain(&mut rollout.baseline);
    for counts in seen.map(|seen| &mut seen.counts).chain(&mut rollout.history) {
        counts.live = 0.0;
    }
}

/// Every call fails, at one session a second.
pub(crate) fn total_failure(runs: usize) -> Vec<Figure> {
    let of = |shape: usize| {
        let scenario = Place { shape, kind: 0, rate: 1 }.scenario(50.0);
        let one = |run| {
            let trial: Trial = judge().judge(&scenario.draw(&mut random(SEED, 200_000, run)));
            match trial.end {
                End::Convicted(tick) => tick + 1,
                End::Suspect | End::Cleared => usize::MAX,
            }
        };
        let mut ticks: Vec<usize> = (0..runs as u64).into_par_iter().map(one).collect();
        ticks.sort_unstable();
        let late = ticks.iter().filter(|ticks| **ticks > 2).count();
        let (_, high) = wilson(late, runs);
        Figure {
            what: format!("total failure at 1 session/s, {}", SHAPES[shape].0),
            reach: "within 2 ticks".to_owned(),
            measured: format!(
                "median {}, 95 % by {}, later than 2 in {late} of {runs} (≤ {:.2} %)",
                quantile(&ticks, 0.5).unwrap_or(0),
                quantile(&ticks, 0.95).unwrap_or(0),
                100.0 * high
            ),
            holds: quantile(&ticks, 0.95).is_some_and(|ticks| ticks <= 2),
        }
    };
    vec![of(3), of(0)]
}

/// Healthy rollouts taken back.
pub(crate) struct Outage {
    pub(crate) runs: usize,
    /// By both tests.
    pub(crate) rollbackd: usize,
    /// By the test against the baseline alone.
    pub(crate) without_ceiling: usize,
    pub(crate) peers: Vec<usize>,
}

/// A healthy candidate, and a provider outage of five minutes in which both versions fail half.
pub(crate) fn outage(runs: usize, settings: &[Setting]) -> Outage {
    let mut alone = judge();
    alone.settings.ceiling = None;
    alone.threshold_log10 = (1.0 / ALPHA).log10();
    let traffic = Traffic { rate: 1.0, session_seconds: 180.0, at_set_up: 1.0 };
    let one = |run| -> (Taken, usize) {
        let mut random = random(SEED, 300_000, run);
        let share = |tick| if (100..120).contains(&tick) { 0.5 } else { USUAL };
        let mut rollout = Rollout::default();
        let mut past = Sessions::settled(&mut random, traffic, 90.0, USUAL);
        let long = 90.0 / TICK_SECONDS;
        rollout.history = (0..TICKS)
            .map(|_| past.next(1.0, USUAL).counts)
            .map(|counts| Counts { live: counts.live * long, ..counts })
            .collect();
        let mut candidate = Sessions::fresh(&mut random, traffic, TICK_SECONDS);
        rollout.candidate = (0..TICKS).map(|tick| candidate.next(0.5, share(tick))).collect();
        let mut baseline = Sessions::settled(&mut random, traffic, TICK_SECONDS, USUAL);
        rollout.baseline = (0..TICKS).map(|tick| baseline.next(0.5, share(tick))).collect();
        let alone = matches!(alone.judge(&rollout).end, End::Convicted(_));
        (taken(&rollout, settings), usize::from(alone))
    };
    let all: Vec<(Taken, usize)> = (0..runs as u64).into_par_iter().map(one).collect();
    let hit = |tick: u8| usize::from(tick != super::cells::NEVER);
    let sum = |n: usize| all.iter().map(|(taken, _)| hit(taken.peers[n])).sum();
    Outage {
        runs,
        rollbackd: all.iter().map(|(taken, _)| hit(taken.rollbackd)).sum(),
        without_ceiling: all.iter().map(|(_, alone)| alone).sum(),
        peers: (0..settings.len()).map(sum).collect(),
    }
}

/// The time of one evidence update: the median of many short batches, most of which nothing else
/// on the machine disturbs.
pub(crate) fn update() -> Figure {
    let mut detector = Detector::new(DetectorSettings { ceiling: None, ..judge().settings });
    let tick = |n: u64| Tick {
        candidate: Counts { started: 15 + n % 7, failed: n % 3, live: 40.0 + n as f64 },
        control: Counts { started: 14 + n % 5, failed: n % 2, live: 45.0 },
    };
    let ticks: Vec<Tick> = (0..64).map(tick).collect();
    let updates = 2_000;
    let mut batch = || {
        let began = Instant::now();
        for tick in ticks.iter().cycle().take(updates) {
            black_box(detector.observe(black_box(tick)));
        }
        began.elapsed().as_secs_f64() * 1e9 / updates as f64
    };
    let mut times: Vec<f64> = (0..2001).map(|_| batch()).collect();
    times.sort_by(f64::total_cmp);
    let median = quantile(&times, 0.5).unwrap_or(f64::NAN);
    let (low, high) = quantile_interval(&times, 0.5).unwrap_or((f64::NAN, f64::NAN));
    Figure {
        what: "one evidence update (5 alternatives), no allocation".to_owned(),
        reach: "≤ 200 ns".to_owned(),
        measured: format!("median {median:.0} ns ({low:.0}–{high:.0}), fastest {:.0}", times[0]),
        holds: median <= 200.0,
    }
}
