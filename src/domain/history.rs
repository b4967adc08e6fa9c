//! What a fleet has been through: a fold over its events.
//!
//! **Invariant:** [`FleetHistory::apply`] is the only way the state changes, live and in replay
//! alike; what it refuses cannot have happened.

use std::collections::{BTreeMap, BTreeSet};

use super::rollback::{Rollback, State};
use super::time::Timestamp;
use super::version::Version;

/// What happened to one fleet, as the ledger remembers it.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// The version that carried the fleet when it was first seen.
    BaselineAdopted {
        /// It is the last good version now.
        version: Version,
    },
    /// A candidate came under observation.
    RolloutStarted {
        /// Who, against whom, since when.
        rollout: Rollout,
    },
    /// A candidate left before it was judged.
    RolloutEnded {
        /// It may come back as a new rollout.
        candidate: Version,
    },
    /// The evidence against a candidate passed its bound, for the first time.
    Regressed {
        /// Whatever is decided about it.
        candidate: Version,
    },
    /// A candidate regressed while many other fleets did; a person decides about it.
    HeldBack {
        /// It stays so, also when no others regress any more.
        candidate: Version,
    },
    /// Observation ended with no evidence against the candidate.
    Promoted {
        /// It is the last good version now.
        version: Version,
    },
    /// An operator said that nothing is to be decided.
    Paused {
        /// The end; none: until resumed.
        until: Option<Timestamp>,
    },
    /// An operator ended the pause.
    Resumed,
    /// An operator lifted a version's denial.
    Allowed {
        /// It may start again.
        version: Version,
    },
    /// A rollback was decided.
    RollbackChosen {
        /// In [`State::Chosen`].
        rollback: Rollback,
    },
    /// A rollback took a step.
    RollbackMoved {
        /// Which one.
        id: String,
        /// Where it is now.
        state: State,
    },
}

/// A candidate's time under observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The version under observation.
    pub candidate: Version,
    /// The last good version then; none: only a ceiling can judge.
    pub baseline: Option<Version>,
    /// The end of the tick before the first that counts.
    pub started_at: Timestamp,
    /// When the observation is over.
    pub observe_until: Timestamp,
    /// Workers the baseline had then.
    pub baseline_workers: u32,
}

/// Why a happening cannot follow what was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// A rollback that is not there took a step, or a second one began.
    #[error("rollback {0} does not fit what was recorded before")]
    Rollback(String),
    /// A rollout that is not there ended.
    #[error("no rollout of version {0} is under way")]
    Rollout(Version),
    /// A version was allowed that nobody denied, or whose rollback is under way.
    #[error("version {0} cannot be allowed")]
    Allowed(Version),
}

/// A pause that an operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The end; none: until resumed.
    pub until: Option<Timestamp>,
}

/// What became of a version, last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It carried the fleet when that was first seen.
    Adopted,
    /// Observed, and nothing spoke against it.
    Promoted,
    /// It left before it was judged.
    Left,
    /// Taken back.
    RolledBack,
}

impl Outcome {
    /// The outcome's name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Promoted => "promoted",
            Self::Left => "left",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What became of a version, and where that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// What.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// The record that says so.
    pub seq: u64,
}

/// One fleet's remembered state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetHistory {
    promoted: Vec<Version>,
    past: BTreeMap<Version, Past>,
    denied: BTreeSet<Version>,
    rollouts: BTreeMap<Version, Rollout>,
    regressed: BTreeSet<Version>,
    held_back: BTreeSet<Version>,
    regressed_at: Option<Timestamp>,
    rollbacks: Vec<Rollback>,
    pause: Option<Pause>,
    serial: u64,
}

impl FleetHistory {
    /// Takes the next happening, recorded as `seq` at `at`.
    ///
    /// # Errors
    /// When it cannot follow what was before; nothing is changed then.
    pub fn apply(
        &mut self,
        seq: u64,
        at: Timestamp,
        happening: &Happening,
    ) -> Result<(), Impossible> {
        match happening {
            Happening::BaselineAdopted { version } => {
                self.make_last_good(version);
                self.close(version, Outcome::Adopted, at, seq);
            }
            Happening::RolloutStarted { rollout } => {
                self.rollouts.insert(rollout.candidate.clone(), rollout.clone());
            }
            Happening::RolloutEnded { candidate } => {
                self.under_observation(candidate)?;
                self.end_rollout(candidate);
                self.close(candidate, Outcome::Left, at, seq);
            }
            Happening::Regressed { candidate } => {
                self.under_observation(candidate)?;
                self.regressed.insert(candidate.clone());
                self.regressed_at = Some(at);
            }
            Happening::HeldBack { candidate } => {
                self.under_observation(candidate)?;
                self.held_back.insert(candidate.clone());
            }
            Happening::Promoted { version } => {
                self.under_observation(version)?;
                self.end_rollout(version);
                self.make_last_good(version);
                self.close(version, Outcome::Promoted, at, seq);
            }
            Happening::Paused { until } => self.pause = Some(Pause { until: *until }),
            Happening::Resumed => self.pause = None,
            Happening::Allowed { version } => {
                if !self.denied.contains(version)
                    || self.rollback().is_some_and(|r| r.bad == *version)
                {
                    return Err(Impossible::Allowed(version.clone()));
                }
                self.denied.remove(version);
            }
            Happening::RollbackChosen { rollback } => {
                if self.rollback().is_some() || rollback.state != State::Chosen {
                    return Err(Impossible::Rollback(rollback.id.clone()));
                }
                self.end_rollout(&rollback.bad);
                // Allowed again one day, it is a candidate, not the last good version.
                self.promoted.retain(|version| *version != rollback.bad);
                self.denied.insert(rollback.bad.clone());
                self.rollbacks.push(rollback.clone());
                self.close(&rollback.bad, Outcome::RolledBack, at, seq);
            }
            Happening::RollbackMoved { id, state } => {
                let current = self.rollbacks.last_mut();
                let current = current.filter(|r| r.id == *id && !r.state.is_final());
                let current = current.ok_or_else(|| Impossible::Rollback(id.clone()))?;
                current.state = *state;
                current.state_since = at;
            }
        }
        self.serial = seq;
        Ok(())
    }

    /// Counts a look that found the bad version gone. Not a happening: after a restart the looks
    /// are counted again.
    pub fn count_empty_look(&mut self, state: State) {
        let current = self.rollbacks.last_mut();
        if let Some(current) = current.filter(|r| r.state.name() == state.name()) {
            current.state = state;
        }
    }

    fn under_observation(&self, candidate: &Version) -> Result<(), Impossible> {
        let known = self.rollouts.contains_key(candidate);
        if known { Ok(()) } else { Err(Impossible::Rollout(candidate.clone())) }
    }

    fn end_rollout(&mut self, candidate: &Version) {
        self.rollouts.remove(candidate);
        self.regressed.remove(candidate);
        self.held_back.remove(candidate);
    }

    fn make_last_good(&mut self, version: &Version) {
        self.promoted.retain(|earlier| earlier != version);
        self.promoted.push(version.clone());
    }

    fn close(&mut self, version: &Version, outcome: Outcome, at: Timestamp, seq: u64) {
        self.past.insert(version.clone(), Past { outcome, at, seq });
    }

    /// What became of each version, last.
    #[must_use]
    pub fn past(&self) -> &BTreeMap<Version, Past> {
        &self.past
    }

    /// The newest promoted version that is not denied.
    #[must_use]
    pub fn last_good(&self) -> Option<&Version> {
        self.last_good_except(None)
    }

    /// The newest promoted version that is neither denied nor `bad`.
    #[must_use]
    pub fn last_good_except(&self, bad: Option<&Version>) -> Option<&Version> {
        let allowed = |v: &&Version| !self.denied.contains(*v) && Some(*v) != bad;
        self.promoted.iter().rev().find(allowed)
    }

    /// Whether the version was ever the last good one.
    #[must_use]
    pub fn was_promoted(&self, version: &Version) -> bool {
        self.promoted.contains(version)
    }

    /// Versions that may not start and must drain once a rollback drains them.
    #[must_use]
    pub fn denied(&self) -> &BTreeSet<Version> {
        &self.denied
    }

    /// Denied versions whose running workers must drain now: all but one whose rollback still
    /// waits for the good version.
    #[must_use]
    pub fn draining(&self) -> BTreeSet<Version> {
        let waits = |version: &&Version| {
            self.rollback().is_some_and(|r| r.bad == **version && !r.state.drains())
        };
        let abandoned = |version: &&Version| {
            let newest = self.rollbacks.iter().rev().find(|r| r.bad == **version);
            newest.is_some_and(|r| r.state == State::Abandoned)
        };
        self.denied.iter().filter(|v| !waits(v) && !abandoned(v)).cloned().collect()
    }

    /// Candidates under observation.
    #[must_use]
    pub fn rollouts(&self) -> &BTreeMap<Version, Rollout> {
        &self.rollouts
    }

    /// Whether a candidate's regression is recorded.
    #[must_use]
    pub fn has_regressed(&self, candidate: &Version) -> bool {
        self.regressed.contains(candidate)
    }

    /// Whether a person must decide about a candidate, because many fleets regressed with it.
    #[must_use]
    pub fn is_held_back(&self, candidate: &Version) -> bool {
        self.held_back.contains(candidate)
    }

    /// When a candidate of this fleet was last found to regress.
    #[must_use]
    pub fn regressed_at(&self) -> Option<Timestamp> {
        self.regressed_at
    }

    /// All rollbacks, oldest first.
    #[must_use]
    pub fn rollbacks(&self) -> &[Rollback] {
        &self.rollbacks
    }

    /// The rollback under way.
    #[must_use]
    pub fn rollback(&self) -> Option<&Rollback> {
        self.rollbacks.last().filter(|rollback| !rollback.state.is_final())
    }

    /// The pause that holds at `at`.
    #[must_use]
    pub fn paused(&self, at: Timestamp) -> Option<Pause> {
        self.pause.filter(|pause| pause.until.is_none_or(|until| at < until))
    }

    /// The `seq` of the last record that changed anything: the manifest's serial.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn rollback(bad: &str, good: &str) -> Rollback {
        Rollback {
            id: format!("voice-{bad}"),
            bad: v(bad),
            good: v(good),
            workers_needed: 1,
            reason: "test".to_owned(),
            chosen_at: Timestamp::from_millis(0),
            state: State::Chosen,
            state_since: Timestamp::from_millis(0),
        }
    }

    fn told(happenings: &[Happening]) -> Result<FleetHistory, Impossible> {
        let mut history = FleetHistory::default();
        for (seq, happening) in (1..).zip(happenings) {
            history.apply(seq, Timestamp::from_millis(0), happening)?;
        }
        Ok(history)
    }

    #[test]
    fn a_denied_version_is_never_the_last_good_one() {
        let history = told(&[
            Happening::BaselineAdopted { version: v("v1") },
            Happening::BaselineAdopted { version: v("v2") },
            Happening::RollbackChosen { rollback: rollback("v2", "v1") },
        ])
        .unwrap();
        assert_eq!(history.last_good(), Some(&v("v1")));
        assert!(history.denied().contains(&v("v2")));
    }

    #[test]
    fn a_version_that_was_rolled_back_is_a_candidate_when_it_is_allowed_again() {
        let mut story = vec![
            Happening::BaselineAdopted { version: v("v1") },
            Happening::BaselineAdopted { version: v("v2") },
            Happening::RollbackChosen { rollback: rollback("v2", "v1") },
        ];
        let allowed = Happening::Allowed { version: v("v2") };
        let too_early = told(&[story.clone(), vec![allowed.clone()]].concat());
        assert_eq!(too_early, Err(Impossible::Allowed(v("v2"))), "its rollback is under way");
        story.push(Happening::RollbackMoved { id: "voice-v2".to_owned(), state: State::Abandoned });
        story.push(allowed.clone());
        let history = told(&story).unwrap();
        assert!(history.denied().is_empty() && history.draining().is_empty());
        assert_eq!(history.last_good(), Some(&v("v1")));
        assert!(!history.was_promoted(&v("v2")));
        story.push(allowed);
        assert_eq!(told(&story), Err(Impossible::Allowed(v("v2"))), "nobody denies it");
    }

    #[test]
    fn what_became_of_a_version_is_what_came_last_with_the_record_that_says_so() {
        let history = told(&[
            Happening::BaselineAdopted { version: v("v1") },
            Happening::BaselineAdopted { version: v("v2") },
            Happening::RollbackChosen { rollback: rollback("v2", "v1") },
        ])
        .unwrap();
        let past = |version| history.past()[&v(version)];
        assert_eq!((past("v1").outcome, past("v1").seq), (Outcome::Adopted, 1));
        assert_eq!((past("v2").outcome, past("v2").seq), (Outcome::RolledBack, 3));
    }

    #[test]
    fn a_pause_ends_when_it_was_said_to_or_when_resumed() {
        let at = Timestamp::from_millis;
        let history = told(&[Happening::Paused { until: Some(at(10)) }]).unwrap();
        assert!(history.paused(at(9)).is_some());
        assert!(history.paused(at(10)).is_none());
        let endless = Happening::Paused { until: None };
        assert!(told(std::slice::from_ref(&endless)).unwrap().paused(at(i64::MAX)).is_some());
        assert!(told(&[endless, Happening::Resumed]).unwrap().paused(at(0)).is_none());
    }

    #[test]
    fn the_gate_denies_before_anything_drains() {
        let moved = |state| Happening::RollbackMoved { id: "voice-v2".to_owned(), state };
        let mut story = vec![
            Happening::BaselineAdopted { version: v("v1") },
            Happening::RollbackChosen { rollback: rollback("v2", "v1") },
        ];
        for (state, drains) in [
            (State::Gated, false),
            (State::Starting, false),
            (State::Capable, false),
            (State::Draining, true),
            (State::Clean, true),
        ] {
            story.push(moved(state));
            let history = told(&story).unwrap();
            assert!(history.denied().contains(&v("v2")));
            assert_eq!(history.draining().contains(&v("v2")), drains, "{state:?}");
        }
    }

    #[test]
    fn a_candidate_that_is_held_back_stays_so_until_its_rollout_ends() {
        let candidate = v("v2");
        let rollout = Rollout {
            candidate: candidate.clone(),
            baseline: Some(v("v1")),
            started_at: Timestamp::from_millis(0),
            observe_until: Timestamp::from_millis(0),
            baseline_workers: 1,
        };
        let mut story = vec![
            Happening::BaselineAdopted { version: v("v1") },
            Happening::RolloutStarted { rollout: rollout.clone() },
            Happening::Regressed { candidate: candidate.clone() },
            Happening::HeldBack { candidate: candidate.clone() },
        ];
        let held = told(&story).unwrap();
        assert!(held.has_regressed(&candidate) && held.is_held_back(&candidate));
        assert_eq!(held.regressed_at(), Some(Timestamp::from_millis(0)));
        story.push(Happening::RolloutEnded { candidate: candidate.clone() });
        story.push(Happening::RolloutStarted { rollout });
        let again = told(&story).unwrap();
        assert!(!again.has_regressed(&candidate) && !again.is_held_back(&candidate));
        assert!(again.regressed_at().is_some(), "it counts for a while");
    }

    #[test]
    fn an_impossible_history_is_refused() {
        assert!(told(&[Happening::Regressed { candidate: v("v2") }]).is_err());
        assert!(told(&[Happening::HeldBack { candidate: v("v2") }]).is_err());
        let moved = Happening::RollbackMoved { id: "voice-v2".to_owned(), state: State::Gated };
        assert!(told(&[moved]).is_err());
        assert!(told(&[Happening::RolloutEnded { candidate: v("v2") }]).is_err());
        assert!(told(&[Happening::Promoted { version: v("v2") }]).is_err());
        let chosen = Happening::RollbackChosen { rollback: rollback("v2", "v1") };
        assert!(told(&[chosen.clone(), chosen]).is_err());
    }
}
