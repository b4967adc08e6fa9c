//! The decision rules of others, as their documentation and sources describe them.
//!
//! All of them see the candidate's failure ratio over a window, and compare it with a fixed share.
//! Time is cut into the ticks of the simulation, 15 s, of which all their intervals are multiples.

use super::curves::{Curves, Ticks};

/// Ticks in a minute.
pub(crate) const MINUTE: usize = 4;

/// Windows that ratios are taken over, in ticks.
pub(crate) const WINDOWS: [usize; 4] = [MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE];

/// Looks of the Mann–Whitney mode, in ticks.
pub(crate) const COMPARE_EVERY: [usize; 2] = [5 * MINUTE, 10 * MINUTE];

/// Shares that may not be exceeded, in thousandths. The first is only in Flagger's example, the
/// others are the grid's.
pub(crate) const LIMITS: [u32; 10] = [10, 25, 30, 40, 50, 60, 80, 100, 150, 250];

/// What failures are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Sessions that ended: what a success rate of finished requests is.
    Ended,
    /// Sessions that started.
    Started,
}

pub(crate) const BOTH: [Of; 2] = [Of::Ended, Of::Started];

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

/// One way to set a peer up. `window` and `limit` are places in [`WINDOWS`] and [`LIMITS`], `every` of
/// the Mann–Whitney mode one in [`COMPARE_EVERY`]; other times are in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    /// Every `every` ticks the ratio over `window`; over `limit`, or NaN, is a failed check, and so
    /// many of them, however long ago, roll back at the check after that.
    Flagger { of: Of, window: usize, every: usize, limit: usize, checks: usize },
    /// More than `failures` measurements over `limit`. With a success condition NaN fails, with a
    /// failure condition it does not.
    Argo { of: Of, window: usize, every: usize, limit: usize, failures: usize, nan_fails: bool },
    /// Every `every` ticks the ratio at each minute since; any over `limit`, or NaN, fails the
    /// look; more than `failures` looks.
    PipeCdThreshold { of: Of, window: usize, every: usize, limit: usize, failures: usize },
    /// Every `every` a fresh Mann–Whitney test of the minutes since, candidate above
    /// baseline, at `level`; more than `failures` looks.
    PipeCdCompare { of: Of, every: usize, level: f32, failures: usize },
    /// `ratio > limit` at every evaluation for `lasting` ticks; NaN is not.
    Alert { of: Of, window: usize, every: usize, limit: usize, lasting: usize },
}

/// The setting of a peer's documentation; where that leaves the limit open, the one of its
/// examples.
pub(crate) fn documented(peer: Peer) -> Setting {
    let (of, window) = (Of::Ended, 0);
    match peer {
        Peer::Flagger => Setting::Flagger { of, window, every: MINUTE, limit: 0, checks: 5 },
        Peer::Argo => Setting::Argo {
            of,
            window: 2,
            every: 5 * MINUTE,
            limit: 4,
            failures: 3,
            nan_fails: true,
        },
        Peer::PipeCdThreshold => {
            Setting::PipeCdThreshold { of, window, every: 5 * MINUTE, limit: 4, failures: 0 }
        }
        Peer::PipeCdCompare => Setting::PipeCdCompare { of, every: 0, level: 0.05, failures: 0 },
        Peer::Alert => {
            Setting::Alert { of, window: 2, every: MINUTE, limit: 4, lasting: 2 * MINUTE }
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
                    for limit in 1..LIMITS.len() {
                        with_limit(peer, of, window, limit, &mut all);
                    }
                }
            }
        }
    }
    all
}

fn with_limit(peer: Peer, of: Of, window: usize, limit: usize, all: &mut Vec<Setting>) {
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

impl Setting {
    /// The tick at whose end the rollout is taken back, counted from 1.
    pub(crate) fn decide(&self, curves: &Curves) -> Option<usize> {
        match *self {
            Self::Flagger { of, window, every, limit, checks } => {
                let failed = curves.over(of, window, limit) | curves.unknown(of, window);
                let ticks = (failed & Ticks::every(every)).nth(checks)? + every;
                (ticks <= curves.ticks()).then_some(ticks)
            }
            Self::Argo { of, window, every, limit, failures, nan_fails } => {
                let mut failed = curves.over(of, window, limit);
                if nan_fails {
                    failed = failed | curves.unknown(of, window);
                }
                (failed & Ticks::every(every)).nth(failures + 1)
            }
            Self::PipeCdThreshold { of, window, every, limit, failures } => {
                let failed = curves.over(of, window, limit) | curves.unknown(of, window);
                // Any minute of a look fails it, and the look is its last tick.
                let minutes = failed & Ticks::every(MINUTE);
                let looks = (1..every / MINUTE)
                    .fold(minutes, |any, minute| any | minutes.later(minute * MINUTE));
                (looks & Ticks::every(every)).nth(failures + 1)
            }
            Self::PipeCdCompare { of, every, level, failures } => {
                let looks = curves.p_values(of, every).iter().enumerate();
                let (look, _) = looks.filter(|(_, p)| **p < level).nth(failures)?;
                Some((look + 1) * COMPARE_EVERY[every])
            }
            Self::Alert { of, window, every, limit, lasting } => {
                let over = curves.over(of, window, limit) & Ticks::every(every);
                // Over at this evaluation and at all before it, back to `lasting` ago.
                let evaluations = lasting.div_ceil(every);
                (1..=evaluations).fold(over, |all, n| all & over.later(n * every)).nth(1)
            }
        }
    }
}
