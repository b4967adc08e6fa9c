//! Everything a run holds: the worlds, the ledger's disk, chance, and what is broken just now.

use std::future::pending;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::book::Book;
use crate::random::Random;
use crate::rules::{Broken, Rule};
use crate::scenario::Scenario;
use crate::world::World;

/// When the world begins, in milliseconds since the epoch; a multiple of every interval.
pub(crate) const BEGIN: i64 = 1_700_000_000_000;

/// Longer than a start or a drain may take, or an observation.
const REST_SECONDS: i64 = 180;

/// What is wrong with the world just now.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// Prometheus answers nobody.
    pub(crate) down: bool,
    /// Prometheus answers that there is nothing.
    pub(crate) empty: bool,
    /// Milliseconds that the controller's clock is wrong by.
    pub(crate) clock_off: i64,
    /// The ledger's disk takes nothing.
    pub(crate) disk_full: bool,
}

/// Workers on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coming {
    pub(crate) second: i64,
    pub(crate) fleet: usize,
    pub(crate) version: &'static str,
    /// How many there should be in all.
    pub(crate) count: u32,
}

/// Everything a run holds.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Sim {
    pub(crate) second: i64,
    /// When the last record was written.
    pub(crate) recorded_at: i64,
    pub(crate) worlds: Vec<World>,
    pub(crate) book: Book,
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    pub(crate) broken: Vec<Broken>,
    /// How many more points at which the process may die it passes alive.
    pub(crate) crash_in: Option<u64>,
    pub(crate) crash: Arc<Notify>,
    pub(crate) weather: Weather,
    pub(crate) coming: Vec<Coming>,
    /// The disk holds a record that the controller has not heard of, or heard that it does not.
    pub(crate) unsure: bool,
    /// The controller waits for the disk, in the middle of what it is doing.
    pub(crate) writing: bool,
    pub(crate) trace: bool,
    /// An answer lacked something and did not say so: what happened may not have been seen.
    pub(crate) blind: bool,
    pub(crate) faults: u64,
}

impl Sim {
    /// Whether faults happen in this second.
    pub(crate) fn stormy(&self) -> bool {
        self.second >= self.scenario.faults_from && self.second < self.scenario.faults_until
    }

    /// Whether nothing more is to come: all has been well, and nothing was recorded, for longer than
    /// any time that the controller waits.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.second - self.recorded_at.max(self.scenario.faults_until) > REST_SECONDS
    }

    /// Whether a fault of so many of a thousand happens now.
    pub(crate) fn fault(&mut self, share: u64) -> bool {
        let happens = self.random.in_1000(share * self.scenario.intensity) && self.stormy();
        self.faults += u64::from(happens);
        happens
    }

    pub(crate) fn breaks(&mut self, rule: Rule, text: String) {
        self.say(|| format!("BROKEN: {}: {text}", rule.fact()));
        self.broken.push(Broken { rule, text });
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:4} {}", self.second, text());
        }
    }

    /// Which world a fleet is.
    pub(crate) fn world_of(&self, fleet: &str) -> Option<usize> {
        self.worlds.iter().position(|world| world.fleet == fleet)
    }
}

/// Shared by all ports of a run; locked only between waits.
pub(crate) type Shared = Arc<Mutex<Sim>>;

/// A point at which the process may die. It does not come back from it then.
pub(crate) async fn point(shared: &Shared, name: &str) {
    let dies = {
        let mut sim = shared.lock().unwrap();
        let dies = sim.crash_in == Some(0);
        sim.crash_in = sim.crash_in.and_then(|left| left.checked_sub(1));
        if dies {
            sim.say(|| format!("dies {name}"));
            // In the middle of what it was doing.
            sim.writing = true;
            sim.crash.notify_one();
        }
        dies
    };
    if dies {
        pending::<()>().await;
    }
}
