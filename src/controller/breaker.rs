//! Which fleets regress at once.

use crate::domain::breaker::Regressions;
use crate::domain::history::Happening;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::ledger::record::Draft;
use crate::ports::ledger::Ledger;
use crate::ports::metrics::MetricSource;
use crate::ports::platform::Platform;

use super::fleet::Fleet;
use super::{Controller, Stop};

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// How many fleets regressed of late, by what the ledger remembers, and of how many. A fleet
    /// that nobody has looked at since the start counts among all; one without workers does not.
    pub(super) fn regressions(&self, now: Timestamp) -> Regressions {
        let mut seen = Regressions::default();
        for (name, fleet) in &self.fleets {
            let observed = &fleet.observed;
            let regressed = self.has_regressed_of_late(fleet, now);
            let alive = observed.seen.values().any(|version| !version.workers.is_empty());
            if self.config_of(name).is_some() && (regressed || alive || !observed.looked) {
                seen.fleets += 1;
                seen.regressed += usize::from(regressed);
            }
        }
        seen
    }

    fn has_regressed_of_late(&self, fleet: &Fleet, now: Timestamp) -> bool {
        let regressed = fleet.observed.history.regressed_at();
        regressed.is_some_and(|at| self.breaker.counts(at, now))
    }

    /// Those that regressed of late, by name.
    pub(super) fn regressed_fleets(&self, now: Timestamp) -> Vec<String> {
        let counted = self.fleets.iter().filter(|(name, fleet)| {
            self.config_of(name).is_some() && self.has_regressed_of_late(fleet, now)
        });
        counted.map(|(name, _)| name.clone()).collect()
    }

    /// Whether so many fleets regress that none is taken back by itself.
    pub(super) fn breaker_is_open(&self, now: Timestamp) -> bool {
        self.breaker.is_open(self.regressions(now))
    }

    /// Records that a person must decide about a candidate, now and when the others are over it.
    pub(super) async fn hold_back(
        &mut self,
        name: &str,
        candidate: &Version,
        mut escalated: Draft,
        now: Timestamp,
    ) -> Result<bool, Stop> {
        let seen = self.regressions(now);
        escalated.extra.insert("regressed_fleets".to_owned(), seen.regressed.into());
        escalated.extra.insert("fleets".to_owned(), seen.fleets.into());
        let history = self.fleets.get(name).map(|fleet| &fleet.observed.history);
        if history.is_some_and(|history| history.is_held_back(candidate)) {
            return self.append(vec![escalated]).await;
        }
        let held_back = Happening::HeldBack { candidate: candidate.clone() };
        self.record(name, vec![escalated], held_back).await
    }
}
