//! One value rule watching one candidate: a value against fixed limits.
//!
//! No statistics: a value over a limit is over it, however it scatters. What keeps it from acting
//! on a moment is time: only values that were *seen* over `rollback_above`, tick after tick, for
//! all of `hold_for` convict.
//!
//! **Invariant:** a tick without a value, and time that no tick stands for, never brings a
//! conviction nearer: both end the streak.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Timestamp;

/// Successive ticks without a value after which its data counts as missing.
const SILENT_TICKS_MAX: u32 = 4;

/// What a value rule allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueLimits {
    /// People are told above this.
    pub escalate_above: Option<f64>,
    /// The candidate is convicted when above this for `hold_for`.
    pub rollback_above: Option<f64>,
    /// The rule's `for`.
    pub hold_for: Duration,
    /// The length of a tick: ticks further apart do not follow each other.
    pub interval: Duration,
}

/// What a value rule says. Ordered: the worst of several rules' is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueVerdict {
    /// Not above any limit.
    Healthy,
    /// No value for several ticks; never a reason to act.
    NoData,
    /// Above `rollback_above`, not yet for `for`; there is no limit at which people are told.
    Pending,
    /// Above `escalate_above`.
    Over,
    /// Above `rollback_above` for all of `for`.
    Regressed,
}

impl ValueVerdict {
    /// The verdict's name in ledger, API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::NoData => "no_data",
            Self::Pending => "pending",
            Self::Over => "over",
            Self::Regressed => "regressed",
        }
    }
}

/// One value rule's observation of one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueObservation {
    limits: ValueLimits,
    /// The ticks that the verdict rests on, the last one last.
    recent: VecDeque<(Timestamp, Option<f64>)>,
    /// The first tick of the streak above `rollback_above`.
    over_since: Option<Timestamp>,
    /// Above `escalate_above` when it was last seen.
    is_over: bool,
    silent_ticks: u32,
    has_values: bool,
}

impl ValueObservation {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(limits: ValueLimits) -> Self {
        Self {
            limits,
            recent: VecDeque::new(),
            over_since: None,
            is_over: false,
            silent_ticks: 0,
            has_values: false,
        }
    }

    /// Takes the tick that ended `at`. `None`, NaN and infinities are no value.
    pub fn observe(&mut self, at: Timestamp, value: Option<f64>) {
        let value = value.filter(|value| value.is_finite());
        let follows =
            self.recent.back().is_some_and(|(last, _)| at <= *last + self.limits.interval);
        let exceeds =
            |limit: Option<f64>| value.zip(limit).is_some_and(|(value, limit)| value > limit);
        self.over_since = match self.over_since.filter(|_| follows) {
            _ if !exceeds(self.limits.rollback_above) => None,
            since => since.or(Some(at)),
        };
        match value {
            Some(_) => {
                self.is_over = exceeds(self.limits.escalate_above);
                self.silent_ticks = 0;
                self.has_values = true;
            }
            // Silence does not say that it is well again.
            None => self.silent_ticks = self.silent_ticks.saturating_add(1),
        }
        self.recent.push_back((at, value));
        let ValueLimits { hold_for, interval, .. } = self.limits;
        let needed = hold_for.max(interval * SILENT_TICKS_MAX) + interval;
        while self.recent.front().is_some_and(|(first, _)| at.since(*first) > needed) {
            self.recent.pop_front();
        }
    }

    /// The verdict after the last tick.
    #[must_use]
    pub fn verdict(&self) -> ValueVerdict {
        let last = self.recent.back().map(|(at, _)| *at);
        let lasted = last.zip(self.over_since).map(|(last, since)| last.since(since));
        match lasted {
            Some(lasted) if lasted >= self.limits.hold_for => ValueVerdict::Regressed,
            _ if self.silent_ticks >= SILENT_TICKS_MAX => ValueVerdict::NoData,
            _ if self.is_over => ValueVerdict::Over,
            Some(_) => ValueVerdict::Pending,
            None => ValueVerdict::Healthy,
        }
    }

    /// The value of the last tick.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.recent.back().and_then(|(_, value)| *value)
    }

    /// Since when it has been above `rollback_above`, without a gap.
    #[must_use]
    pub fn over_since(&self) -> Option<Timestamp> {
        self.over_since
    }

    /// Whether there was ever a value.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.has_values
    }

    /// The ticks that the verdict rests on: the last ones, and all of the streak up to `for`.
    #[must_use]
    pub fn ticks(&self) -> &VecDeque<(Timestamp, Option<f64>)> {
        &self.recent
    }

    /// What it was made with.
    #[must_use]
    pub fn limits(&self) -> &ValueLimits {
        &self.limits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ValueVerdict::{Healthy, NoData, Over, Pending, Regressed};
    use super::*;

    const TICK: Duration = Duration::from_secs(10);

    fn at(tick: i64) -> Timestamp {
        Timestamp::from_millis(tick * 10_000)
    }

    fn limits(escalate_above: Option<f64>, rollback_above: Option<f64>) -> ValueLimits {
        ValueLimits { escalate_above, rollback_above, hold_for: TICK * 3, interval: TICK }
    }

    fn verdict(limits: ValueLimits, values: &[Option<f64>]) -> ValueVerdict {
        let mut watch = ValueObservation::new(limits);
        for (tick, value) in (1..).zip(values) {
            watch.observe(at(tick), *value);
        }
        watch.verdict()
    }

    #[test]
    fn a_value_is_told_of_at_once_and_convicts_only_after_its_time_above_the_limit() {
        let (both, only_rollback) = (limits(Some(1.5), Some(6.0)), limits(None, Some(6.0)));
        let only_escalate = limits(Some(1.5), None);
        let (low, high, worst) = (Some(1.5), Some(2.0), Some(7.0));
        let nan = Some(f64::NAN);
        #[rustfmt::skip]
        let cases: &[(&str, ValueLimits, &[Option<f64>], ValueVerdict)] = &[
            ("nothing yet",                     both,          &[],                                   Healthy),
            ("at the limit is not above it",    both,          &[low],                                Healthy),
            ("above the first limit",           both,          &[high],                               Over),
            ("above the second, a moment",      both,          &[worst],                              Over),
            ("the same, nobody to be told",     only_rollback, &[worst],                              Pending),
            ("not yet for three ticks",         both,          &[worst, worst, worst],                Over),
            ("for three ticks",                 both,          &[worst, worst, worst, worst],         Regressed),
            ("and well again",                  both,          &[worst, worst, worst, worst, low],    Healthy),
            ("a dip begins it anew",            both,          &[worst, worst, high, worst, worst, worst], Over),
            ("a gap begins it anew",            both,          &[worst, worst, None, worst, worst, worst], Over),
            ("a NaN is a gap",                  both,          &[worst, worst, nan, worst, worst, worst],  Over),
            ("infinity is no value",            both,          &[Some(f64::INFINITY); 9],             NoData),
            ("no limit to roll back at",        only_escalate, &[worst; 9],                           Over),
            ("a short silence clears nothing",  both,          &[high, None, None, None],             Over),
            ("a long one is no data",           both,          &[high, None, None, None, None],       NoData),
            ("silent from the start",           both,          &[None; 4],                            NoData),
            ("it ends with a value",            both,          &[None, None, None, None, low],        Healthy),
        ];
        for (name, limits, values, want) in cases {
            assert_eq!(verdict(*limits, values), *want, "{name}");
        }
    }

    #[test]
    fn time_that_no_tick_stands_for_does_not_count() {
        let mut watch = ValueObservation::new(limits(None, Some(6.0)));
        watch.observe(at(1), Some(7.0));
        watch.observe(at(90), Some(7.0));
        assert_eq!((watch.verdict(), watch.over_since()), (Pending, Some(at(90))));
    }

    #[test]
    fn what_is_kept_convicts_by_itself_and_is_no_more_than_needed() {
        let mut watch = ValueObservation::new(limits(None, Some(6.0)));
        for tick in 1..1000 {
            watch.observe(at(tick), Some(7.0));
        }
        let kept: Vec<Option<f64>> = watch.ticks().iter().map(|(_, value)| *value).collect();
        assert!(kept.len() <= 6, "{}", kept.len());
        assert_eq!(verdict(*watch.limits(), &kept), Regressed);
    }

    proptest! {
        #[test]
        fn only_a_streak_of_values_above_the_limit_convicts(
            values in prop::collection::vec(prop::option::of(0.0..10.0_f64), 0..30)
        ) {
            let last: Vec<_> = values.iter().rev().take(4).collect();
            let streak = last.len() == 4 && last.iter().all(|v| v.is_some_and(|v| v > 6.0));
            let found = verdict(limits(Some(1.5), Some(6.0)), &values);
            prop_assert_eq!(found == Regressed, streak);
            if values.last().is_some_and(Option::is_none) {
                prop_assert!(found != Regressed && found != Pending);
            }
        }
    }
}
