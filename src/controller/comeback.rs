//! Denied versions that come back: drained again, by a rollback of their own.
//!
//! It takes all the steps, so that a version that has replaced the good one a second time is not
//! drained before that one can carry the load again.

use std::collections::BTreeMap;

use serde_json::Map;
use tracing::warn;

use crate::domain::comeback::{COMEBACK_SPAN, Comeback, decide_comeback};
use crate::domain::decision::{Decision, Ground};
use crate::domain::rollback::State;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::ledger::event::ACTOR;
use crate::ledger::record::Draft;
use crate::ports::ledger::Ledger;
use crate::ports::metrics::MetricSource;
use crate::ports::platform::Platform;

use super::fleet::Fleet;
use super::{Controller, Stop};

impl Fleet {
    /// Workers alive of denied versions that no rollback under way takes back, by version.
    pub(super) fn denied_workers(&self, now: Timestamp) -> BTreeMap<&Version, u32> {
        let history = &self.observed.history;
        let going_back = history.rollback().map(|rollback| &rollback.bad);
        let left = history.denied().iter().filter(|version| Some(*version) != going_back);
        let alive = left.map(|version| (version, self.workers_of(version, now)));
        alive.filter(|(_, workers)| *workers > 0).collect()
    }

    /// Why a denied version that came back is not drained; none for any other.
    pub(super) fn returned(&self, version: &Version) -> Option<String> {
        let denied = self.observed.history.denied().contains(version);
        let ground = self.told.get(version).filter(|_| denied).and_then(Decision::ground);
        ground.map(|ground| ground.reason.to_owned())
    }
}

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// Takes back what is denied and runs all the same.
    pub(super) async fn see_comebacks(&mut self, name: &str, now: Timestamp) -> Result<(), Stop> {
        let Some(fleet) = self.fleets.get_mut(name) else { return Ok(()) };
        let back = fleet.denied_workers(now);
        let back: Vec<(Version, u32)> = back.into_iter().map(|(v, n)| (v.clone(), n)).collect();
        let history = &fleet.observed.history;
        let quiet = history.denied().iter().filter(|v| back.iter().all(|(b, _)| b != *v));
        for version in quiet {
            fleet.told.remove(version);
        }
        for (version, workers) in back {
            self.see_comeback(name, &version, workers, now).await?;
        }
        Ok(())
    }

    async fn see_comeback(
        &mut self,
        name: &str,
        version: &Version,
        workers: u32,
        now: Timestamp,
    ) -> Result<(), Stop> {
        let Some(mode) = self.config_of(name).map(|config| config.mode) else { return Ok(()) };
        let Some(fleet) = self.fleets.get(name) else { return Ok(()) };
        let history = &fleet.observed.history;
        let Some(last) = history.rollbacks().iter().rfind(|r| r.bad == *version) else {
            return Ok(());
        };
        // An operator left its workers alone; and a clock that was put back shows the past.
        if last.state == State::Abandoned || now < last.state_since {
            return Ok(());
        }
        let last_good = history.last_good();
        let decision = decide_comeback(Comeback {
            drained_again: history.comebacks(version, now, COMEBACK_SPAN),
            has_last_good: last_good.is_some(),
            rolling_back: history.rollback().is_some(),
            paused: history.paused(now).is_some(),
            mode,
        });
        if fleet.told.get(version) == Some(&decision) {
            return Ok(());
        }
        let Some(Ground { reason, .. }) = decision.ground().cloned() else { return Ok(()) };
        // The good version had so many before, unless the fleet has been made smaller since.
        let good = last_good.map_or(0, |good| fleet.workers_of(good, now));
        let needed = workers.max(last.workers_needed.min(good.saturating_add(workers)));
        let draft = returned(name, version, workers, &decision, reason, now);
        if matches!(decision, Decision::RollBack(_)) {
            self.choose(name, version, None, needed, vec![draft], reason.to_owned(), now).await?;
        } else if self.append(vec![draft]).await?
            && let Some(fleet) = self.fleets.get_mut(name)
        {
            let decision_name = decision.name();
            warn!(fleet = name, %version, workers, decision = decision_name, reason, "denied");
            fleet.told.insert(version.clone(), decision);
        }
        Ok(())
    }
}

fn returned(
    fleet: &str,
    version: &Version,
    workers: u32,
    decision: &Decision,
    reason: &str,
    at: Timestamp,
) -> Draft {
    let mut extra = Map::new();
    extra.insert("fleet".to_owned(), fleet.into());
    extra.insert("decision".to_owned(), decision.name().into());
    extra.insert("reason".to_owned(), reason.into());
    extra.insert("workers".to_owned(), workers.into());
    Draft {
        at,
        event: "rollback.returned".to_owned(),
        actor: ACTOR.to_owned(),
        target: fleet.to_owned(),
        result: decision.name().to_owned(),
        version: Some(version.to_string()),
        extra,
    }
}
