//! Workers started and drained by commands of the operator's own.
//!
//! **Invariant:** there is no shell. A label's value ends up inside one argument, whatever is in
//! it, and never as an option of the command.

mod argv;
mod process;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;

use crate::domain::fleet::FleetName;
use crate::ports::platform::{CheckRequest, DrainRequest, Platform, PlatformError, StartRequest};

use argv::{Argv, Placeholder, Values};

/// How many drain commands run at the same time.
const DRAINS_AT_ONCE: usize = 8;

/// What to run for the fleets of one config entry: a program and its arguments.
///
/// `{{version}}`, `{{fleet}}` and `{{effect}}` are replaced in any argument, `{{count}}` in those
/// of `start` and `check`, `{{worker}}` in those of `drain`, which then runs once for every worker. The
/// environment also has `ROLLBACKD_EFFECT`, `ROLLBACKD_FLEET` and `ROLLBACKD_VERSION`.
///
/// A command must return once the platform has the request. One that leaves workers running as
/// its own children must give them an output of their own, or their output ends with rollbackd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// Starts workers until `{{count}}` of `{{version}}` run.
    pub start: Option<Vec<String>>,
    /// Asks workers to drain; without it, the manifest alone does.
    pub drain: Option<Vec<String>>,
    /// Says by exit code 0 that `start` would work, within the time beside it.
    pub check: Option<(Vec<String>, Duration)>,
    /// A command still running after this time is ended and has failed.
    pub timeout: Duration,
}

/// Why a command cannot be run as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fleet {fleet}, {role} command: {reason}")]
pub struct InvalidCommand {
    /// The config entry.
    pub fleet: FleetName,
    /// `start`, `drain` or `check`.
    pub role: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// Runs the commands of the fleet that is asked for.
#[derive(Debug)]
pub struct CommandPlatform {
    fleets: BTreeMap<FleetName, Checked>,
}

#[derive(Debug)]
struct Checked {
    start: Option<Argv>,
    drain: Option<Argv>,
    check: Option<(Argv, Duration)>,
    timeout: Duration,
}

impl CommandPlatform {
    /// Checks the commands; nothing is run yet.
    ///
    /// # Errors
    /// With the first command that is empty or has a placeholder where none can be.
    pub fn new(fleets: BTreeMap<FleetName, Commands>) -> Result<Self, InvalidCommand> {
        let check = |fleet: &FleetName, role, argv: Option<Vec<String>>, last| {
            argv.map(|argv| {
                let known = [Placeholder::Version, Placeholder::Fleet, Placeholder::Effect, last];
                Argv::new(argv, &known).map_err(|reason| InvalidCommand {
                    fleet: fleet.clone(),
                    role,
                    reason,
                })
            })
            .transpose()
        };
        let mut checked = BTreeMap::new();
        for (fleet, commands) in fleets {
            let start = check(&fleet, "start", commands.start, Placeholder::Count)?;
            let drain = check(&fleet, "drain", commands.drain, Placeholder::Worker)?;
            let (argv, limit) = commands.check.unzip();
            let argv = check(&fleet, "check", argv, Placeholder::Count)?;
            let timeout = commands.timeout;
            checked.insert(fleet, Checked { start, drain, check: argv.zip(limit), timeout });
        }
        Ok(Self { fleets: checked })
    }
}

impl Platform for CommandPlatform {
    async fn start(&self, request: StartRequest) -> Result<(), PlatformError> {
        let StartRequest { effect, fleet, version, count } = request;
        let failed = |reason| PlatformError { effect: effect.clone(), reason };
        let commands = self.fleets.get(&fleet.name);
        let Some((argv, timeout)) = commands.and_then(|c| Some((c.start.as_ref()?, c.timeout)))
        else {
            let name = &fleet.name;
            return Err(failed(format!("no start command is configured for fleet {name}")));
        };
        let values = Values::new(&effect, &fleet, &version).with(Placeholder::Count, count);
        process::run(argv, &values, timeout).await.map_err(failed)
    }

    async fn check(&self, request: CheckRequest) -> Result<(), PlatformError> {
        let CheckRequest { effect, fleet, version, count } = request;
        let failed = |reason| PlatformError { effect: effect.clone(), reason };
        let Some((argv, timeout)) = self.fleets.get(&fleet.name).and_then(|c| c.check.as_ref())
        else {
            return Err(failed(format!("no check is configured for fleet {}", fleet.name)));
        };
        let values = Values::new(&effect, &fleet, &version).with(Placeholder::Count, count);
        process::run(argv, &values, *timeout).await.map_err(failed)
    }

    async fn drain(&self, request: DrainRequest) -> Result<(), PlatformError> {
        let DrainRequest { effect, fleet, version, workers } = request;
        let commands = self.fleets.get(&fleet.name);
        let Some((argv, timeout)) = commands.and_then(|c| Some((c.drain.as_ref()?, c.timeout)))
        else {
            return Ok(());
        };
        let values = Values::new(&effect, &fleet, &version);
        let runs: Vec<Values> = if argv.contains(Placeholder::Worker) {
            workers.iter().map(|w| values.clone().with(Placeholder::Worker, w)).collect()
        } else {
            vec![values]
        };
        // One worker that cannot be asked is no reason not to ask the others.
        let failures: Vec<String> = futures::stream::iter(runs)
            .map(|values| async move { process::run(argv, &values, timeout).await })
            .buffered(DRAINS_AT_ONCE)
            .filter_map(|outcome| std::future::ready(outcome.err()))
            .collect()
            .await;
        if failures.is_empty() {
            return Ok(());
        }
        Err(PlatformError { effect, reason: failures.join("; ") })
    }
}
