//! Sessions of two versions, as counts per tick.
//!
//! Sessions arrive as a Poisson process and last an exponential time. One that fails does so at
//! set-up, which ends it at once, or in mid-call, at a moment spread evenly over its length. So
//! young sessions, late failures and moving traffic do to the counts what they do in production.
//!
//! Sessions that fail in mid-call are drawn one by one, all others by the tick, which is the same in
//! distribution, since the exponential has no memory. So a hundred sessions a second are simulated
//! for hours in a millisecond.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_distr::{Binomial, Distribution, Exp1, Poisson};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::domain::counts::Counts;

/// The generator that all draws come from.
pub type Random = Xoshiro256PlusPlus;

/// The generator of one run of one scenario.
#[must_use]
pub fn random(seed: u64, scenario: u64, run: u64) -> Random {
    // Odd multipliers keep neighbours apart; `seed_from_u64` mixes the rest.
    let mixed = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(scenario.wrapping_mul(0xBF58_476D_1CE4_E5B9))
        .wrapping_add(run.wrapping_mul(0x94D0_49BB_1331_11EB));
    Random::seed_from_u64(mixed)
}

/// How the candidate's share of the new sessions moves over the observation: in a straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The share in the first tick, 0 to 1.
    pub first: f64,
    /// The share in the last tick, 0 to 1.
    pub last: f64,
}

impl Shape {
    /// Half of the sessions go to each version.
    pub const HALF: Self = Self { first: 0.5, last: 0.5 };
    /// The candidate begins with half of the sessions and ends with a twentieth.
    pub const FALLING: Self = Self { first: 0.5, last: 0.05 };
    /// The candidate takes over, from 1 % to 99 %.
    pub const RISING: Self = Self { first: 0.01, last: 0.99 };
    /// The candidate takes everything at once.
    pub const SWITCHED: Self = Self { first: 1.0, last: 1.0 };

    /// The share in tick `tick` of `ticks`.
    #[must_use]
    pub fn at(self, tick: usize, ticks: usize) -> f64 {
        let along = tick as f64 / ticks.saturating_sub(1).max(1) as f64;
        self.first + (self.last - self.first) * along
    }
}

/// What sessions are like, whichever version takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Sessions started a second, both versions together.
    pub rate: f64,
    /// Their mean length in seconds.
    pub session_seconds: f64,
    /// The share of failures that strike at set-up; the others strike in mid-call.
    pub at_set_up: f64,
}

/// One version in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// What rollbackd counts. `live` is the mean of the tick's two ends.
    pub counts: Counts,
    /// Sessions that ended in the tick, failed or not.
    pub ended: u64,
}

/// Sessions of one version, drawn tick by tick.
#[derive(Debug)]
pub struct Sessions<'r> {
    random: &'r mut Random,
    traffic: Traffic,
    tick_seconds: f64,
    /// The part of the sessions in progress that outlasts a tick.
    survives: f64,
    /// The same of those that begin anywhere within it.
    survives_from_within: f64,
    good: Arrivals,
    bad_at_set_up: Arrivals,
    bad_in_call: Arrivals,
    /// Sessions in progress that will not fail.
    live: u64,
    /// In progress, and going to fail: how many in the next tick, in the one after, and so on.
    doomed: VecDeque<u64>,
    doomed_in_all: u64,
}

/// Counts with this mean. Where traffic does not move, it is the same tick after tick.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    mean: f64,
    /// None for a mean of 0, of which there is nothing to draw.
    counts: Option<Poisson<f64>>,
}

impl Arrivals {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    fn draw(&mut self, mean: f64, random: &mut Random) -> u64 {
        if self.mean.total_cmp(&mean).is_ne() {
            *self = Self { mean, counts: Poisson::new(mean).ok() };
        }
        self.counts.map_or(0, |counts| counts.sample(random) as u64)
    }
}

impl<'r> Sessions<'r> {
    /// Of a version that begins now.
    pub fn fresh(random: &'r mut Random, traffic: Traffic, tick_seconds: f64) -> Self {
        let ticks_long = tick_seconds / traffic.session_seconds;
        Self {
            random,
            traffic,
            tick_seconds,
            survives: (-ticks_long).exp(),
            survives_from_within: -(-ticks_long).exp_m1() / ticks_long,
            good: Arrivals::default(),
            bad_at_set_up: Arrivals::default(),
            bad_in_call: Arrivals::default(),
            live: 0,
            doomed: VecDeque::new(),
            doomed_in_all: 0,
        }
    }

    /// Of a version that has taken all sessions for long, and failed `fail_share` of them.
    pub fn settled(
        random: &'r mut Random,
        traffic: Traffic,
        tick_seconds: f64,
        fail_share: f64,
    ) -> Self {
        let mut sessions = Self::fresh(random, traffic, tick_seconds);
        let Traffic { rate, session_seconds, at_set_up } = traffic;
        let good = rate * (1.0 - fail_share) * session_seconds;
        sessions.live = Arrivals::default().draw(good, sessions.random);
        // In mid-call, a session lasts half of the mean until it fails.
        let bad = rate * fail_share * (1.0 - at_set_up) * session_seconds / 2.0;
        for _ in 0..Arrivals::default().draw(bad, sessions.random) {
            let left = sessions.until_failure_of_one_in_progress();
            sessions.doom(left);
        }
        sessions
    }

    /// Sessions in progress now.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.live + self.doomed_in_all
    }

    /// The next tick, in which the version takes `share` of the sessions and fails `fail_share`
    /// of those.
    pub fn next(&mut self, share: f64, fail_share: f64) -> Seen {
        let live_before = self.live();
        let starts = self.traffic.rate * share * self.tick_seconds;
        let bad = starts * fail_share;
        let good = self.good.draw(starts - bad, self.random);
        let at_set_up = self.bad_at_set_up.draw(bad * self.traffic.at_set_up, self.random);
        let in_call = self.bad_in_call.draw(bad * (1.0 - self.traffic.at_set_up), self.random);
        self.live = self.binomial(self.live, self.survives)
            + self.binomial(good, self.survives_from_within);
        for _ in 0..in_call {
            let began = self.random.random::<f64>() * self.tick_seconds;
            let lasts = self.until_failure();
            self.doom(began + lasts);
        }
        let failed_in_call = self.doomed.pop_front().unwrap_or(0);
        self.doomed_in_all -= failed_in_call;
        let live = self.live();
        let started = good + at_set_up + in_call;
        let failed = at_set_up + failed_in_call;
        Seen {
            counts: Counts { started, failed, live: (live_before + live) as f64 / 2.0 },
            ended: live_before + started - live,
        }
    }

    /// A session that will fail, so many seconds after the beginning of the next tick.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "time from 0 on")]
    fn doom(&mut self, seconds: f64) {
        let ticks = (seconds / self.tick_seconds) as usize;
        if self.doomed.len() <= ticks {
            self.doomed.resize(ticks + 1, 0);
        }
        self.doomed[ticks] += 1;
        self.doomed_in_all += 1;
    }

    /// Seconds from the start of a session that fails in mid-call until it does.
    fn until_failure(&mut self) -> f64 {
        let length: f64 = Exp1.sample(self.random);
        length * self.traffic.session_seconds * self.random.random::<f64>()
    }

    /// What is left of that for one found in progress. Longer ones are likelier to be found, in
    /// proportion to their length, at any moment of it.
    fn until_failure_of_one_in_progress(&mut self) -> f64 {
        let length: f64 = Exp1.sample(self.random);
        let more: f64 = Exp1.sample(self.random);
        let until_failure = self.random.random::<f64>().sqrt();
        (length + more) * self.traffic.session_seconds * until_failure * self.random.random::<f64>()
    }

    fn binomial(&mut self, trials: u64, share: f64) -> u64 {
        Binomial::new(trials, share).map_or(0, |counts| counts.sample(self.random))
    }
}

/// One simulated rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// The candidate, tick by tick.
    pub candidate: Vec<Seen>,
    /// The baseline in the same ticks.
    pub baseline: Vec<Seen>,
    /// The baseline's past, a chunk a tick.
    pub history: Vec<Counts>,
}

/// What to simulate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// What sessions are like.
    pub traffic: Traffic,
    /// How the candidate's share of them moves.
    pub shape: Shape,
    /// The share of its sessions that the baseline fails.
    pub baseline_share: f64,
    /// The share that the candidate fails once it is at its worst; at most 1.
    pub candidate_share: f64,
    /// Until this tick the candidate fails as the baseline does.
    pub worse_from: usize,
    /// Ticks of the observation.
    pub ticks: usize,
    /// The length of a tick.
    pub tick_seconds: f64,
    /// How much of the baseline's past there is; 0 for none.
    pub history_seconds: f64,
}

impl Scenario {
    /// Draws one rollout.
    #[must_use]
    pub fn draw(&self, random: &mut Random) -> Rollout {
        let Self { traffic, ticks, tick_seconds, baseline_share, .. } = *self;
        let mut rollout = Rollout::default();
        if self.history_seconds > 0.0 {
            let chunk = self.history_seconds / ticks as f64;
            let mut past = Sessions::settled(random, traffic, chunk, baseline_share);
            // As long at risk as the ticks in it together.
            let long = chunk / tick_seconds;
            rollout.history = (0..ticks)
                .map(|_| past.next(1.0, baseline_share).counts)
                .map(|counts| Counts { live: counts.live * long, ..counts })
                .collect();
        }
        let mut candidate = Sessions::fresh(random, traffic, tick_seconds);
        let fails =
            |tick| if tick < self.worse_from { baseline_share } else { self.candidate_share };
        rollout.candidate =
            (0..ticks).map(|t| candidate.next(self.shape.at(t, ticks), fails(t))).collect();
        let mut baseline = Sessions::settled(random, traffic, tick_seconds, baseline_share);
        rollout.baseline = (0..ticks)
            .map(|t| baseline.next(1.0 - self.shape.at(t, ticks), baseline_share))
            .collect();
        rollout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: Traffic = Traffic { rate: 4.0, session_seconds: 180.0, at_set_up: 0.5 };

    fn sum(seen: &[Seen], of: impl Fn(&Seen) -> f64) -> f64 {
        seen.iter().map(of).sum()
    }

    /// Four standard deviations of a Poisson count.
    fn is_near(counted: f64, expected: f64) -> bool {
        (counted - expected).abs() < 4.0 * expected.sqrt()
    }

    #[test]
    fn a_settled_version_stays_as_it_is() {
        let mut random = random(1, 0, 0);
        let mut sessions = Sessions::settled(&mut random, TRAFFIC, 15.0, 0.1);
        let seen: Vec<Seen> = (0..2000).map(|_| sessions.next(1.0, 0.1)).collect();
        let expected = 4.0 * 15.0 * 2000.0;
        assert!(is_near(sum(&seen, |s| s.counts.started as f64), expected));
        assert!(is_near(sum(&seen, |s| s.counts.failed as f64), expected * 0.1));
        assert!(is_near(sum(&seen, |s| s.ended as f64), expected));
        // Good ones last the mean, of the bad half none and half half of it.
        let live = 4.0 * 180.0 * (0.9 + 0.1 * 0.5 * 0.5);
        let mean = sum(&seen, |s| s.counts.live) / 2000.0;
        assert!((mean / live - 1.0).abs() < 0.03, "{mean} for {live}");
        let early = sum(&seen[..100], |s| s.counts.live) / 100.0;
        assert!((early / live - 1.0).abs() < 0.1, "{early} for {live}: it was not settled");
    }

    #[test]
    fn failures_in_mid_call_come_late_and_the_sessions_of_a_fresh_version_end_later() {
        let traffic = Traffic { at_set_up: 0.0, ..TRAFFIC };
        let mut random = random(2, 0, 0);
        let mut failed = [0.0; 3];
        let mut ended = 0.0;
        for _ in 0..200 {
            let mut sessions = Sessions::fresh(&mut random, traffic, 15.0);
            for failed in &mut failed {
                let seen = sessions.next(1.0, 0.5);
                *failed += seen.counts.failed as f64;
                ended += seen.ended as f64;
            }
        }
        assert!(failed[0] < failed[1] && failed[1] < failed[2], "{failed:?}");
        assert!(ended < 0.4 * 200.0 * 3.0 * 60.0, "{ended}");
    }

    #[test]
    fn the_shares_of_both_versions_make_a_whole() {
        for shape in [Shape::HALF, Shape::FALLING, Shape::RISING, Shape::SWITCHED] {
            assert!((shape.at(0, 240) - shape.first).abs() < 1e-12);
            assert!((shape.at(239, 240) - shape.last).abs() < 1e-12);
        }
    }

    #[test]
    fn a_seed_gives_the_same_rollout_and_another_gives_another() {
        let scenario = Scenario {
            traffic: TRAFFIC,
            shape: Shape::RISING,
            baseline_share: 0.02,
            candidate_share: 0.06,
            worse_from: 0,
            ticks: 40,
            tick_seconds: 15.0,
            history_seconds: 3600.0,
        };
        let draw = |seed, run| scenario.draw(&mut random(seed, 3, run));
        assert_eq!(draw(1, 7), draw(1, 7));
        assert_ne!(draw(1, 7), draw(1, 8));
        assert_ne!(draw(1, 7), draw(2, 7));
    }
}
