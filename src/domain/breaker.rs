//! Many fleets that regress at once: that is not one version's fault.

use std::time::Duration;

use super::share::Share;
use super::time::Timestamp;

/// How many fleets may regress at once before none is taken back without a person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    /// More fleets than this must regress, …
    pub fleets_max: u32,
    /// … and more than this share of all.
    pub share_max: Share,
    /// What counts as at once.
    pub within: Duration,
}

/// What the breaker goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regressions {
    /// Fleets that regressed within the last while.
    pub regressed: usize,
    /// All fleets that are watched.
    pub fleets: usize,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { fleets_max: 3, share_max: Share::FIFTH, within: Duration::from_mins(10) }
    }
}

impl Breaker {
    /// Whether a regression found at `regressed_at` counts at `now`. One from a time that is still
    /// to come does: the clock was put back, and it is not known how long ago that was.
    #[must_use]
    pub fn counts(&self, regressed_at: Timestamp, now: Timestamp) -> bool {
        now.since(regressed_at) < self.within
    }

    /// Whether so many fleets regress that it is no version's fault.
    #[must_use]
    pub fn is_open(&self, seen: Regressions) -> bool {
        let share_max = self.share_max.get() * seen.fleets as f64;
        // A share met exactly is not exceeded, whatever the last bit of the product.
        seen.regressed > self.fleets_max as usize && seen.regressed as f64 > share_max + 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_on_many_fleets_that_are_a_large_share() {
        let breaker = Breaker::default();
        #[rustfmt::skip]
        let cases = [
            ("all of a few",           3,   3, false),
            ("one more",               4,   4, true),
            ("many, of very many",    10, 100, false),
            ("exactly the share",     20, 100, false),
            ("just over the share",   21, 100, true),
            ("none",                   0,   0, false),
        ];
        for (name, regressed, fleets, want) in cases {
            assert_eq!(breaker.is_open(Regressions { regressed, fleets }), want, "{name}");
        }
        let exact = Breaker { share_max: Share::new(0.29).unwrap(), ..breaker };
        assert!(!exact.is_open(Regressions { regressed: 29, fleets: 100 }));
    }

    #[test]
    fn a_regression_counts_for_a_while() {
        let breaker = Breaker { within: Duration::from_mins(1), ..Breaker::default() };
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert!(breaker.counts(at(100), at(159)));
        assert!(!breaker.counts(at(100), at(160)));
        assert!(breaker.counts(at(100), at(0)), "the clock was put back");
    }
}
