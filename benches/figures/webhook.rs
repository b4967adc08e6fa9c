//! From Alertmanager's webhook to a decision on disk, a real Prometheus included.
//!
//! Each sample is a fleet of its own, whose candidate begins to fail; the group's interval is far
//! longer than the bench, so that nothing but the webhook makes rollbackd look.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::scripted::{Rollbackd, http, scraping, serve, wait};
use super::{Figure, median, millis};

const FLEETS: usize = 11;

/// How many sessions of which version the fleets' only target has counted.
#[derive(Default)]
struct Counted {
    has_v2: AtomicU64,
    failed: [AtomicU64; FLEETS],
}

impl Counted {
    fn exposition(&self) -> String {
        let mut text = String::new();
        for fleet in 0..FLEETS {
            let failed = self.failed[fleet].load(Ordering::SeqCst);
            let has_v2 = self.has_v2.load(Ordering::SeqCst) == 1;
            for (version, started, failed) in [("v1", 100, 0), ("v2", failed, failed)] {
                if version == "v1" || has_v2 {
                    let labels = format!(r#"{{site="s{fleet}",deployment_version="{version}"}}"#);
                    writeln!(text, "worker_info{labels} 1").unwrap();
                    writeln!(text, "started_total{labels} {started}").unwrap();
                    writeln!(text, "failed_total{labels} {failed}").unwrap();
                }
            }
        }
        text
    }
}

fn config() -> (String, String) {
    let (mut fleets, mut rules) = (String::new(), "groups:\n".to_owned());
    for n in 0..FLEETS {
        let site = format!("{{site=\"s{n}\"}}");
        writeln!(
            fleets,
            "  - {{ name: f{n}, mode: observe, workers: 'worker_info{site}', drain: {{ manifest: {{}} }} }}"
        )
        .unwrap();
        writeln!(
            rules,
            "  - name: g{n}\n    fleet: f{n}\n    interval: 5m\n    regressions:\n      - {{ name: Failing, \
             started: 'started_total{site}', failed: 'failed_total{site}', ceiling: 5% }}"
        )
        .unwrap();
    }
    (fleets, rules)
}

/// What the target showed in the last minutes: counters without a past would be those of a
/// Prometheus that lost its disk.
fn past(target: u16, mut file: File) -> std::io::Result<()> {
    let now = jiff::Timestamp::now().as_second();
    writeln!(file, "# TYPE started counter")?;
    for fleet in 0..FLEETS {
        for at in (now - 1200..now - 60).step_by(15) {
            let worker = format!(r#"job="voice",instance="127.0.0.1:{target}""#);
            let labels = format!(r#"{worker},site="s{fleet}",deployment_version="v1""#);
            writeln!(file, "started_total{{{labels}}} 100 {at}")?;
        }
    }
    writeln!(file, "# EOF")
}

/// The last value that Prometheus has for an instant query.
fn scraped(prometheus: u16, query: &str) -> Option<f64> {
    let (_, body) = http(prometheus, "GET", &format!("/api/v1/query?query={query}"), "")?;
    let body: serde_json::Value = serde_json::from_str(body.trim()).ok()?;
    body["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

fn alert(rollbackd: u16, fleet: usize) {
    let body = format!(
        r#"{{"version":"4","status":"firing","alerts":[{{"status":"firing","labels":{{"alertname":"Failing","fleet":"f{fleet}"}}}}]}}"#
    );
    let (code, answer) = http(rollbackd, "POST", "/api/v1/alerts", &body).unwrap();
    assert!(code < 300, "{code}: {answer}");
}

pub(super) fn figures() -> Vec<Figure> {
    let counted = Arc::new(Counted::default());
    let target = {
        let counted = counted.clone();
        serve(move || counted.exposition())
    };
    let (_prometheus, _data, port) = scraping(target, |file| past(target, file));
    let second = Duration::from_secs(1);
    wait("a scrape", second / 5, || scraped(port, "count(worker_info)"));
    let (fleets, rules) = config();
    let at = Rollbackd::prepare(port, &fleets, &rules);
    let (_rollbackd, _) = at.start();
    let fleet = |n: usize| -> Option<serde_json::Value> {
        let (_, body) = http(at.port, "GET", &format!("/api/v1/fleets/f{n}"), "")?;
        serde_json::from_str(&body).ok()
    };
    // A look is on whole seconds: the next one sees what was scraped by then.
    let ask_until = |what: &str, path: &str| {
        for n in 0..FLEETS {
            wait(what, second, || {
                alert(at.port, n);
                fleet(n).filter(|fleet| !fleet.pointer(path).is_none_or(serde_json::Value::is_null))
            });
        }
    };
    ask_until("v1 to be the last good version", "/last_good");
    counted.has_v2.store(1, Ordering::SeqCst);
    ask_until("v2 to be watched", "/rollouts/0/verdicts/0");
    let times = (0..FLEETS).map(|n| {
        counted.failed[n].store(200, Ordering::SeqCst);
        let query = format!("failed_total%7Bsite%3D%22s{n}%22%2Cdeployment_version%3D%22v2%22%7D");
        wait("the failures to be scraped", second / 20, || {
            scraped(port, &query).filter(|failed| *failed > 0.0)
        });
        // Looks end at whole seconds, and the scrape must lie before.
        std::thread::sleep(second + second / 10);
        let before = records(at.port);
        let began = Instant::now();
        alert(at.port, n);
        wait("a decision", Duration::from_millis(1), || (records(at.port) > before).then_some(()));
        began.elapsed()
    });
    vec![Figure {
        what: "webhook to decision on disk, Prometheus included (median)",
        measured: millis(median(times.collect())),
        goal: "250 ms",
    }]
}

/// How many decisions the ledger has on candidates that would be rolled back.
fn records(rollbackd: u16) -> usize {
    let (_, body) = http(rollbackd, "GET", "/api/v1/ledger?limit=1000", "").unwrap();
    body.matches("rollout.escalated").count()
}
