//! A tick over 1,000 fleets with two versions each, from Prometheus' JSON to verdicts.
//!
//! The controller is the real one; its source parses JSON as the real one does, and what writing
//! that JSON takes is not counted. A look takes the tick that is over *and* looks ahead.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rollbackd::adapters::prometheus;
use rollbackd::controller::{Controller, Manifests, Ports};
use rollbackd::domain::time::Timestamp;
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

use super::{Figure, median, millis};

const FLEETS: usize = 1000;
const LOOKS: usize = 25;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Answers every query for all fleets. `v2` is there from the second look on.
#[derive(Default)]
struct Source {
    versions: AtomicU64,
    first_query: Mutex<Option<Instant>>,
    writing: Mutex<Duration>,
}

impl Source {
    fn json(&self, query: &RangeQuery) -> String {
        let expr = &query.expr;
        let value = match expr {
            _ if expr.contains("up == 0") || expr.contains("up[120s]") => None,
            // How long ago each worker was scraped.
            _ if expr.starts_with("min by") => Some(1),
            _ if expr.contains("failed_total") => Some(0),
            _ if expr.contains("started_total") => Some(15),
            _ => Some(40),
        };
        let mut text = r#"{"status":"success","data":{"resultType":"matrix","result":["#.to_owned();
        let step = i64::try_from(query.step.as_secs()).unwrap().max(1);
        let (first, last) = (query.start.as_millis() / 1000, query.end.as_millis() / 1000);
        let mut comma = "";
        for fleet in (0..FLEETS).filter(|_| value.is_some()) {
            for version in 1..=self.versions.load(Ordering::SeqCst) {
                let mut labels =
                    format!(r#""region":"r{fleet}","deployment_version":"v{version}""#);
                if expr.starts_with("min by") {
                    write!(labels, r#","worker_id":"w{version}""#).unwrap();
                }
                write!(text, r#"{comma}{{"metric":{{{labels}}},"values":["#).unwrap();
                let mut at = first;
                while at <= last {
                    let between = if at == first { "" } else { "," };
                    write!(text, r#"{between}[{at},"{}"]"#, value.unwrap_or_default()).unwrap();
                    at += step;
                }
                text.push_str("]}");
                comma = ",";
            }
        }
        text.push_str("]}}");
        text
    }
}

impl MetricSource for Source {
    async fn range(&self, query: RangeQuery) -> Result<Vec<Series>, MetricError> {
        let began = Instant::now();
        self.first_query.lock().unwrap().get_or_insert(began);
        let json = self.json(&query);
        *self.writing.lock().unwrap() += began.elapsed();
        Ok(prometheus::series_of(json.as_bytes()).unwrap())
    }
}

struct Nowhere;

impl Platform for Nowhere {
    async fn start(&self, _: StartRequest) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn check(&self, _: CheckRequest) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn drain(&self, _: DrainRequest) -> Result<(), PlatformError> {
        Ok(())
    }
}

impl Ledger for Nowhere {
    async fn append(&self, _: u64, _: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        Ok(Vec::new())
    }

    async fn read(&self, _: u64, _: u32) -> Result<Vec<Record>, LedgerError> {
        Ok(Vec::new())
    }
}

const CONFIG: &str = r"
listen: 127.0.0.1:0
prometheus: { url: 'http://127.0.0.1:1' }
rule_files: [rules.yml]
ledger: sqlite:none.db
signing_key_file: none.key
fleets:
  - { name: voice, by: [region], workers: worker_info, live: live_sessions, drain: { manifest: {} } }
";

const RULES: &str = r"
groups:
  - name: sessions
    fleet: voice
    regressions:
      - name: Failing
        started: started_total
        failed: failed_total
        live: live_sessions
        ceiling: 5%
        tolerance: 1.5x
";

pub(super) fn figures() -> Vec<Figure> {
    let times = tokio::runtime::Runtime::new().unwrap().block_on(look());
    vec![Figure {
        what: "a tick over 1,000 fleets × 2 versions, from Prometheus' JSON to verdicts",
        measured: millis(median(times)),
        goal: "20 ms",
    }]
}

async fn look() -> Vec<Duration> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rollbackd.yml");
    std::fs::write(&path, CONFIG).unwrap();
    std::fs::write(directory.path().join("rules.yml"), RULES).unwrap();
    let config = rollbackd::config::parse::load(&path).unwrap();
    let rules = rollbackd::rules::parse::load(&config.rule_files, &config.fleet_traits());
    let (source, clock) = (Arc::new(Source::default()), Arc::new(Hand(1_800_000_000_000.into())));
    let (view, mut seen) = watch::channel(Arc::new(View::default()));
    let (manifests, _published) = watch::channel(Arc::new(Manifests::new()));
    let (inbox, messages) = mpsc::channel(8);
    let ports = Ports {
        source: source.clone(),
        platform: Arc::new(Nowhere),
        ledger: Arc::new(Nowhere),
        clock: clock.clone(),
        signer: Signer::from_seed(&[7; 32]),
        metrics: Arc::new(Metrics::new("bench", "bench").unwrap()),
        view,
        manifests,
        load_rules: Box::new(|| Err("not in a bench".to_owned())),
    };
    source.versions.store(1, Ordering::SeqCst);
    let controller = Controller::new(ports, config.fleets, rules.unwrap());
    let running = tokio::spawn(controller.run(messages));
    let settled = |view: &Arc<View>, rollouts: usize| {
        view.fleets.len() == FLEETS
            && view.fleets.values().all(|fleet| {
                fleet.last_good.is_some()
                    && fleet.rollouts.iter().filter(|r| !r.verdicts.is_empty()).count() == rollouts
            })
    };
    let mut times = Vec::new();
    seen.wait_for(|view| settled(view, 0)).await.unwrap();
    source.versions.store(2, Ordering::SeqCst);
    while times.len() < LOOKS {
        clock.0.fetch_add(15_000, Ordering::SeqCst);
        *source.first_query.lock().unwrap() = None;
        *source.writing.lock().unwrap() = Duration::ZERO;
        seen.mark_unchanged();
        inbox
            .send(Message::Alerted(vec![[("fleet".to_owned(), "voice".to_owned())].into()]))
            .await
            .unwrap();
        seen.changed().await.unwrap();
        let took = source.first_query.lock().unwrap().unwrap().elapsed();
        let all_judged = settled(&seen.borrow(), 1);
        if all_judged {
            times.push(took.saturating_sub(*source.writing.lock().unwrap()));
        }
    }
    inbox.send(Message::Shutdown).await.unwrap();
    running.await.unwrap().unwrap();
    // The first look at all the rollouts also took their history.
    times.split_off(1)
}
