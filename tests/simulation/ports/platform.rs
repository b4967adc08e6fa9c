//! What starts and drains workers: refuses, hangs, does it twice, does nothing, loses its answer.

use std::time::Duration;

use rollbackd::ports::platform::{
    CheckRequest, DrainRequest, Platform, PlatformError, StartRequest,
};
use tokio::time::sleep;

use crate::rules::{self, Rule};
use crate::scenario::VERSIONS;
use crate::sim::{Coming, Shared, Sim, point};

pub(crate) struct Orchestrator(pub(crate) Shared);

/// What is asked for.
struct Request<'a> {
    effect: &'a str,
    fleet: String,
    version: &'a str,
}

impl Orchestrator {
    /// The faults on the way there and back; `act` is what the platform does, perhaps twice.
    async fn ask(
        &self,
        request: Request<'_>,
        act: impl Fn(&mut Sim, usize),
    ) -> Result<(), PlatformError> {
        let Request { effect, fleet, version } = request;
        let failed = |reason: &str| {
            Err(PlatformError { effect: effect.to_owned(), reason: reason.to_owned() })
        };
        let (world, refused, late, lost, twice) = {
            let mut sim = self.0.lock().unwrap();
            sim.say(|| format!("asked for {effect} of {version}"));
            rules::take_effect(&mut sim, &fleet, effect, version);
            let Some(world) = sim.world_of(&fleet) else {
                return failed("no such fleet");
            };
            (world, sim.fault(150), sim.fault(100), sim.fault(100), sim.fault(100))
        };
        point(&self.0, "before an effect").await;
        if refused {
            return failed("refused");
        }
        act(&mut self.0.lock().unwrap(), world);
        point(&self.0, "in the middle of an effect").await;
        if late {
            sleep(Duration::from_secs(40)).await;
        }
        if twice {
            act(&mut self.0.lock().unwrap(), world);
        }
        point(&self.0, "after an effect").await;
        if lost { failed("the answer was lost") } else { Ok(()) }
    }
}

impl Platform for Orchestrator {
    async fn check(&self, _: CheckRequest) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn start(&self, start: StartRequest) -> Result<(), PlatformError> {
        let act = |sim: &mut Sim, fleet: usize| {
            if sim.fault(150) {
                return; // Accepted, and nothing comes of it.
            }
            let delay = 1 + i64::try_from(sim.random.below(20)).unwrap();
            let version = known(start.version.as_str());
            let second = sim.second + delay;
            sim.coming.push(Coming { second, fleet, version, count: start.count });
        };
        let (fleet, version) = (start.fleet.to_string(), start.version.as_str());
        self.ask(Request { effect: &start.effect, fleet, version }, act).await
    }

    async fn drain(&self, drain: DrainRequest) -> Result<(), PlatformError> {
        let act = |sim: &mut Sim, fleet: usize| {
            let mut wrong = Vec::new();
            for worker in &mut sim.worlds[fleet].workers {
                if drain.workers.iter().any(|id| **id == *worker.id) {
                    if worker.version != drain.version.as_str() {
                        wrong.push(worker.id.clone());
                    }
                    worker.draining |= !worker.deaf;
                }
            }
            for id in wrong {
                sim.breaks(Rule::OnlyTheBadDrain, format!("{id} is asked to drain"));
            }
        };
        let (fleet, version) = (drain.fleet.to_string(), drain.version.as_str());
        self.ask(Request { effect: &drain.effect, fleet, version }, act).await
    }
}

pub(crate) fn known(version: &str) -> &'static str {
    VERSIONS.into_iter().find(|known| *known == version).unwrap()
}
