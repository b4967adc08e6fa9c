//! What the controller is given instead of the world: everything here may fail, wait or repeat.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::domain::time::Timestamp;
use rollbackd::ledger::chain::{FIRST_PREVIOUS, seal};
use rollbackd::ledger::record::{Draft, Record, parse_rfc3339};
use rollbackd::ports::Clock;
use rollbackd::ports::ledger::{Ledger, LedgerError};
use rollbackd::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};
use rollbackd::ports::platform::{DrainRequest, Platform, PlatformError, StartRequest};
use rollbackd::rules::SessionRule;
use rollbackd::rules::query::{FleetQueries, SessionQueries};
use rollbackd::signing::Signer;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::book::Book;
use crate::random::Random;
use crate::rules::Scenario;
use crate::world::{Shown, World};

/// When the world begins, in milliseconds since the epoch; a multiple of every interval.
pub(crate) const BEGIN: i64 = 1_700_000_000_000;

/// Everything a run holds.
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub(crate) struct Sim {
    pub(crate) world: World,
    pub(crate) book: Book,
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    pub(crate) broken: Vec<String>,
    /// How many more points at which the process may die it passes alive.
    pub(crate) crash_in: Option<u64>,
    pub(crate) crash: Arc<Notify>,
    /// Prometheus answers nobody.
    pub(crate) down: bool,
    /// Prometheus has forgotten everything.
    pub(crate) empty: bool,
    /// Milliseconds that the controller's clock is wrong by.
    pub(crate) clock_off: i64,
    /// The ledger's disk takes nothing.
    pub(crate) disk_full: bool,
    /// Workers on their way: second, version, how many there should be.
    pub(crate) coming: Vec<(i64, &'static str, u32)>,
    pub(crate) trace: bool,
    pub(crate) faults: u64,
}

impl Sim {
    /// Whether a fault of so many of a thousand happens now.
    pub(crate) fn fault(&mut self, share: u64) -> bool {
        let active = self.world.second >= self.scenario.faults_from
            && self.world.second < self.scenario.faults_until;
        let happens = self.random.in_1000(share * self.scenario.intensity) && active;
        self.faults += u64::from(happens);
        happens
    }

    /// Whether the last step of a rollback was recorded by a clock that was ahead.
    pub(crate) fn was_ahead(&self) -> bool {
        let mut steps = self.book.records.iter().filter(|r| r.extra.contains_key("rollback_id"));
        let last = steps.next_back().and_then(|record| parse_rfc3339(&record.timestamp));
        last.is_some_and(|at| at.as_millis() > BEGIN + self.world.second * 1000)
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:4} {}", self.world.second, text());
        }
    }
}

/// Shared by all ports of a run; locked only between waits.
pub(crate) type Shared = Arc<Mutex<Sim>>;

/// A point at which the process may die. It does not come back from it then.
async fn point(shared: &Shared, name: &str) {
    let dies = {
        let mut sim = shared.lock().unwrap();
        let dies = sim.crash_in == Some(0);
        sim.crash_in = sim.crash_in.and_then(|left| left.checked_sub(1));
        if dies {
            sim.say(|| format!("dies {name}"));
            sim.crash.notify_one();
        }
        dies
    };
    if dies {
        pending::<()>().await;
    }
}

pub(crate) struct WallClock {
    pub(crate) shared: Shared,
    pub(crate) began: Instant,
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        Timestamp::from_millis(BEGIN + passed + self.shared.lock().unwrap().clock_off)
    }
}

pub(crate) struct Disk {
    pub(crate) shared: Shared,
    pub(crate) signer: Signer,
}

impl Disk {
    fn failed<T>(reason: &str) -> Result<T, LedgerError> {
        Err(LedgerError::Storage { path: "simulated".to_owned(), reason: reason.to_owned() })
    }

    fn write(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        let mut sim = self.shared.lock().unwrap();
        let sim = &mut *sim;
        let found = sim.book.records.len() as u64;
        if found != last_seq {
            return Err(LedgerError::Conflict { expected: last_seq, found });
        }
        let mut written = Vec::new();
        for (draft, seq) in drafts.into_iter().zip(last_seq + 1..) {
            let last = sim.book.records.last();
            let previous = last.map_or(FIRST_PREVIOUS, |last| &last.hash);
            let record = seal(draft, seq, previous, &self.signer).unwrap();
            sim.say(|| {
                format!(
                    "record {seq} {} {:?} {}",
                    record.event,
                    record.version,
                    record.extra.get("reason").unwrap_or(&serde_json::Value::Null)
                )
            });
            written.push(record.clone());
            sim.book.take(record, &sim.world, &mut sim.broken);
        }
        Ok(written)
    }
}

impl Ledger for Disk {
    async fn append(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        point(&self.shared, "before a record").await;
        let (slow, full, unsure) = {
            let mut sim = self.shared.lock().unwrap();
            let slow = sim.fault(20);
            (slow, sim.disk_full || sim.fault(20), sim.fault(15))
        };
        if slow {
            sleep(Duration::from_secs(4)).await;
        }
        if full {
            return Self::failed("disk full");
        }
        let written = self.write(last_seq, drafts)?;
        point(&self.shared, "after a record").await;
        // It is on disk, and the caller hears that it is not.
        if unsure { Self::failed("fsync failed") } else { Ok(written) }
    }

    async fn read(&self, after: u64, _: u32) -> Result<Vec<Record>, LedgerError> {
        let sim = self.shared.lock().unwrap();
        Ok(sim.book.records.iter().filter(|record| record.seq > after).cloned().collect())
    }
}

pub(crate) struct Orchestrator(pub(crate) Shared);

impl Orchestrator {
    /// The faults on the way there and back; `act` is what the platform does, perhaps twice.
    async fn ask(
        &self,
        effect: &str,
        version: &str,
        act: impl Fn(&mut Sim),
    ) -> Result<(), PlatformError> {
        let failed = |reason: &str| {
            Err(PlatformError { effect: effect.to_owned(), reason: reason.to_owned() })
        };
        let (refused, late, lost, twice) = {
            let mut sim = self.0.lock().unwrap();
            let sim = &mut *sim;
            sim.say(|| format!("asked for {effect} of {version}"));
            sim.book.effect(effect, version, &mut sim.broken);
            (sim.fault(150), sim.fault(100), sim.fault(100), sim.fault(100))
        };
        point(&self.0, "before an effect").await;
        if refused {
            return failed("refused");
        }
        if late {
            sleep(Duration::from_secs(40)).await;
        }
        for _ in 0..=u8::from(twice) {
            act(&mut self.0.lock().unwrap());
        }
        point(&self.0, "after an effect").await;
        if lost { failed("the answer was lost") } else { Ok(()) }
    }
}

impl Platform for Orchestrator {
    async fn start(&self, request: StartRequest) -> Result<(), PlatformError> {
        let act = |sim: &mut Sim| {
            if sim.fault(150) {
                return; // Accepted, and nothing comes of it.
            }
            let delay = 1 + i64::try_from(sim.random.below(20)).unwrap();
            let version = known(request.version.as_str());
            sim.coming.push((sim.world.second + delay, version, request.count));
        };
        self.ask(&request.effect, request.version.as_str(), act).await
    }

    async fn drain(&self, request: DrainRequest) -> Result<(), PlatformError> {
        let act = |sim: &mut Sim| {
            for worker in &mut sim.world.workers {
                if request.workers.contains(&worker.id) {
                    if worker.version != request.version.as_str() {
                        sim.broken.push(format!("{} is asked to drain", worker.id));
                    }
                    worker.draining |= !worker.deaf;
                }
            }
        };
        self.ask(&request.effect, request.version.as_str(), act).await
    }
}

pub(crate) fn known(version: &str) -> &'static str {
    ["v1", "v2", "v3"].into_iter().find(|known| *known == version).unwrap()
}

pub(crate) struct Scraper {
    pub(crate) shared: Shared,
    pub(crate) fleet: FleetQueries,
    pub(crate) rule: SessionRule,
}

/// What a query counts.
type Count = fn(&Shown) -> u32;

impl Scraper {
    /// Of a query over windows: what it counts.
    fn counts(&self, query: &RangeQuery) -> Option<Count> {
        let all = SessionQueries::new(&self.rule, &[], "version", query.step);
        let is = |expr: &Option<String>| expr.as_ref() == Some(&query.expr);
        Some(match &query.expr {
            expr if *expr == all.started => |shown| shown.started,
            expr if *expr == all.failed => |shown| shown.failed,
            _ if is(&all.dropped) => |shown| shown.dropped,
            _ if is(&all.died) => |shown| shown.died,
            _ if is(&all.live) => |shown| shown.live,
            _ => return None,
        })
    }

    fn at_once(&self, expr: &str) -> Count {
        let is = |known: &Option<String>| known.as_deref() == Some(expr);
        match expr {
            expr if expr == self.fleet.unreachable => |shown| shown.unreachable,
            _ if is(&self.fleet.draining) => |shown| shown.draining,
            _ if is(&self.fleet.live) => |shown| shown.live,
            expr => panic!("the simulation does not know the query {expr}"),
        }
    }

    fn answer(&self, query: &RangeQuery) -> Vec<Series> {
        let sim = self.shared.lock().unwrap();
        let step = i64::try_from(query.step.as_millis()).unwrap();
        let times = std::iter::successors(Some(query.start.as_millis()), |t| Some(t + step))
            .take_while(|time| *time <= query.end.as_millis());
        let counts = self.counts(query);
        let mut rows: BTreeMap<(&str, String), Vec<(Timestamp, f64)>> = BTreeMap::new();
        for time in times {
            let (at, second) = (Timestamp::from_millis(time), (time - BEGIN).div_euclid(1000));
            if let Some(count) = counts {
                let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
                for (version, shown) in sim.world.window(second, step / 1000).flatten() {
                    *sums.entry(version).or_default() += f64::from(count(shown));
                }
                let averaged = query.expr.contains("avg_over_time");
                for (version, sum) in sums {
                    let value = if averaged { sum / (step / 1000) as f64 } else { sum };
                    rows.entry((version, String::new())).or_default().push((at, value));
                }
                continue;
            }
            for (version, shown) in sim.world.at(second).into_iter().flatten() {
                if query.expr == self.fleet.workers {
                    for id in &shown.workers {
                        rows.entry((version, id.clone())).or_default().push((at, 1.0));
                    }
                } else {
                    let value = f64::from(self.at_once(&query.expr)(shown));
                    rows.entry((version, String::new())).or_default().push((at, value));
                }
            }
        }
        rows.into_iter().map(|((version, id), points)| series(version, id, points)).collect()
    }
}

fn series(version: &str, id: String, points: Vec<(Timestamp, f64)>) -> Series {
    let mut labels = BTreeMap::from([("version".to_owned(), version.to_owned())]);
    if !id.is_empty() {
        labels.insert("worker_id".to_owned(), id);
    }
    Series { labels, points }
}

impl MetricSource for Scraper {
    async fn range(&self, query: RangeQuery) -> Result<Vec<Series>, MetricError> {
        let (late, fails, empty) = {
            let mut sim = self.shared.lock().unwrap();
            // That a worker cannot be reached is told by one query alone.
            let alone = query.expr == self.fleet.unreachable;
            let empty = sim.empty || (sim.fault(8) && !alone);
            (sim.fault(4), sim.down || sim.fault(4), empty)
        };
        if late {
            sleep(Duration::from_secs(25)).await;
        }
        if fails {
            let (url, reason) = ("simulated".to_owned(), "down".to_owned());
            return Err(MetricError::Unreachable { url, reason });
        }
        Ok(if empty { Vec::new() } else { self.answer(&query) })
    }
}
