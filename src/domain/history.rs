//! What a fleet has been through: a fold over its events.
//!
//! **Invariant:** [`FleetHistory::apply`] is the only way the state changes, live and in replay
//! alike; what it refuses cannot have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rollback::{Rollback, State};
use super::time::Timestamp;
use super::version::Version;

/// Rollbacks, promoted versions and fates that are kept: the newest. All of them are in the ledger; limits
/// and people need the last ones only.
pub const KEPT_MAX: usize = 100;

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
    /// The evidence against a candidate passed its bound, or was still suspect at the end where
    /// that is reason enough, for the first time.
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
    /// The ids of those that took a version back which was denied already.
    comebacks: BTreeSet<String>,
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
                // An operator may have named another than the newest.
                self.make_last_good(&rollback.good);
                if !self.denied.insert(rollback.bad.clone()) {
                    self.comebacks.insert(rollback.id.clone());
                }
                self.rollbacks.push(rollback.clone());
                self.close(&rollback.bad, Outcome::RolledBack, at, seq);
                self.let_go_of_old_rollbacks();
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
        let old = self.promoted.len().saturating_sub(KEPT_MAX);
        self.promoted.drain(..old);
    }

    /// But for an abandoned one: as long as its version is denied, that says not to drain it.
    fn let_go_of_old_rollbacks(&mut self) {
        let denied = &self.denied;
        let matters = |r: &Rollback| r.state == State::Abandoned && denied.contains(&r.bad);
        let mut old = self.rollbacks.len().saturating_sub(KEPT_MAX);
        self.rollbacks.retain(|rollback| {
            let goes = old > 0 && !matters(rollback);
            old -= usize::from(goes);
            !goes
        });
        let kept = |id: &String| self.rollbacks.iter().any(|rollback| rollback.id == *id);
        self.comebacks.retain(kept);
    }

    fn close(&mut self, version: &Version, outcome: Outcome, at: Timestamp, seq: u64) {
        self.past.insert(version.clone(), Past { outcome, at, seq });
        if self.past.len() > KEPT_MAX {
            let oldest = self.past.iter().min_by_key(|(_, past)| past.seq);
            if let Some(oldest) = oldest.map(|(version, _)| version.clone()) {
                self.past.remove(&oldest);
            }
        }
    }

    /// What became of each of the last [`KEPT_MAX`] versions, last.
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
        self.good().find(|v| Some(*v) != bad)
    }

    /// Promoted versions that are not denied, the newest first: what can be gone back to.
    pub fn good(&self) -> impl Iterator<Item = &Version> {
        self.promoted.iter().rev().filter(|version| !self.denied.contains(*version))
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

    /// Denied versions whose running workers must drain now: the one whose rollback has come so
    /// far. One that comes back when that is over gets a rollback of its own, and serves on until
    /// the good version can carry its load.
    #[must_use]
    pub fn draining(&self) -> BTreeSet<Version> {
        let draining = self.rollback().filter(|rollback| rollback.state.drains());
        draining.map(|rollback| rollback.bad.clone()).into_iter().collect()
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

    /// The last [`KEPT_MAX`] rollbacks, oldest first.
    #[must_use]
    pub fn rollbacks(&self) -> &[Rollback] {
        &self.rollbacks
    }

    /// How often within `span` before `now` a version was taken back that was denied already.
    #[must_use]
    pub fn comebacks(&self, version: &Version, now: Timestamp, span: Duration) -> usize {
        let of_it = |r: &&Rollback| r.bad == *version && self.comebacks.contains(&r.id);
        let recent = |r: &&Rollback| now.since(r.chosen_at) < span;
        self.rollbacks.iter().filter(of_it).filter(recent).count()
    }

    /// How many rollbacks were decided within `span` before `now`. One of a version that was
    /// denied already is no decision of its own.
    #[must_use]
    pub fn decided(&self, now: Timestamp, span: Duration) -> usize {
        let decided = |r: &&Rollback| !self.comebacks.contains(&r.id);
        let recent = |r: &&Rollback| now.since(r.chosen_at) < span;
        self.rollbacks.iter().filter(decided).filter(recent).count()
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
mod tests;
