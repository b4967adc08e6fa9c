//! The way back, step by step.
//!
//! ```text
//! Chosen → Gated ──────────────→ Capable → Draining → Recorded → Confirming → Clean
//!             └→ Starting ⇄─────↗                                  └→ Stuck(Emptiness) ↗
//!                  └→ Stuck(Capacity) ↗            (an operator: any of them → Abandoned)
//! ```
//!
//! **Invariant:** [`step`] is pure and total, and only [`State::Draining`] drains: it is reached
//! through [`State::Capable`] alone. What is not seen never moves a rollback on.

use std::time::Duration;

use super::time::Timestamp;
use super::version::Version;

/// Successive looks that must find the bad version gone.
const EMPTY_LOOKS: u8 = 2;

/// Where a rollback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both versions are decided and recorded.
    Chosen,
    /// The manifest denies the bad version: no new worker of it starts.
    Gated,
    /// The platform was asked for workers of the good version; they are not all seen yet.
    Starting,
    /// Enough workers of the good version take sessions.
    Capable,
    /// The bad version's workers are asked to drain.
    Draining,
    /// `deployment.rolled_back` is in the ledger.
    Recorded,
    /// Waiting for the bad version to be gone; seen gone so many times in a row.
    Confirming {
        /// Successive looks that found nothing, below two.
        empty_looks: u8,
    },
    /// Seen gone twice. The end.
    Clean,
    /// Too late, still waiting; people are told.
    Stuck(Awaiting),
    /// An operator ended it. The end.
    Abandoned,
}

/// What a stuck rollback waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// The good version's workers.
    Capacity,
    /// The bad version's end; seen gone so many times in a row.
    Emptiness {
        /// Successive looks that found nothing, below two.
        empty_looks: u8,
    },
}

/// One rollback.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollback {
    /// Unique: fleet, and the `seq` of the record that chose it.
    pub id: String,
    /// The version taken back.
    pub bad: Version,
    /// The version that takes over.
    pub good: Version,
    /// Workers of the good version that can carry the load.
    pub workers_needed: u32,
    /// Why, in a sentence.
    pub reason: String,
    /// When it was decided.
    pub chosen_at: Timestamp,
    /// Where it is.
    pub state: State,
    /// Since when.
    pub state_since: Timestamp,
}

impl Rollback {
    /// The name of an effect: `<rollback id>/<step>`, the same for every repetition.
    #[must_use]
    pub fn effect_id(&self, effect: Effect) -> String {
        match effect {
            Effect::Start => format!("{}/start", self.id),
            Effect::Drain => format!("{}/drain", self.id),
        }
    }
}

/// What one look at the fleet saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// Workers of the good version that are alive and not draining.
    pub good_able: u32,
    /// Workers of the bad version that are alive, draining or not.
    pub bad_workers: u32,
    /// Workers of the bad version that were alive and can no longer be reached, which is not the
    /// same as gone.
    pub bad_unreachable: u32,
    /// Sessions live on the bad version.
    pub bad_live: f64,
}

impl Sighting {
    fn is_empty(&self) -> bool {
        self.bad_workers == 0 && self.bad_unreachable == 0 && self.bad_live <= 0.0
    }
}

/// What can happen to a rollback.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The state's record is on disk and its effects have been accepted.
    Settled,
    /// Somebody looked. Without an answer there is no such event.
    Seen(Sighting),
    /// An operator ended it.
    Abandoned,
}

/// What must be done in a state; repeating it is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the platform for [`Rollback::workers_needed`] workers of the good version.
    Start,
    /// Ask the bad version's workers to drain.
    Drain,
}

/// Times and choices that a config entry sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How long the good version may take to come up.
    pub start_timeout: Duration,
    /// Past `start_timeout`, go on with what there is, if there is any.
    pub proceed_without_capacity: bool,
    /// How long the bad version may take to end.
    pub drain_deadline: Duration,
}

impl State {
    /// The states that a rollback leaves again.
    pub const PASSING: [Self; 8] = [
        Self::Chosen,
        Self::Gated,
        Self::Starting,
        Self::Capable,
        Self::Draining,
        Self::Recorded,
        Self::Confirming { empty_looks: 0 },
        Self::Stuck(Awaiting::Capacity),
    ];

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Clean | Self::Abandoned)
    }

    /// Whether the bad version's running workers are told to drain.
    #[must_use]
    pub fn drains(self) -> bool {
        match self {
            Self::Draining
            | Self::Recorded
            | Self::Confirming { .. }
            | Self::Clean
            | Self::Stuck(Awaiting::Emptiness { .. }) => true,
            Self::Chosen
            | Self::Gated
            | Self::Starting
            | Self::Capable
            | Self::Stuck(Awaiting::Capacity)
            | Self::Abandoned => false,
        }
    }

    /// What this state asks to be done, also again after a restart.
    #[must_use]
    pub fn effect(self) -> Option<Effect> {
        match self {
            Self::Starting | Self::Stuck(Awaiting::Capacity) => Some(Effect::Start),
            Self::Draining => Some(Effect::Drain),
            Self::Chosen
            | Self::Gated
            | Self::Capable
            | Self::Recorded
            | Self::Confirming { .. }
            | Self::Clean
            | Self::Stuck(Awaiting::Emptiness { .. })
            | Self::Abandoned => None,
        }
    }

    /// The state's name in ledger, API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Gated => "gated",
            Self::Starting => "starting",
            Self::Capable => "capable",
            Self::Draining => "draining",
            Self::Recorded => "recorded",
            Self::Confirming { .. } => "confirming",
            Self::Clean => "clean",
            Self::Stuck(_) => "stuck",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The state after `event` at `now`, and what to do on entering it.
#[must_use]
pub fn step(
    rollback: &Rollback,
    event: Event,
    now: Timestamp,
    policy: &Policy,
) -> (State, Option<Effect>) {
    let next = match event {
        Event::Settled => settled(rollback.state),
        Event::Seen(sighting) => seen(rollback, &sighting, now, policy),
        Event::Abandoned if rollback.state.is_final() => rollback.state,
        Event::Abandoned => State::Abandoned,
    };
    let entered = next.name() != rollback.state.name();
    (next, if entered { next.effect() } else { None })
}

fn settled(state: State) -> State {
    match state {
        State::Chosen => State::Gated,
        State::Capable => State::Draining,
        State::Draining => State::Recorded,
        State::Recorded => State::Confirming { empty_looks: 0 },
        State::Gated
        | State::Starting
        | State::Confirming { .. }
        | State::Clean
        | State::Stuck(_)
        | State::Abandoned => state,
    }
}

fn seen(rollback: &Rollback, sighting: &Sighting, now: Timestamp, policy: &Policy) -> State {
    let state = rollback.state;
    let late = |limit: Duration| now.since(rollback.state_since) > limit;
    let able = sighting.good_able >= rollback.workers_needed && sighting.good_able > 0;
    match state {
        State::Gated | State::Starting | State::Capable | State::Stuck(Awaiting::Capacity)
            if able =>
        {
            State::Capable
        }
        // It was told to wait, and is told otherwise since a restart.
        State::Stuck(Awaiting::Capacity)
            if policy.proceed_without_capacity && sighting.good_able > 0 =>
        {
            State::Capable
        }
        // What was able when it was last seen may have gone while nobody looked, or nothing could
        // be recorded.
        State::Gated | State::Capable => State::Starting,
        State::Starting if late(policy.start_timeout) => {
            if policy.proceed_without_capacity && sighting.good_able > 0 {
                State::Capable
            } else {
                State::Stuck(Awaiting::Capacity)
            }
        }
        State::Confirming { empty_looks } => match look(empty_looks, sighting) {
            None => State::Clean,
            Some(_) if late(policy.drain_deadline) => {
                State::Stuck(Awaiting::Emptiness { empty_looks: 0 })
            }
            Some(empty_looks) => State::Confirming { empty_looks },
        },
        State::Stuck(Awaiting::Emptiness { empty_looks }) => match look(empty_looks, sighting) {
            None => State::Clean,
            Some(empty_looks) => State::Stuck(Awaiting::Emptiness { empty_looks }),
        },
        State::Chosen
        | State::Starting
        | State::Draining
        | State::Recorded
        | State::Clean
        | State::Stuck(Awaiting::Capacity)
        | State::Abandoned => state,
    }
}

/// Looks in a row that found nothing, this one included; `None` when that is enough.
fn look(empty_looks: u8, sighting: &Sighting) -> Option<u8> {
    match sighting.is_empty() {
        false => Some(0),
        true if empty_looks + 1 >= EMPTY_LOOKS => None,
        true => Some(empty_looks + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        start_timeout: Duration::from_mins(10),
        proceed_without_capacity: false,
        drain_deadline: Duration::from_hours(2),
    };

    fn rollback(state: State) -> Rollback {
        Rollback {
            id: "voice-7".to_owned(),
            bad: "v2".parse().unwrap(),
            good: "v1".parse().unwrap(),
            workers_needed: 2,
            reason: "test".to_owned(),
            chosen_at: Timestamp::from_millis(0),
            state,
            state_since: Timestamp::from_millis(0),
        }
    }

    fn sighting(good_able: u32, bad_workers: u32, bad_live: f64) -> Event {
        Event::Seen(Sighting { good_able, bad_workers, bad_unreachable: 0, bad_live })
    }

    fn after(state: State, event: Event, seconds: i64) -> State {
        step(&rollback(state), event, Timestamp::from_millis(seconds * 1000), &POLICY).0
    }

    #[test]
    fn a_rollback_walks_its_eight_steps() {
        let walk = [
            (Event::Settled, State::Gated),
            (sighting(1, 2, 5.0), State::Starting),
            (sighting(1, 2, 5.0), State::Starting),
            (sighting(2, 2, 5.0), State::Capable),
            (Event::Settled, State::Draining),
            (Event::Settled, State::Recorded),
            (Event::Settled, State::Confirming { empty_looks: 0 }),
            (sighting(2, 1, 1.0), State::Confirming { empty_looks: 0 }),
            (sighting(2, 0, 0.0), State::Confirming { empty_looks: 1 }),
            (sighting(2, 0, 0.0), State::Clean),
            (sighting(0, 9, 9.0), State::Clean),
        ];
        let mut state = State::Chosen;
        for (event, want) in walk {
            state = after(state, event, 1);
            assert_eq!(state, want, "after {event:?}");
        }
    }

    #[test]
    fn what_was_able_before_a_crash_must_be_seen_able_again() {
        let capable = |good_able| after(State::Capable, sighting(good_able, 2, 5.0), 3600);
        assert_eq!(capable(1), State::Starting);
        assert_eq!(capable(2), State::Capable);
    }

    #[test]
    fn one_full_look_between_two_empty_ones_starts_the_count_again() {
        let once = after(State::Confirming { empty_looks: 0 }, sighting(2, 0, 0.0), 1);
        assert_eq!(after(once, sighting(2, 0, 1.0), 2), State::Confirming { empty_looks: 0 });
    }

    #[test]
    fn a_worker_that_cannot_be_reached_is_not_gone() {
        let unreachable =
            Sighting { good_able: 2, bad_workers: 0, bad_unreachable: 1, bad_live: 0.0 };
        let state = State::Confirming { empty_looks: 1 };
        assert_eq!(after(state, Event::Seen(unreachable), 1), State::Confirming { empty_looks: 0 });
    }

    #[test]
    fn late_workers_make_it_stuck_and_their_arrival_frees_it() {
        let stuck = after(State::Starting, sighting(1, 2, 5.0), 601);
        assert_eq!(stuck, State::Stuck(Awaiting::Capacity));
        assert_eq!(after(stuck, sighting(2, 2, 5.0), 9_999), State::Capable);
    }

    #[test]
    fn a_stuck_start_goes_on_with_what_there_is_once_the_config_says_so() {
        let proceed = Policy { proceed_without_capacity: true, ..POLICY };
        let now = Timestamp::from_millis(0);
        let stuck = rollback(State::Stuck(Awaiting::Capacity));
        let next = |seen, policy| step(&stuck, seen, now, policy).0;
        assert_eq!(next(sighting(1, 2, 5.0), &POLICY), stuck.state);
        assert_eq!(next(sighting(1, 2, 5.0), &proceed), State::Capable);
        assert_eq!(next(sighting(0, 2, 5.0), &proceed), stuck.state, "one at least");
    }

    #[test]
    fn an_overdue_drain_is_reported_and_never_forced() {
        let stuck = after(State::Confirming { empty_looks: 0 }, sighting(2, 1, 1.0), 7201);
        assert_eq!(stuck, State::Stuck(Awaiting::Emptiness { empty_looks: 0 }));
        assert_eq!(stuck.effect(), None);
        let once = after(stuck, sighting(2, 0, 0.0), 7202);
        assert_eq!(after(once, sighting(2, 0, 0.0), 7203), State::Clean);
    }

    #[test]
    fn a_fleet_without_any_able_worker_is_never_capable() {
        let mut none_needed = rollback(State::Gated);
        none_needed.workers_needed = 0;
        let now = Timestamp::from_millis(0);
        let (next, effect) = step(&none_needed, sighting(0, 0, 0.0), now, &POLICY);
        assert_eq!((next, effect), (State::Starting, Some(Effect::Start)));
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Settled),
            (0..4_u32, 0..3_u32, 0..2_u32, 0..3_u32).prop_map(|(good, bad, lost, live)| {
                Event::Seen(Sighting {
                    good_able: good,
                    bad_workers: bad,
                    bad_unreachable: lost,
                    bad_live: f64::from(live),
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn nothing_drains_before_the_good_version_was_seen_able(
            events in prop::collection::vec(any_event(), 0..40)
        ) {
            let mut current = rollback(State::Chosen);
            let mut seen_able = false;
            for (second, event) in events.into_iter().enumerate() {
                if let Event::Seen(s) = event {
                    seen_able |= s.good_able >= current.workers_needed;
                }
                let now = Timestamp::from_millis(i64::try_from(second).unwrap() * 100_000);
                let (next, effect) = step(&current, event, now, &POLICY);
                prop_assert!(!next.drains() || seen_able);
                prop_assert!(effect != Some(Effect::Drain) || seen_able);
                if current.state.is_final() {
                    prop_assert_eq!(next, current.state);
                }
                current.state = next;
            }
        }
    }
}
