//! Whether there is a way back: the last good version runs, or could be started.

use std::time::Duration;

use tracing::{info, warn};

use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::ports::ledger::Ledger;
use crate::ports::metrics::MetricSource;
use crate::ports::platform::{CheckRequest, Platform, PlatformError};

use super::act::fleet_id;
use super::fleet::Fleet;
use super::{Controller, Report, belongs};

/// Checks that run at the same time, over all fleets; the others wait for the next look.
const CHECKS_AT_ONCE: usize = 8;

/// The latest check of whether a version could be started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Check {
    version: Option<Version>,
    under_way: bool,
    asked_at: Timestamp,
    outcome: Option<Result<(), String>>,
}

/// What is known of the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// No version is known as good.
    NoLastGood,
    /// Workers of the last good version take sessions.
    Running,
    /// None does, and the check says that they could be started.
    Startable,
    /// None does, and nothing has checked it.
    Unchecked,
    /// None does, and the check failed, for this reason.
    Unstartable(String),
}

impl Readiness {
    /// Whether a rollback would find, or get, workers to go back to.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Running | Self::Startable => true,
            Self::NoLastGood | Self::Unchecked | Self::Unstartable(_) => false,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::NoLastGood => "no version is known as good".to_owned(),
            Self::Running => "running".to_owned(),
            Self::Startable => "not running; the check says that it could be started".to_owned(),
            Self::Unchecked => {
                "not running, and nothing has checked that it could be started".to_owned()
            }
            Self::Unstartable(reason) => format!("not running, and the check failed: {reason}"),
        }
    }
}

impl Fleet {
    /// What is known of the way back.
    pub(super) fn readiness(&self) -> Readiness {
        let Some(good) = self.observed.history.last_good() else { return Readiness::NoLastGood };
        if self.observed.seen.get(good).is_some_and(|seen| seen.able() > 0) {
            return Readiness::Running;
        }
        match self.check.outcome.as_ref().filter(|_| self.check.version.as_ref() == Some(good)) {
            None => Readiness::Unchecked,
            Some(Ok(())) => Readiness::Startable,
            Some(Err(reason)) => Readiness::Unstartable(reason.clone()),
        }
    }

    /// Whether `good` is due to be checked.
    fn check_is_due(&self, good: &Version, now: Timestamp, interval: Duration) -> bool {
        let same = self.check.version.as_ref() == Some(good);
        !self.check.under_way && (!same || now.is_past(self.check.asked_at, interval))
    }
}

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// Starts the checks of an entry's fleets that are due, also while it is not known what runs.
    pub(super) fn check_last_good(&mut self, entry: usize) {
        let now = self.ports.clock.now();
        let Some(entry) = self.entries.get(entry) else { return };
        let Some(check) = entry.config.start.as_ref().and_then(|start| start.check.as_ref()) else {
            return;
        };
        let under_way = self.fleets.values().filter(|fleet| fleet.check.under_way).count();
        let mut free = CHECKS_AT_ONCE.saturating_sub(under_way);
        for (name, fleet) in &mut self.fleets {
            let Some(good) = fleet.observed.history.last_good().cloned() else { continue };
            if !belongs(name, entry) || !fleet.check_is_due(&good, now, check.interval) {
                continue;
            }
            let Some(left) = free.checked_sub(1) else { return };
            free = left;
            if fleet.check.version.as_ref() != Some(&good) {
                fleet.check = Check { version: Some(good.clone()), ..Check::default() };
            }
            fleet.check.under_way = true;
            fleet.check.asked_at = now;
            let workers: usize = fleet.observed.seen.values().map(|seen| seen.workers.len()).sum();
            let request = CheckRequest {
                effect: format!("{name}/check"),
                fleet: fleet_id(name, &entry.config),
                version: good.clone(),
                count: u32::try_from(workers).unwrap_or(u32::MAX).max(1),
            };
            let (platform, reports) = (self.ports.platform.clone(), self.reports.0.clone());
            let name = name.clone();
            tokio::spawn(async move {
                let result = platform.check(request).await;
                // Only a controller that has stopped does not take reports.
                drop(reports.send(Report::Checked { fleet: name, version: good, result }).await);
            });
        }
    }

    /// Takes what a check says.
    pub(super) fn take_check(
        &mut self,
        name: &str,
        version: &Version,
        result: Result<(), PlatformError>,
    ) {
        let Some(fleet) = self.fleets.get_mut(name) else { return };
        fleet.check.under_way = false;
        if fleet.check.version.as_ref() != Some(version) {
            return;
        }
        let outcome = result.map_err(|error| error.reason);
        if fleet.check.outcome.as_ref() != Some(&outcome) {
            match &outcome {
                Ok(()) => info!(fleet = name, %version, "the last good version could be started"),
                Err(reason) => {
                    warn!(fleet = name, %version, reason, "the last good version could not be started");
                }
            }
        }
        fleet.check.outcome = Some(outcome);
    }
}
