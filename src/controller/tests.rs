//! The loop, fed by hand: what it records, asks and refuses.

mod breaker;
mod comeback;
mod faults;
mod log;
mod operators;
mod ready;
mod slices;
mod stuck;
mod values;

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::config::{DrainVia, Limits, Mode, OnStartTimeout, StartVia, WhenUnsure};
use crate::domain::share::{Share, Tolerance};
use crate::domain::time::Timestamp;
use crate::evaluate::plan::{FleetAnswer, GroupAnswer, RuleAnswer, Span};
use crate::ledger::chain::{FIRST_PREVIOUS, seal};
use crate::ports::inbox::{Act, Order, Refusal};
use crate::ports::metrics::{RangeQuery, Series};
use crate::ports::platform::{CheckRequest, DrainRequest, StartRequest};
use crate::rules::{Group, SessionRule};

struct NoSource;

impl MetricSource for NoSource {
    async fn range(&self, _: RangeQuery) -> Result<Vec<Series>, MetricError> {
        Err(MetricError::Unreachable { url: "none".to_owned(), reason: "a test".to_owned() })
    }
}

/// What it was asked, and why it says no to checks.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>, Mutex<Option<String>>);

impl Platform for Asked {
    async fn start(&self, request: StartRequest) -> Result<(), PlatformError> {
        let asked = format!("start {} of {}", request.count, request.version);
        self.0.lock().unwrap().push(asked);
        Ok(())
    }

    async fn check(&self, request: CheckRequest) -> Result<(), PlatformError> {
        self.0.lock().unwrap().push(format!("check {} of {}", request.count, request.version));
        let wrong = self.1.lock().unwrap().clone();
        wrong.map_or(Ok(()), |reason| Err(PlatformError { effect: request.effect, reason }))
    }

    async fn drain(&self, request: DrainRequest) -> Result<(), PlatformError> {
        self.0.lock().unwrap().push(format!("drain {}", request.version));
        Ok(())
    }
}

#[derive(Default)]
struct Book {
    records: Mutex<Vec<Record>>,
    full: Mutex<bool>,
    /// The first append with each of these events is refused.
    refuses: Mutex<Vec<&'static str>>,
    /// It writes, and says that it has not.
    unsure: Mutex<bool>,
}

impl Ledger for Book {
    async fn append(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        let mut refuses = self.refuses.lock().unwrap();
        let before = refuses.len();
        refuses.retain(|event| drafts.iter().all(|draft| draft.event != *event));
        if *self.full.lock().unwrap() || refuses.len() < before {
            let (path, reason) = ("test".to_owned(), "disk full".to_owned());
            return Err(LedgerError::Storage { path, reason });
        }
        let mut records = self.records.lock().unwrap();
        let found = records.len() as u64;
        if found != last_seq {
            return Err(LedgerError::Conflict { expected: last_seq, found });
        }
        for draft in drafts {
            let previous = records.last().map_or(FIRST_PREVIOUS.to_owned(), |r| r.hash.clone());
            let seq = records.len() as u64 + 1;
            records.push(seal(draft, seq, &previous, &signer()).unwrap());
        }
        if *self.unsure.lock().unwrap() {
            let (path, reason) = ("test".to_owned(), "fsync failed".to_owned());
            return Err(LedgerError::Storage { path, reason });
        }
        Ok(Vec::new())
    }

    async fn read(&self, after: u64, _: u32) -> Result<Vec<Record>, LedgerError> {
        let records = self.records.lock().unwrap();
        Ok(records.iter().filter(|record| record.seq > after).cloned().collect())
    }
}

struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);

fn config() -> FleetConfig {
    FleetConfig {
        name: "voice".parse().unwrap(),
        by: Vec::new(),
        version_label: "version".to_owned(),
        mode: Mode::Automatic,
        observe_for: Duration::from_mins(5),
        history: Duration::from_mins(5),
        false_rollback_rate: Share::new(0.001).unwrap(),
        when_unsure: WhenUnsure::Rollback,
        workers: "info".to_owned(),
        draining: None,
        live: None,
        start: Some(StartVia { command: vec!["start".to_owned()], timeout: SECOND, check: None }),
        drain: DrainVia { manifest: true, command: None },
        limits: Limits { rollbacks: 3, per: Duration::from_hours(24) },
        start_timeout: Duration::from_mins(10),
        on_start_timeout: OnStartTimeout::Stuck,
        drain_deadline: Duration::from_hours(2),
        membership: None,
    }
}

fn rules() -> RuleSet {
    let rule = SessionRule {
        name: "SessionsFailing".to_owned(),
        started: "started".to_owned(),
        failed: "failed".to_owned(),
        live: None,
        ceiling: Some(Share::new(0.05).unwrap()),
        tolerance: Some(Tolerance::NONE),
        dispersion: None,
        narrow_by: Vec::new(),
        annotations: BTreeMap::new(),
        digest: "d".to_owned(),
    };
    let group = Group {
        name: "sessions".to_owned(),
        file: "rules.yml".to_owned(),
        fleet: "voice".parse().unwrap(),
        interval: INTERVAL,
        sessions: vec![rule],
        values: Vec::new(),
    };
    RuleSet { groups: vec![group] }
}

struct Stage {
    controller: Controller<NoSource, Asked, Book>,
    platform: Arc<Asked>,
    ledger: Arc<Book>,
    clock: Arc<Hand>,
    /// What every tick of a value rule finds, by version.
    values: Vec<(&'static str, f64)>,
    /// What every tick holds by version and tenant; none: the question is not answered.
    tenants: Option<slices::Tenants>,
}

impl Stage {
    fn new() -> Self {
        Self::resume(Arc::default())
    }

    /// A controller that starts on what the ledger holds.
    fn resume(ledger: Arc<Book>) -> Self {
        let platform = Arc::new(Asked::default());
        let clock = Arc::new(Hand(Mutex::new(Timestamp::from_millis(1_700_000_000_000))));
        let ports = Ports {
            source: Arc::new(NoSource),
            platform: platform.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            signer: signer(),
            metrics: Arc::new(Metrics::new("test", "test").unwrap()),
            view: watch::channel(Arc::new(View::default())).0,
            manifests: watch::channel(Arc::new(Manifests::new())).0,
            load_rules: Box::new(|| Err("no files in a test".to_owned())),
        };
        let records = ledger.records.lock().unwrap().clone();
        let mut controller = Controller::new(ports, vec![config()], rules());
        for record in &records {
            controller.replay(record).unwrap();
        }
        Self { controller, platform, ledger, clock, values: Vec::new(), tenants: None }
    }

    /// One look, an interval after the last: workers by version, and what each started and failed
    /// in every tick that is due.
    async fn look(&mut self, workers: &[(&str, usize)], counts: &[(&str, u64, u64)]) {
        self.look_at(&[("", workers, counts)]).await;
    }

    /// The same at several fleets of the entry, told apart by their `site`.
    async fn look_at(&mut self, sites: &[Site<'_>]) {
        let now = self.clock.now() + INTERVAL;
        *self.clock.0.lock().unwrap() = now;
        let plan = self.controller.plan(0, now);
        let groups = plan.groups.iter().map(|group| GroupAnswer {
            due: group.due.map(|span| answer(span, sites)).into_iter().collect(),
            unfinished: group.unfinished.map(|span| answer(span, sites)).into_iter().collect(),
            histories: group.histories.iter().map(|_| vec![RuleAnswer::default()]).collect(),
            slices: self.slices(group),
            values: group.values.map(|span| values(span, &self.values)).into_iter().collect(),
        });
        let alive = sites.iter().flat_map(|(site, workers, _)| {
            workers.iter().flat_map(move |(version, count)| {
                (0..*count).map(move |n| {
                    series(site, version, Some(&format!("{version}-{n}")), &[(now, 1.0)])
                })
            })
        });
        let answer = Answer {
            fleet: FleetAnswer { workers: alive.collect(), ..FleetAnswer::default() },
            groups: groups.collect(),
        };
        let report = Report::Looked {
            plan,
            reloads: self.controller.reloads,
            took: SECOND,
            answer: Ok(answer),
        };
        self.controller.take_report(report).await.unwrap();
    }

    /// A look, an interval after the last, that gets no answer.
    async fn look_in_vain(&mut self) {
        let now = self.clock.now() + INTERVAL;
        *self.clock.0.lock().unwrap() = now;
        let plan = self.controller.plan(0, now);
        let query = RangeQuery { expr: String::new(), start: now, end: now, step: SECOND };
        let answer = Err(NoSource.range(query).await.unwrap_err());
        let report =
            Report::Looked { plan, reloads: self.controller.reloads, took: SECOND, answer };
        self.controller.take_report(report).await.unwrap();
    }

    /// Lets effects report back.
    async fn settle(&mut self) {
        let report = self.controller.reports.1.recv().await.unwrap();
        self.controller.take_report(report).await.unwrap();
    }

    fn events(&self) -> Vec<String> {
        self.ledger.records.lock().unwrap().iter().map(|record| record.event.clone()).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.platform.0.lock().unwrap().clone()
    }
}

/// A fleet's site, its workers by version, and what each version started and failed in a tick.
type Site<'a> = (&'a str, &'a [(&'a str, usize)], &'a [(&'a str, u64, u64)]);

fn series(site: &str, version: &str, worker: Option<&str>, points: &[(Timestamp, f64)]) -> Series {
    let labels = [("site", Some(site)), ("version", Some(version)), ("worker_id", worker)];
    let labels = labels.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())));
    Series { labels: labels.collect(), points: points.to_vec() }
}

fn answer(span: Span, sites: &[Site<'_>]) -> RuleAnswer {
    let side = |pick: fn(&(&str, u64, u64)) -> u64| {
        let each = sites.iter().flat_map(|(site, _, counts)| {
            counts.iter().map(move |count| {
                let points: Vec<_> = span.ends().map(|end| (end, pick(count) as f64)).collect();
                series(site, count.0, None, &points)
            })
        });
        each.collect::<Vec<_>>()
    };
    RuleAnswer { started: side(|c| c.1), failed: side(|c| c.2), ..RuleAnswer::default() }
}

fn values(span: Span, values: &[(&str, f64)]) -> Vec<Series> {
    let points = |value: f64| span.ends().map(|end| (end, value)).collect::<Vec<_>>();
    values.iter().map(|(version, value)| series("", version, None, &points(*value))).collect()
}

const FAILING: &[(&str, u64, u64)] = &[("v1", 20, 0), ("v2", 20, 15)];

async fn rolled_back_to_starting() -> Stage {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    // v1 is gone by the time v2 is judged, as in a blue-green deployment.
    stage.look(&[("v2", 2)], FAILING).await;
    stage
}

#[tokio::test]
async fn a_bad_version_is_rolled_back_in_order_and_nothing_drains_early() {
    let mut stage = rolled_back_to_starting().await;
    for _ in 0..3 {
        stage.look(&[("v2", 2)], FAILING).await;
    }
    stage.settle().await;
    assert_eq!(stage.asked(), ["start 2 of v1"], "nothing drains before v1 is seen");
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    stage.settle().await;
    assert_eq!(stage.asked(), ["start 2 of v1", "drain v2"]);
    stage.look(&[("v1", 2), ("v2", 1)], &[]).await;
    stage.look(&[("v1", 2)], &[]).await;
    assert!(!stage.events().contains(&"rollback.clean".to_owned()), "one empty look is not two");
    stage.look(&[("v1", 2)], &[]).await;
    assert_eq!(
        stage.events(),
        [
            "rollout.baseline_adopted",
            "deployment.started",
            "rollout.regressed",
            "rollout.decided",
            "rollback.chosen",
            "rollback.gated",
            "rollback.starting",
            "rollback.capable",
            "deployment.drain_started",
            "deployment.rolled_back",
            "rollback.confirming",
            "rollback.clean",
        ]
    );
}

#[tokio::test]
async fn a_restart_repeats_the_effect_that_was_outstanding_and_records_nothing_twice() {
    let stage = rolled_back_to_starting().await;
    let before = stage.events();
    assert_eq!(before.last().map(String::as_str), Some("rollback.starting"));
    let mut again = Stage::resume(stage.ledger.clone());
    *again.clock.0.lock().unwrap() = stage.clock.now();
    again.look(&[("v2", 2)], &[]).await;
    again.settle().await;
    assert_eq!(again.asked(), ["start 2 of v1"]);
    assert_eq!(again.events(), before);
}

#[tokio::test]
async fn nothing_is_done_that_the_ledger_did_not_take() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    *stage.ledger.full.lock().unwrap() = true;
    for _ in 0..5 {
        stage.look(&[("v2", 2)], FAILING).await;
    }
    assert!(stage.asked().is_empty());
    assert!(stage.controller.fleets["voice"].observed.history.rollback().is_none());
    let view = stage.controller.ports.view.borrow().clone();
    assert!(view.fleets["voice"].holding.as_ref().unwrap().contains("disk full"));
    *stage.ledger.full.lock().unwrap() = false;
    stage.look(&[("v2", 2)], FAILING).await;
    assert!(stage.events().contains(&"rollback.starting".to_owned()));
}

#[tokio::test]
async fn without_an_answer_nothing_is_decided() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    let before = stage.events();
    for _ in 0..50 {
        stage.look_in_vain().await;
    }
    assert_eq!(stage.events(), before);
    let view = stage.controller.ports.view.borrow().clone();
    assert!(view.fleets["voice"].holding.as_ref().unwrap().contains("did not answer"));
}

#[tokio::test]
async fn an_empty_answer_neither_promotes_nor_accuses() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    for _ in 0..40 {
        stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    }
    assert!(stage.asked().is_empty());
    let events = stage.events();
    assert_eq!(events.last().map(String::as_str), Some("rollout.held"), "{events:?}");
}

#[tokio::test]
async fn a_healthy_version_is_promoted_when_its_observation_is_over() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    for _ in 0..36 {
        stage.look(&[("v1", 2), ("v2", 2)], &[("v1", 20, 0), ("v2", 20, 0)]).await;
    }
    assert_eq!(stage.events().last().map(String::as_str), Some("deployment.completed"));
    let good = stage.controller.fleets["voice"].observed.history.last_good().cloned();
    assert_eq!(good, Some("v2".parse().unwrap()));
    // The version that was good before finishes its sessions; that is no new deployment.
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    assert!(stage.controller.fleets["voice"].observed.history.rollouts().is_empty());
}

#[tokio::test]
async fn another_writer_stops_this_one() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[]).await;
    let mut other = Stage::resume(stage.ledger.clone());
    other.look(&[("v1", 2), ("v2", 1)], &[]).await;
    let note = stage.controller.note("controller.started", "started").await;
    assert!(matches!(note, Err(Stop::Ledger(LedgerError::Conflict { .. }))));
}

#[tokio::test]
async fn a_start_that_brought_up_nothing_in_time_is_stuck_and_asked_for_again() {
    let mut stage = rolled_back_to_starting().await;
    stage.settle().await;
    for _ in 0..70 {
        stage.look(&[("v2", 2)], &[]).await;
    }
    stage.settle().await;
    assert_eq!(stage.asked(), ["start 2 of v1", "start 2 of v1"]);
    assert_eq!(stage.events().last().map(String::as_str), Some("rollback.stuck"));
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    assert!(stage.events().contains(&"deployment.drain_started".to_owned()));
}

fn order(act: Act) -> Order {
    let (actor, reason) = ("ada".to_owned(), "a test".to_owned());
    Order { fleet: "voice".to_owned(), act, actor, actor_proven: true, reason }
}

impl Stage {
    async fn say(&mut self, act: Act) -> Result<String, Refusal> {
        self.controller.take_order(&order(act)).await.unwrap()
    }

    fn last_record(&self) -> Record {
        self.ledger.records.lock().unwrap().last().unwrap().clone()
    }
}

fn v(text: &str) -> crate::domain::version::Version {
    text.parse().unwrap()
}
