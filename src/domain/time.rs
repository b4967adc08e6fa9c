//! Points in time. Durations are `std::time::Duration`.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The latest multiple of `step` since the epoch that is not after this time.
    #[must_use]
    pub fn align_down(self, step: Duration) -> Self {
        let step = millis(step).max(1);
        Self(self.0 - self.0.rem_euclid(step))
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whether `duration` has passed since `earlier`. If `earlier` lies ahead, the clock has been
    /// put back since then, and nothing may wait until it gets there again.
    #[must_use]
    pub fn is_past(self, earlier: Self, duration: Duration) -> bool {
        self < earlier || self.since(earlier) >= duration
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_goes_down_and_time_never_runs_backwards() {
        let at = Timestamp::from_millis;
        assert_eq!(at(44_999).align_down(Duration::from_secs(15)), at(30_000));
        assert_eq!(at(45_000).align_down(Duration::from_secs(15)), at(45_000));
        assert_eq!(at(10).since(at(20)), Duration::ZERO);
        assert_eq!(at(10) + Duration::from_secs(1), at(1_010));
        assert_eq!(at(1_010) - Duration::from_secs(1), at(10));
    }

    #[test]
    fn a_clock_that_was_put_back_lets_nothing_wait_until_it_is_there_again() {
        let (early, late) = (Timestamp::from_millis(1000), Timestamp::from_millis(5000));
        let second = Duration::from_secs(1);
        assert!(late.is_past(early, second * 4) && !late.is_past(early, second * 5));
        assert!(early.is_past(late, second * 4));
    }
}
