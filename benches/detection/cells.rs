//! The scenarios, and what every rule says of each of them.

use rayon::prelude::*;
use rollbackd::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use rollbackd::domain::share::{Share, Tolerance};
use rollbackd::simulate::traffic::{Rollout, Scenario, Shape, Traffic, random};
use rollbackd::simulate::trial::{End, Judge};

use super::curves::Curves;
use super::peers::{PEERS, Setting, grid};

pub(crate) const SEED: u64 = 20_261_125;
pub(crate) const TICKS: usize = 240;
pub(crate) const TICK_SECONDS: f64 = 15.0;
/// What the baseline fails.
pub(crate) const USUAL: f64 = 0.02;
pub(crate) const ALPHA: f64 = 0.001;

pub(crate) const SHAPES: [(&str, Shape); 4] = [
    ("half and half", Shape::HALF),
    ("falling 50 → 5 %", Shape::FALLING),
    ("rising 1 → 99 %", Shape::RISING),
    ("switched at once", Shape::SWITCHED),
];
pub(crate) const KINDS: [(&str, f64); 3] = [("set-up", 1.0), ("mid-call", 0.0), ("mixed", 0.5)];
pub(crate) const RATES: [f64; 4] = [0.2, 1.0, 10.0, 100.0];
/// How many times the baseline's share a bad candidate fails; the last is every call.
pub(crate) const SIZES: [f64; 4] = [2.0, 3.0, 10.0, 50.0];

/// One scenario: places in the lists above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shape: usize,
    pub(crate) kind: usize,
    pub(crate) rate: usize,
}

pub(crate) fn places() -> Vec<Place> {
    let mut all = Vec::new();
    for rate in 0..RATES.len() {
        for shape in 0..SHAPES.len() {
            for kind in 0..KINDS.len() {
                all.push(Place { shape, kind, rate });
            }
        }
    }
    all
}

impl Place {
    pub(crate) fn scenario(self, factor: f64) -> Scenario {
        let traffic = Traffic {
            rate: RATES[self.rate],
            session_seconds: 180.0,
            at_set_up: KINDS[self.kind].1,
        };
        Scenario {
            traffic,
            shape: SHAPES[self.shape].1,
            baseline_share: USUAL,
            candidate_share: (USUAL * factor).min(1.0),
            worse_from: 0,
            ticks: TICKS,
            tick_seconds: TICK_SECONDS,
            history_seconds: 6.0 * 3600.0,
        }
    }

    /// Seeds of one scenario differ from those of all others.
    fn number(self, factor: f64) -> u64 {
        let place = (self.rate * SHAPES.len() + self.shape) * KINDS.len() + self.kind;
        place as u64 * 1000 + factor as u64
    }
}

/// Both tests, which share the false rollback rate.
pub(crate) fn judge() -> Judge {
    Judge {
        settings: DetectorSettings {
            observation_ticks: TICKS as u32,
            tolerance: Some(Tolerance::NONE),
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        },
        measured: true,
        threshold_log10: (2.0 / ALPHA).log10(),
    }
}

/// Never, as a tick.
pub(crate) const NEVER: u8 = u8::MAX;

/// When each rule took one rollout back, in ticks from 1.
pub(crate) struct Taken {
    pub(crate) rollbackd: u8,
    /// In the order of [`settings`].
    pub(crate) peers: Vec<u8>,
    /// Sessions that the candidate had started by the end of each tick.
    pub(crate) started: Vec<u32>,
}

/// All settings of all peers, one after the other.
pub(crate) fn settings() -> Vec<Setting> {
    PEERS.into_iter().flat_map(grid).collect()
}

pub(crate) fn taken(rollout: &Rollout, settings: &[Setting]) -> Taken {
    let rollbackd = match judge().judge(rollout).end {
        End::Convicted(tick) => tick as u8 + 1,
        End::Suspect | End::Cleared => NEVER,
    };
    let curves = Curves::of(rollout);
    let peer = |setting: &Setting| setting.decide(&curves).map_or(NEVER, |tick| tick as u8);
    let mut sum = 0;
    let started = rollout.candidate.iter().map(|tick| {
        sum += tick.counts.started as u32;
        sum
    });
    Taken { rollbackd, peers: settings.iter().map(peer).collect(), started: started.collect() }
}

/// How often each rule took a healthy rollout back.
pub(crate) struct Healthy {
    pub(crate) runs: usize,
    pub(crate) rollbackd: usize,
    pub(crate) peers: Vec<usize>,
}

pub(crate) fn healthy(place: Place, runs: usize, settings: &[Setting]) -> Healthy {
    let scenario = place.scenario(1.0);
    let none = || (0, vec![0; settings.len()]);
    let counted = (0..runs as u64)
        .into_par_iter()
        .fold(none, |(rollbackd, mut peers), run| {
            let rollout = scenario.draw(&mut random(SEED, place.number(1.0), run));
            let taken = taken(&rollout, settings);
            for (sum, tick) in peers.iter_mut().zip(&taken.peers) {
                *sum += usize::from(*tick != NEVER);
            }
            (rollbackd + usize::from(taken.rollbackd != NEVER), peers)
        })
        .reduce(none, |a, b| (a.0 + b.0, a.1.iter().zip(&b.1).map(|(a, b)| a + b).collect()));
    Healthy { runs, rollbackd: counted.0, peers: counted.1 }
}

/// When each rule took a bad rollout back, for every run.
pub(crate) fn bad(place: Place, factor: f64, runs: usize, settings: &[Setting]) -> Vec<Taken> {
    let scenario = place.scenario(factor);
    let one = |run| taken(&scenario.draw(&mut random(SEED, place.number(factor), run)), settings);
    (0..runs as u64).into_par_iter().map(one).collect()
}
