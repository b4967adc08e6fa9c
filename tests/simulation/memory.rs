//! A thousand rollouts in a hundred thousand ticks, and how much memory that takes.
//!
//! One controller lives through all of it. Its world and its ledger keep nothing of the past, so
//! whatever grows is the controller's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::controller::{Controller, Manifests, Ports};
use rollbackd::domain::membership::Heartbeat;
use rollbackd::domain::time::Timestamp;
use rollbackd::ledger::chain::{FIRST_PREVIOUS, seal};
use rollbackd::ledger::record::{Draft, Record};
use rollbackd::metrics::Metrics;
use rollbackd::ports::Clock;
use rollbackd::ports::inbox::Message;
use rollbackd::ports::ledger::{Ledger, LedgerError};
use rollbackd::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};
use rollbackd::ports::platform::{
    CheckRequest, DrainRequest, Platform, PlatformError, StartRequest,
};
use rollbackd::ports::view::View;
use rollbackd::signing::Signer;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::ports::scraper::{Kind, kind_of};
use crate::row;
use crate::scenario::fixed;
use crate::sim::BEGIN;

/// Ticks of ten seconds between two deployments.
const TICKS_PER_ROLLOUT: u64 = 100;

/// What the memory may grow by after the first tenth, in KiB: less than 2 of them for a rollout.
const GROWTH_KIB_MAX: u64 = 1536;

/// A version with workers, and since when, in milliseconds.
struct Serving {
    version: String,
    since: i64,
    bad: bool,
}

/// Two versions at most, of which every second one is bad.
#[derive(Default)]
struct Stage {
    serving: Vec<Serving>,
    deployed: u64,
    rolled_back: u64,
    records: u64,
    head: String,
}

type Shared = Arc<Mutex<Stage>>;

const WORKERS: usize = 5;

fn worker(version: &str, number: usize) -> String {
    format!("{version}-worker-{number}")
}

struct Hands(Shared);

impl MetricSource for Hands {
    async fn range(&self, query: RangeQuery) -> Result<Vec<Series>, MetricError> {
        let kind = kind_of(&query);
        let stage = self.0.lock().unwrap();
        let mut answer = Vec::new();
        let step = i64::try_from(query.step.as_millis()).unwrap();
        for serving in &stage.serving {
            let mut ends = Vec::new();
            let mut at = query.start.as_millis();
            while at <= query.end.as_millis() {
                if at > serving.since {
                    ends.push(at);
                }
                at += step;
            }
            let seconds = (step / 1000) as f64;
            let sessions = WORKERS as f64 * seconds;
            let value = match kind {
                Kind::Started => sessions,
                Kind::Failed => (sessions * if serving.bad { 0.6 } else { 0.01 }).floor(),
                Kind::Live => 5.0,
                Kind::Workers => 1.0,
                Kind::Other => 0.0,
            };
            let names = if kind == Kind::Workers { WORKERS } else { 1 };
            for number in 0..names {
                let mut labels = BTreeMap::from([
                    ("region".to_owned(), "eu".to_owned()),
                    ("version".to_owned(), serving.version.clone()),
                ]);
                if kind == Kind::Workers {
                    labels.insert("worker_id".to_owned(), worker(&serving.version, number));
                }
                let points = ends.iter().map(|at| (Timestamp::from_millis(*at), value)).collect();
                answer.push(Series { labels, points });
            }
        }
        answer.retain(|series| !series.points.is_empty());
        Ok(answer)
    }
}

impl Platform for Hands {
    async fn check(&self, _: CheckRequest) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn start(&self, _: StartRequest) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn drain(&self, drain: DrainRequest) -> Result<(), PlatformError> {
        let mut stage = self.0.lock().unwrap();
        stage.serving.retain(|serving| serving.version != drain.version.as_str());
        stage.rolled_back += 1;
        Ok(())
    }
}

/// Seals every record, and keeps none.
struct Sieve {
    stage: Shared,
    signer: Signer,
}

impl Ledger for Sieve {
    async fn append(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        let mut stage = self.stage.lock().unwrap();
        let mut written = Vec::new();
        for (draft, seq) in drafts.into_iter().zip(last_seq + 1..) {
            let first = stage.head.is_empty();
            let previous = if first { FIRST_PREVIOUS } else { &stage.head };
            let record = seal(draft, seq, previous, &self.signer).unwrap();
            stage.head.clone_from(&record.hash);
            stage.records = seq;
            written.push(record);
        }
        Ok(written)
    }

    async fn read(&self, _: u64, _: u32) -> Result<Vec<Record>, LedgerError> {
        Ok(Vec::new())
    }
}

struct Watch(Instant);

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(BEGIN + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What was there after some ticks.
struct Sample {
    resident_kib: u64,
    metric_lines: usize,
}

async fn live(rollouts: u64) -> (Vec<Sample>, Shared) {
    let stage: Shared = Arc::default();
    let metrics = Arc::new(Metrics::new("simulated", "simulated").unwrap());
    let began = Instant::now();
    let (inbox, messages) = mpsc::channel(4096);
    let signer = Signer::from_seed(&[7; 32]);
    let ports = Ports {
        source: Arc::new(Hands(stage.clone())),
        platform: Arc::new(Hands(stage.clone())),
        ledger: Arc::new(Sieve { stage: stage.clone(), signer: signer.clone() }),
        clock: Arc::new(Watch(began)),
        signer,
        metrics: metrics.clone(),
        view: watch::channel(Arc::new(View::default())).0,
        manifests: watch::channel(Arc::new(Manifests::new())).0,
        load_rules: Box::new(|| Ok(fixed().1.clone())),
    };
    let (mut config, rules) = fixed().clone();
    config.limits.rollbacks = 100;
    config.limits.per = Duration::from_hours(1);
    let controller = tokio::spawn(Controller::new(ports, vec![config], rules).run(messages));
    let mut samples = Vec::new();
    for rollout in 0..rollouts {
        for tick in 0..TICKS_PER_ROLLOUT {
            turn(&stage, rollout, tick, began, &inbox);
            sleep(Duration::from_secs(10)).await;
        }
        if (rollout + 1) % (rollouts / 10) == 0 {
            let metric_lines = metrics.encode().unwrap().lines().count();
            samples.push(Sample { resident_kib: resident_kib(), metric_lines });
        }
    }
    inbox.send(Message::Shutdown).await.unwrap();
    controller.await.unwrap().unwrap();
    (samples, stage)
}

/// One tick of the world: a deployment at the first, and every worker speaks.
fn turn(stage: &Shared, rollout: u64, tick: u64, began: Instant, inbox: &mpsc::Sender<Message>) {
    let mut stage = stage.lock().unwrap();
    let now = BEGIN + i64::try_from(began.elapsed().as_millis()).unwrap();
    if tick == 0 {
        let (version, bad) = (format!("v{}", rollout + 1), rollout % 2 == 1);
        stage.serving.push(Serving { version, since: now, bad });
        stage.deployed += 1;
    } else if tick == TICKS_PER_ROLLOUT / 2 && stage.serving.len() > 1 {
        // The candidate is promoted by then, and takes over.
        stage.serving.remove(0);
    }
    for serving in &stage.serving {
        for number in 0..WORKERS {
            let beat = Heartbeat {
                fleet: "voice:eu".to_owned(),
                worker_id: worker(&serving.version, number),
                version: serving.version.parse().unwrap(),
                draining: false,
                active_sessions: 1,
                timestamp_seconds: 0.0,
                token: String::new(),
            };
            drop(inbox.try_send(Message::Heartbeat(beat)));
        }
    }
}

/// `make reliability` asks for all 1,000; 40 show that the story is told as it should be.
pub(crate) fn run(rollouts: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (samples, stage) = runtime.block_on(live(rollouts));
    let stage = stage.lock().unwrap();
    let (first, last) = (&samples[0], samples.last().unwrap());
    let grown = last.resident_kib.saturating_sub(first.resident_kib);
    for sample in &samples {
        println!("{} KiB, {} lines of metrics", sample.resident_kib, sample.metric_lines);
    }
    let measured = format!(
        "{:.1} MiB after a tenth, {:.1} MiB after {} ticks, {} rollouts, {} rollbacks and {} records",
        first.resident_kib as f64 / 1024.0,
        last.resident_kib as f64 / 1024.0,
        rollouts * TICKS_PER_ROLLOUT,
        stage.deployed,
        stage.rolled_back,
        stage.records,
    );
    row("memory after 100,000 ticks and 1,000 rollouts", "flat", &measured);
    assert_eq!(stage.rolled_back, rollouts / 2);
    assert_eq!(samples[1].metric_lines, last.metric_lines);
    assert!(grown < GROWTH_KIB_MAX, "grown by {grown} KiB");
}
