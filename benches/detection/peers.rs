//! The decision rules of others, as their documentation and sources describe them.
//!
//! All of them see the candidate's failure ratio over a window, and compare it with a fixed share.
//! Time is cut into the ticks of the simulation, 15 s, of which all their intervals are multiples.

use rollbackd::simulate::traffic::{Rollout, Seen};

/// Ticks in a minute.
const MINUTE: usize = 4;

/// Windows that ratios are taken over, in ticks.
pub(crate) const WINDOWS: [usize; 4] = [MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE];

/// Looks of the Mann–Whitney mode, in ticks.
const COMPARE_EVERY: [usize; 2] = [5 * MINUTE, 10 * MINUTE];

/// Shares that may not be exceeded, in the grid.
const LIMITS: [f32; 9] = [0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15, 0.25];

/// What failures are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Sessions that ended: what a success rate of finished requests is.
    Ended,
    /// Sessions that started.
    Started,
}

const BOTH: [Of; 2] = [Of::Ended, Of::Started];

/// Whose decision rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Flagger,
    Argo,
    PipeCdThreshold,
    PipeCdCompare,
    Alert,
}

pub(crate) const PEERS: [Peer; 5] =
    [Peer::Flagger, Peer::Argo, Peer::PipeCdThreshold, Peer::PipeCdCompare, Peer::Alert];

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flagger => "Flagger",
            Self::Argo => "Argo Rollouts",
            Self::PipeCdThreshold => "PipeCD, threshold",
            Self::PipeCdCompare => "PipeCD, Mann–Whitney",
            Self::Alert => "Prometheus alert",
        }
    }
}

/// One way to set a peer up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    /// Every `every` ticks the ratio over `window`; over `limit`, or NaN, is a failed check, and so
    /// many of them, however long ago, roll back at the check after that.
    Flagger { of: Of, window: usize, every: usize, limit: f32, checks: usize },
    /// More than `failures` measurements over `limit`. With a success condition NaN fails, with a
    /// failure condition it does not.
    Argo { of: Of, window: usize, every: usize, limit: f32, failures: usize, nan_fails: bool },
    /// Every `every` ticks the ratio at each minute since; any over `limit`, or NaN, fails the
    /// look; more than `failures` looks.
    PipeCdThreshold { of: Of, window: usize, every: usize, limit: f32, failures: usize },
    /// Every `COMPARE_EVERY` a fresh Mann–Whitney test of the minutes since, candidate above
    /// baseline, at `level`; more than `failures` looks.
    PipeCdCompare { of: Of, every: usize, level: f32, failures: usize },
    /// `ratio > limit` at every evaluation for `lasting` ticks; NaN is not.
    Alert { of: Of, window: usize, every: usize, limit: f32, lasting: usize },
}

/// The setting of a peer's documentation; where that leaves the limit open, the one of its
/// examples.
pub(crate) fn documented(peer: Peer) -> Setting {
    let (of, window) = (Of::Ended, 0);
    match peer {
        Peer::Flagger => Setting::Flagger { of, window, every: MINUTE, limit: 0.01, checks: 5 },
        Peer::Argo => Setting::Argo {
            of,
            window: 2,
            every: 5 * MINUTE,
            limit: 0.05,
            failures: 3,
            nan_fails: true,
        },
        Peer::PipeCdThreshold => {
            Setting::PipeCdThreshold { of, window, every: 5 * MINUTE, limit: 0.05, failures: 0 }
        }
        Peer::PipeCdCompare => Setting::PipeCdCompare { of, every: 0, level: 0.05, failures: 0 },
        Peer::Alert => {
            Setting::Alert { of, window: 2, every: MINUTE, limit: 0.05, lasting: 2 * MINUTE }
        }
    }
}

/// Every setting that the grid search tries; the documented one first.
pub(crate) fn grid(peer: Peer) -> Vec<Setting> {
    let mut all = vec![documented(peer)];
    let windows = 0..WINDOWS.len();
    for of in BOTH {
        match peer {
            Peer::PipeCdCompare => {
                for every in 0..COMPARE_EVERY.len() {
                    for level in [0.05, 0.01, 0.003, 0.001] {
                        for failures in 0..3 {
                            all.push(Setting::PipeCdCompare { of, every, level, failures });
                        }
                    }
                }
            }
            Peer::Flagger | Peer::Argo | Peer::PipeCdThreshold | Peer::Alert => {
                for window in windows.clone() {
                    for limit in LIMITS {
                        with_limit(peer, of, window, limit, &mut all);
                    }
                }
            }
        }
    }
    all
}

fn with_limit(peer: Peer, of: Of, window: usize, limit: f32, all: &mut Vec<Setting>) {
    match peer {
        Peer::Flagger => {
            for every in [1, 2, MINUTE] {
                for checks in [1, 2, 3, 5, 10] {
                    all.push(Setting::Flagger { of, window, every, limit, checks });
                }
            }
        }
        Peer::Argo => {
            for every in [1, 2, MINUTE, 5 * MINUTE] {
                for failures in [0, 1, 2, 3, 5] {
                    for nan_fails in [false, true] {
                        all.push(Setting::Argo { of, window, every, limit, failures, nan_fails });
                    }
                }
            }
        }
        Peer::PipeCdThreshold => {
            for every in [MINUTE, 2 * MINUTE, 5 * MINUTE] {
                for failures in 0..3 {
                    all.push(Setting::PipeCdThreshold { of, window, every, limit, failures });
                }
            }
        }
        Peer::Alert => {
            for every in [1, MINUTE] {
                for lasting in [0, MINUTE, 2 * MINUTE, 5 * MINUTE] {
                    all.push(Setting::Alert { of, window, every, limit, lasting });
                }
            }
        }
        Peer::PipeCdCompare => {}
    }
}

/// What the peers' queries would have given in one rollout.
pub(crate) struct Curves {
    /// By denominator and window: the candidate's ratio at the end of each tick; NaN for 0 / 0.
    ratios: [[Vec<f32>; WINDOWS.len()]; 2],
    /// By denominator and look: the p-values, one a look.
    p_values: [[Vec<f32>; COMPARE_EVERY.len()]; 2],
}

impl Curves {
    pub(crate) fn of(rollout: &Rollout) -> Self {
        let ratios = BOTH.map(|of| WINDOWS.map(|window| ratios(&rollout.candidate, of, window)));
        let baseline = BOTH.map(|of| ratios_of_minutes(&rollout.baseline, of));
        let candidate = BOTH.map(|of| ratios_of_minutes(&rollout.candidate, of));
        let p_values = [0, 1].map(|of| {
            COMPARE_EVERY.map(|every| {
                let minutes = every / MINUTE;
                let looks = candidate[of].chunks_exact(minutes);
                let looks = looks.zip(baseline[of].chunks_exact(minutes));
                looks.map(|(candidate, baseline)| mann_whitney(candidate, baseline)).collect()
            })
        });
        Self { ratios, p_values }
    }

    fn ratios(&self, of: Of, window: usize) -> &[f32] {
        &self.ratios[of as usize][window]
    }

    /// The tick at whose end the rollout is taken back, counted from 1.
    pub(crate) fn decide(&self, setting: &Setting) -> Option<usize> {
        match *setting {
            Setting::Flagger { of, window, every, limit, checks } => {
                let failed = |ratio: f32| ratio > limit || ratio.is_nan();
                let ratios = self.ratios(of, window);
                let ticks = nth(ratios, every, checks, failed)? + every;
                (ticks <= ratios.len()).then_some(ticks)
            }
            Setting::Argo { of, window, every, limit, failures, nan_fails } => {
                let failed = |ratio: f32| ratio > limit || (nan_fails && ratio.is_nan());
                nth(self.ratios(of, window), every, failures + 1, failed)
            }
            Setting::PipeCdThreshold { of, window, every, limit, failures } => {
                let mut left = failures + 1;
                let looks = self.ratios(of, window).chunks_exact(every).enumerate();
                for (look, ticks) in looks {
                    let minutes = ticks.iter().skip(MINUTE - 1).step_by(MINUTE);
                    if minutes.into_iter().any(|ratio| *ratio > limit || ratio.is_nan()) {
                        left -= 1;
                        if left == 0 {
                            return Some((look + 1) * every);
                        }
                    }
                }
                None
            }
            Setting::PipeCdCompare { of, every, level, failures } => {
                let looks = &self.p_values[of as usize][every];
                Some(nth(looks, 1, failures + 1, |p| p < level)? * COMPARE_EVERY[every])
            }
            Setting::Alert { of, window, every, limit, lasting } => {
                let mut since = None;
                let ratios = self.ratios(of, window).iter().enumerate();
                for (tick, ratio) in ratios.skip(every - 1).step_by(every) {
                    if *ratio > limit {
                        let began = *since.get_or_insert(tick);
                        if tick - began >= lasting {
                            return Some(tick + 1);
                        }
                    } else {
                        since = None;
                    }
                }
                None
            }
        }
    }
}

/// The end of the `n`-th of every `every` values that fit, in ticks from 1.
fn nth(values: &[f32], every: usize, n: usize, fits: impl Fn(f32) -> bool) -> Option<usize> {
    let looks = values.iter().enumerate().skip(every - 1).step_by(every);
    looks.filter(|(_, value)| fits(**value)).nth(n - 1).map(|(tick, _)| tick + 1)
}

fn sides(seen: &Seen, of: Of) -> (u64, u64) {
    let all = match of {
        Of::Ended => seen.ended,
        Of::Started => seen.counts.started,
    };
    (seen.counts.failed, all)
}

fn ratios(seen: &[Seen], of: Of, window: usize) -> Vec<f32> {
    let (mut failed, mut all) = (0, 0);
    let mut ratios = Vec::with_capacity(seen.len());
    for (tick, now) in seen.iter().enumerate() {
        let now = sides(now, of);
        (failed, all) = (failed + now.0, all + now.1);
        if let Some(gone) = tick.checked_sub(window).map(|gone| sides(&seen[gone], of)) {
            (failed, all) = (failed - gone.0, all - gone.1);
        }
        ratios.push(failed as f32 / all as f32);
    }
    ratios
}

fn ratios_of_minutes(seen: &[Seen], of: Of) -> Vec<f32> {
    let minute = |ticks: &[Seen]| {
        let sum =
            ticks.iter().map(|tick| sides(tick, of)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        sum.0 as f32 / sum.1 as f32
    };
    seen.chunks_exact(MINUTE).map(minute).collect()
}

/// The p-value of candidate above baseline, by the normal approximation with ties and continuity;
/// 1 where a side has fewer than two points.
fn mann_whitney(candidate: &[f32], baseline: &[f32]) -> f32 {
    let points = |of: &[f32], side: bool| {
        of.iter().filter(|r| !r.is_nan()).map(|r| (*r, side)).collect::<Vec<_>>()
    };
    let (ours, theirs) = (points(candidate, true), points(baseline, false));
    let (n, m) = (ours.len() as f64, theirs.len() as f64);
    if ours.len() < 2 || theirs.len() < 2 {
        return 1.0;
    }
    let mut all = [ours, theirs].concat();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties, mut at) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|x, y| x.0.total_cmp(&y.0).is_eq()) {
        let size = equal.len() as f64;
        let candidates = equal.iter().filter(|(_, side)| *side).count() as f64;
        rank_sum += candidates * (at + f64::midpoint(size, 1.0));
        ties += size.powi(3) - size;
        at += size;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    above((u - n * m / 2.0 - 0.5) / variance.sqrt()) as f32
}

/// The normal's upper tail: Abramowitz and Stegun 26.2.17, to 7.5e-8.
fn above(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - above(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let terms = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}
