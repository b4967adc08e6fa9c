//! One scenario with a regression: each peer at its documented setting and at its best, against
//! rollbackd.

use rayon::prelude::*;
use rollbackd::simulate::statistics::{quantile, quantile_interval};

use super::cells::{Healthy, NEVER, Place, Taken};
use super::peers::{PEERS, grid};

/// Settings whose medians are counted together: 32 kB of counts.
const SETTINGS_AT_ONCE: usize = 64;

/// How soon a rule took bad rollouts back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    /// Ticks, and sessions of the candidate, by which half and 95 % were taken back; `None`: were
    /// not within the observation.
    pub(crate) ticks: [Option<u8>; 2],
    pub(crate) sessions: [Option<u32>; 2],
    /// A 95 % interval of the median, in ticks; [`NEVER`] at its upper end is no bound.
    pub(crate) interval: (u8, u8),
    /// Healthy rollouts taken back in the same scenario.
    pub(crate) false_rollbacks: usize,
}

/// A peer's two speeds.
pub(crate) struct PeerSpeed {
    pub(crate) documented: Speed,
    /// The fastest setting in the median, of those with no more false rollbacks in this scenario
    /// than rollbackd; and which of all settings it is. `None`: there is no such setting.
    pub(crate) best: Option<(Speed, usize)>,
}

/// Everything of one scenario.
pub(crate) struct Compared {
    pub(crate) place: Place,
    pub(crate) factor: f64,
    pub(crate) rollbackd: Speed,
    /// In the order of [`PEERS`].
    pub(crate) peers: Vec<PeerSpeed>,
    /// The median tick of every setting of every peer.
    pub(crate) medians: Vec<u8>,
}

impl Compared {
    pub(crate) fn of(place: Place, factor: f64, healthy: &Healthy, bad: &[Taken]) -> Self {
        let rollbackd = speed(bad, healthy.rollbackd, |taken| taken.rollbackd);
        let medians = medians(bad);
        let mut peers = Vec::new();
        let mut first = 0;
        for peer in PEERS {
            let next = first + grid(peer).len();
            let of = |n: usize| speed(bad, healthy.peers[n], |taken| taken.peers[n]);
            let fair = (first..next).filter(|n| healthy.peers[*n] <= healthy.rollbackd);
            let best = fair.min_by_key(|n| medians[*n]).map(|n| (of(n), n));
            peers.push(PeerSpeed { documented: of(first), best });
            first = next;
        }
        Self { place, factor, rollbackd, peers, medians }
    }
}

/// The median tick of every setting, counted rather than sorted. Settings are taken as many at a
/// time as have their counts in the nearest cache.
fn medians(bad: &[Taken]) -> Vec<u8> {
    let settings = bad.first().map_or(0, |taken| taken.peers.len());
    let middle = (bad.len() - 1) / 2;
    let starts: Vec<usize> = (0..settings).step_by(SETTINGS_AT_ONCE).collect();
    let some = starts.into_par_iter().flat_map_iter(|start| {
        let end = (start + SETTINGS_AT_ONCE).min(settings);
        let mut counts = vec![[0_u16; 1 + NEVER as usize]; end - start];
        for taken in bad {
            for (counts, tick) in counts.iter_mut().zip(&taken.peers[start..end]) {
                counts[usize::from(*tick)] += 1;
            }
        }
        counts.into_iter().map(move |counts| {
            let mut before = 0;
            let reaches = |count: &u16| {
                before += usize::from(*count);
                before > middle
            };
            counts.iter().position(reaches).map_or(NEVER, |tick| tick as u8)
        })
    });
    some.collect()
}

fn speed(bad: &[Taken], false_rollbacks: usize, tick: impl Fn(&Taken) -> u8) -> Speed {
    let mut ticks: Vec<u8> = bad.iter().map(&tick).collect();
    let sessions = |taken: &Taken| match tick(taken) {
        NEVER => u32::MAX,
        tick => taken.started[usize::from(tick) - 1],
    };
    let mut sessions: Vec<u32> = bad.iter().map(sessions).collect();
    ticks.sort_unstable();
    sessions.sort_unstable();
    let found = |q| quantile(&ticks, q).filter(|tick| *tick != NEVER);
    let sessions = |q| quantile(&sessions, q).filter(|sessions| *sessions != u32::MAX);
    Speed {
        ticks: [0.5, 0.95].map(found),
        sessions: [0.5, 0.95].map(sessions),
        interval: quantile_interval(&ticks, 0.5).unwrap_or((NEVER, NEVER)),
        false_rollbacks,
    }
}

impl Speed {
    /// The median, never last.
    pub(crate) fn median(&self) -> u8 {
        self.ticks[0].unwrap_or(NEVER)
    }
}
