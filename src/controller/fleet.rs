//! One fleet while the controller runs: what is known of it, and what is being done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::decision::Decision;
use crate::domain::membership::Member;
use crate::domain::rollback::{Rollback, Sighting};
use crate::domain::thinned::Thinned;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::VersionSeen;
use crate::evaluate::observed::Observed;
use crate::ports::view::{LiveView, RolloutView};

use super::ready::Check;

/// A worker not heard for this long no longer speaks for its version.
const MEMBER_FRESH: Duration = Duration::from_secs(90);

/// Workers remembered per fleet.
const MEMBERS_MAX: usize = 20_000;

/// One fleet.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    /// Its history, and what is seen of it.
    pub(crate) observed: Observed,
    /// Workers that spoke.
    pub(crate) members: BTreeMap<String, Member>,
    /// What people were told last, by candidate.
    pub(crate) told: BTreeMap<Version, Decision>,
    /// The effect under way or accepted, by its name.
    pub(crate) effect: Option<EffectState>,
    /// The bad version's workers that the platform was asked to drain.
    pub(crate) asked_to_drain: BTreeSet<String>,
    /// Whether its last good version could be started, as last checked.
    pub(crate) check: Check,
    /// Why nothing can be decided.
    pub(crate) holding: Option<String>,
    /// Versions that metrics speak of.
    pub(crate) measured: BTreeSet<Version>,
    /// The last look that a rollback was shown.
    pub(crate) confirmed_at: Timestamp,
    /// Sessions live on the bad version of the last rollback that was looked at.
    live: (String, Thinned<LiveView>),
    /// The candidate judged last, as it was then: to be shown.
    pub(crate) judged: Option<Arc<RolloutView>>,
}

/// How far an effect has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EffectState {
    /// `<rollback id>/<step>`.
    pub(crate) effect: String,
    /// The platform has accepted it.
    pub(crate) accepted: bool,
    /// When the platform was asked.
    pub(crate) asked_at: Timestamp,
}

impl Fleet {
    /// What the last look and the workers themselves say of a rollback's two versions.
    pub(crate) fn sighting(&self, good: &Version, bad: &Version, now: Timestamp) -> Sighting {
        let nothing = VersionSeen::default();
        let (bad_workers, heard_live) = (self.workers_of(bad, now), self.heard(bad, now).1);
        let good = self.observed.seen.get(good).unwrap_or(&nothing);
        let bad_seen = self.observed.seen.get(bad).unwrap_or(&nothing);
        let blind = self.is_unseen();
        Sighting {
            good_able: good.able(),
            bad_workers,
            bad_unreachable: bad_seen.unreachable.max(u32::from(blind)),
            bad_live: bad_seen.live.max(heard_live as f64),
        }
    }

    /// Whether no look has seen any worker of the fleet. That is no sight of an empty version:
    /// there was no look yet, or Prometheus may have lost its past.
    pub(crate) fn is_unseen(&self) -> bool {
        self.observed.seen.values().all(|seen| seen.workers.is_empty())
    }

    /// Workers of a version that are seen, or heard, alive.
    pub(crate) fn workers_of(&self, version: &Version, now: Timestamp) -> u32 {
        let seen = self.observed.seen.get(version).map_or(0, |seen| seen.workers.len());
        u32::try_from(seen.max(self.heard(version, now).0)).unwrap_or(u32::MAX)
    }

    /// Workers of a version that spoke of late, and the sessions they have.
    fn heard(&self, version: &Version, now: Timestamp) -> (usize, u64) {
        let fresh = self.members.values().filter(|member| {
            member.version == *version && now.since(member.heard_at) < MEMBER_FRESH
        });
        // A worker whose last word was that it drains and is empty has said goodbye.
        let here = fresh.filter(|member| !member.draining || member.active_sessions > 0);
        let count = |(workers, sessions): (usize, u64), member: &Member| {
            (workers + 1, sessions.saturating_add(member.active_sessions))
        };
        here.fold((0, 0), count)
    }

    /// Whether nothing is left to do for the state a rollback is in. A stuck or starting one has
    /// nothing to settle: it waits to see workers.
    pub(crate) fn has_settled(&self, rollback: &Rollback) -> bool {
        match rollback.state.effect() {
            None => true,
            Some(effect) => {
                let id = rollback.effect_id(effect);
                self.effect.as_ref().is_some_and(|known| known.effect == id && known.accepted)
            }
        }
    }

    /// A clock that was put back: what was counted and heard past `now` was not. A worker heard in
    /// a time still to come would speak for its version until then.
    pub(crate) fn put_back(&mut self, now: Timestamp) {
        self.observed.put_back(now);
        for member in self.members.values_mut() {
            member.heard_at = member.heard_at.min(now);
        }
    }

    /// Remembers how many sessions a look found on the bad version.
    pub(crate) fn saw_live(&mut self, rollback: &str, at: Timestamp, live: f64) {
        if self.live.0 != rollback {
            self.live = (rollback.to_owned(), Thinned::default());
        }
        self.live.1.push(LiveView { at_seconds: at.as_millis() as f64 / 1000.0, live });
    }

    /// Sessions live on the bad version since the rollback began, as far as it was looked at.
    pub(crate) fn live_since(&self, rollback: &str) -> Arc<Vec<LiveView>> {
        if self.live.0 == rollback { self.live.1.points() } else { Arc::default() }
    }

    /// Lets go of what nobody asks about any more; returns the versions that have gone.
    pub(crate) fn let_go(&mut self, now: Timestamp) -> BTreeSet<Version> {
        self.members.retain(|_, member| now.since(member.heard_at) < MEMBER_FRESH);
        let history = &self.observed.history;
        // Of a denied version that came back people are told, too; its going takes that back.
        self.told.retain(|version, _| {
            history.rollouts().contains_key(version) || history.denied().contains(version)
        });
        let baselines = history.rollouts().values().filter_map(|rollout| rollout.baseline.as_ref());
        let stays = self.observed.seen.keys().chain(history.rollouts().keys()).chain(baselines);
        let stays = stays.chain(history.rollback().map(|rollback| &rollback.bad));
        let stays: BTreeSet<Version> = stays.cloned().collect();
        let before = std::mem::replace(&mut self.measured, stays);
        before.difference(&self.measured).cloned().collect()
    }

    /// Remembers a worker that spoke.
    pub(crate) fn hear(&mut self, member: Member) {
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&member.worker_id) {
            let now = member.heard_at;
            self.members.retain(|_, known| now.since(known.heard_at) < MEMBER_FRESH);
        }
        if self.members.len() < MEMBERS_MAX || self.members.contains_key(&member.worker_id) {
            self.members.insert(member.worker_id.clone(), member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_worker_that_said_goodbye_is_not_counted_and_one_with_calls_is() {
        let mut fleet = Fleet::default();
        let member = |id: &str, draining, active_sessions| Member {
            worker_id: id.to_owned(),
            version: v("v2"),
            draining,
            active_sessions,
            heard_at: Timestamp::from_millis(0),
        };
        fleet.hear(member("empty", true, 0));
        let now = Timestamp::from_millis(1000);
        assert_eq!(fleet.sighting(&v("v1"), &v("v2"), now).bad_workers, 0);
        fleet.hear(member("busy", true, 3));
        let sighting = fleet.sighting(&v("v1"), &v("v2"), now);
        assert_eq!((sighting.bad_workers, sighting.bad_live), (1, 3.0));
        let much_later = Timestamp::from_millis(200_000);
        assert_eq!(fleet.sighting(&v("v1"), &v("v2"), much_later).bad_workers, 0);
    }

    #[test]
    fn a_worker_heard_by_a_clock_that_was_ahead_is_forgotten_like_any_other() {
        let mut fleet = Fleet::default();
        fleet.hear(Member {
            worker_id: "gone".to_owned(),
            version: v("v2"),
            draining: false,
            active_sessions: 1,
            heard_at: Timestamp::from_millis(7_200_000),
        });
        let workers = |fleet: &Fleet, second: i64| {
            let now = Timestamp::from_millis(second * 1000);
            fleet.sighting(&v("v1"), &v("v2"), now).bad_workers
        };
        fleet.put_back(Timestamp::from_millis(10_000));
        assert_eq!((workers(&fleet, 99), workers(&fleet, 100)), (1, 0));
    }
}
