//! What the peers' queries would have given in one rollout.

use std::ops::{BitAnd, BitOr};

use rollbackd::simulate::traffic::{Rollout, Seen};

use super::cells::TICKS;
use super::peers::{BOTH, COMPARE_EVERY, LIMITS, MINUTE, Of, WINDOWS};

/// 64-bit words that hold a rollout's ticks.
const WORDS: usize = TICKS.div_ceil(64);

/// A set of ticks of one rollout, a bit each, so that a rule is asked about all of them at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ticks([u64; WORDS]);

/// [`Ticks::every`] of each number that a setting has.
const EVERY: [Ticks; 5 * MINUTE + 1] = {
    let mut all = [Ticks([0; WORDS]); 5 * MINUTE + 1];
    let mut every = 1;
    while every < all.len() {
        let mut tick = every - 1;
        while tick < TICKS {
            all[every].0[tick / 64] |= 1 << (tick % 64);
            tick += every;
        }
        every += 1;
    }
    all
};

impl Ticks {
    /// The last of every `n` ticks; `n` up to five minutes.
    pub(crate) fn every(n: usize) -> Self {
        EVERY[n]
    }

    /// All of them moved by up to 63 ticks.
    pub(crate) fn later(self, ticks: usize) -> Self {
        if ticks == 0 {
            return self;
        }
        let mut moved = [0; WORDS];
        let mut carried = 0;
        for (moved, word) in moved.iter_mut().zip(self.0) {
            *moved = word << ticks | carried;
            carried = word >> (64 - ticks);
        }
        Self(moved)
    }

    /// The `n`-th of them, each counted from 1.
    pub(crate) fn nth(self, n: usize) -> Option<usize> {
        let mut left = n;
        for (place, word) in self.0.into_iter().enumerate() {
            let count = word.count_ones() as usize;
            if left <= count {
                let word = (1..left).fold(word, |word, _| word & (word - 1));
                return Some(place * 64 + word.trailing_zeros() as usize + 1);
            }
            left -= count;
        }
        None
    }

    fn insert_if(&mut self, tick: usize, is_in: bool) {
        self.0[tick / 64] |= u64::from(is_in) << (tick % 64);
    }
}

impl BitAnd for Ticks {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl BitOr for Ticks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

/// The candidate's failure ratio over one window.
#[derive(Clone, Copy, Debug, Default)]
struct Ratio {
    /// By limit: at the ends of which ticks it is higher.
    over: [Ticks; LIMITS.len()],
    /// At the ends of which it is 0 / 0.
    unknown: Ticks,
}

/// All that any setting of any peer looks at.
pub(crate) struct Curves {
    ticks: usize,
    /// By denominator and window.
    ratios: [[Ratio; WINDOWS.len()]; 2],
    /// By denominator and look: the p-values, one a look.
    p_values: [[Vec<f32>; COMPARE_EVERY.len()]; 2],
}

impl Curves {
    pub(crate) fn of(rollout: &Rollout) -> Self {
        Self {
            ticks: rollout.candidate.len(),
            ratios: BOTH.map(|of| ratios(&rollout.candidate, of)),
            p_values: BOTH.map(|of| {
                let candidate = ratios_of_minutes(&rollout.candidate, of);
                let baseline = ratios_of_minutes(&rollout.baseline, of);
                COMPARE_EVERY.map(|every| {
                    let looks = candidate.chunks_exact(every / MINUTE);
                    let looks = looks.zip(baseline.chunks_exact(every / MINUTE));
                    looks.map(|(candidate, baseline)| mann_whitney(candidate, baseline)).collect()
                })
            }),
        }
    }

    /// How many ticks there are.
    pub(crate) fn ticks(&self) -> usize {
        self.ticks
    }

    /// Where the ratio is over the limit.
    pub(crate) fn over(&self, of: Of, window: usize, limit: usize) -> Ticks {
        self.ratios[of as usize][window].over[limit]
    }

    /// Where the ratio is NaN.
    pub(crate) fn unknown(&self, of: Of, window: usize) -> Ticks {
        self.ratios[of as usize][window].unknown
    }

    /// What the Mann–Whitney test gave at each look.
    pub(crate) fn p_values(&self, of: Of, every: usize) -> &[f32] {
        &self.p_values[of as usize][every]
    }
}

fn sides(seen: &Seen, of: Of) -> (u32, u32) {
    let all = match of {
        Of::Ended => seen.ended,
        Of::Started => seen.counts.started,
    };
    (seen.counts.failed as u32, all as u32)
}

fn ratios(seen: &[Seen], of: Of) -> [Ratio; WINDOWS.len()] {
    // Sums until before each tick, which all windows share.
    let mut sums = [(0, 0); TICKS + 1];
    for (tick, now) in seen.iter().enumerate() {
        let (failed, all) = sides(now, of);
        sums[tick + 1] = (sums[tick].0 + failed, sums[tick].1 + all);
    }
    WINDOWS.map(|window| {
        let mut ratio = Ratio::default();
        for tick in 0..seen.len() {
            let (now, then) = (sums[tick + 1], sums[(tick + 1).saturating_sub(window)]);
            let (failed, all) = (now.0 - then.0, now.1 - then.1);
            ratio.unknown.insert_if(tick, failed == 0 && all == 0);
            for (over, limit) in ratio.over.iter_mut().zip(LIMITS) {
                over.insert_if(tick, failed * 1000 > all * limit);
            }
        }
        ratio
    })
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
    let known = |of: &[f32]| of.iter().filter(|ratio| !ratio.is_nan()).count();
    let (ours, theirs) = (known(candidate), known(baseline));
    if ours < 2 || theirs < 2 {
        return 1.0;
    }
    let mut points = [(0.0, false); 2 * COMPARE_EVERY[1] / MINUTE];
    let sides = candidate.iter().map(|r| (*r, true)).chain(baseline.iter().map(|r| (*r, false)));
    for (place, point) in points.iter_mut().zip(sides.filter(|(ratio, _)| !ratio.is_nan())) {
        *place = point;
    }
    let points = &mut points[..ours + theirs];
    points.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
    let (n, m) = (ours as f64, theirs as f64);
    let (mut rank_sum, mut ties, mut at) = (0.0, 0.0, 0.0);
    for equal in points.chunk_by(|x, y| x.0.total_cmp(&y.0).is_eq()) {
        let size = equal.len() as f64;
        let candidates = equal.iter().filter(|(_, ours)| *ours).count() as f64;
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
