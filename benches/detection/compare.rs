//! One scenario with a regression: each peer at its documented setting and at its best, against
//! rollbackd.

use rollbackd::simulate::statistics::{quantile, quantile_interval};

use super::cells::{Healthy, NEVER, Place, Taken};
use super::peers::{PEERS, grid};

/// How soon a rule took bad rollouts back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    /// Ticks, and sessions of the candidate, by which half and 95 % were taken back; `None`: were
    /// not within the observation.
    pub(crate) ticks: [Option<u16>; 2],
    pub(crate) sessions: [Option<u32>; 2],
    /// A 95 % interval of the median, in ticks; [`NEVER`] at its upper end is no bound.
    pub(crate) interval: (u16, u16),
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
    pub(crate) medians: Vec<u16>,
}

impl Compared {
    pub(crate) fn of(place: Place, factor: f64, healthy: &Healthy, bad: &[Taken]) -> Self {
        let rollbackd = speed(bad, healthy.rollbackd, |taken| taken.rollbackd);
        let medians: Vec<u16> = (0..healthy.peers.len()).map(|n| median(bad, n)).collect();
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

fn median(bad: &[Taken], setting: usize) -> u16 {
    let mut ticks: Vec<u16> = bad.iter().map(|taken| taken.peers[setting]).collect();
    let middle = (ticks.len() - 1) / 2;
    *ticks.select_nth_unstable(middle).1
}

fn speed(bad: &[Taken], false_rollbacks: usize, tick: impl Fn(&Taken) -> u16) -> Speed {
    let mut ticks: Vec<u16> = bad.iter().map(&tick).collect();
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
    pub(crate) fn median(&self) -> u16 {
        self.ticks[0].unwrap_or(NEVER)
    }
}
