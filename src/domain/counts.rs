//! What was counted between two evaluations.

use std::ops::{Add, AddAssign};

/// One side of one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Sessions started in the tick.
    pub started: u64,
    /// Sessions that failed in the tick, plus one for each worker that died with sessions on it.
    pub failed: u64,
    /// Sessions in progress, the mean over the tick; 0 without a live gauge.
    pub live: f64,
}

/// Candidate and control over the same tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tick {
    /// The version under observation.
    pub candidate: Counts,
    /// What it is compared with; all 0 where there is nothing to compare with.
    pub control: Counts,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            started: self.started.saturating_add(other.started),
            failed: self.failed.saturating_add(other.failed),
            live: self.live + other.live,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
