//! Each row of the decision table, by the `rollbackd` binary on the real Prometheus.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd::ports::metrics::{MetricSource, RangeQuery};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::exporter::{Exporter, Flow};
use super::support::fleet::{ROLLBACKD, rollbackd};
use super::support::prometheus::{Prometheus, SCRAPE};
use super::support::{client, free_address, now, stays, wait_for};

const LIMIT: Duration = Duration::from_mins(4);

const WELL: Flow =
    Flow { tenants: &[("a", 16.0, 0.0), ("b", 4.0, 0.0)], quality: Some(1.0), dies: None };
const SICK: Flow = Flow { tenants: &[("a", 16.0, 0.4), ("b", 4.0, 0.4)], ..WELL };
const DEAD: Flow = Flow { tenants: &[("a", 16.0, 1.0), ("b", 4.0, 1.0)], ..WELL };
const WEAK: Flow = Flow { tenants: &[("a", 16.0, 0.15), ("b", 4.0, 0.15)], ..WELL };
const SICK_B: Flow = Flow { tenants: &[("a", 16.0, 0.0), ("b", 4.0, 0.75)], ..WELL };
const IDLE: Flow = Flow { tenants: &[("a", 0.0, 0.0), ("b", 0.0, 0.0)], ..WELL };
const SILENT: Flow = Flow { tenants: &[], ..WELL };
/// No session of it is counted as failed: those that its worker dies with are dropped.
const DYING: Flow = Flow { tenants: &[("a", 1.0, 0.0)], dies: Some((4.0, 3.0)), ..WELL };
const SLOW: Flow = Flow { quality: Some(2.0), ..WELL };
const SLOWEST: Flow = Flow { quality: Some(7.0), ..WELL };

/// One row: what is shown when the candidate comes and after each decision, and the decisions.
struct Row {
    name: &'static str,
    rules: &'static [&'static str],
    config: &'static [(&'static str, &'static str)],
    /// The baseline takes nothing before the candidate comes.
    idle: bool,
    /// The baseline and the candidate, one pair for each decision.
    shows: &'static [(Flow, Flow)],
    decisions: &'static [&'static str],
    /// A pointer into the last decision's record, and what is there.
    record: (&'static str, &'static str),
    /// The first rule has seen sessions dropped.
    drops: bool,
}

const ROW: Row = Row {
    name: "",
    rules: &["sessions"],
    config: &[],
    idle: false,
    shows: &[],
    decisions: &[],
    record: ("/decision", ""),
    drops: false,
};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row {
        name: "the candidate's sessions fail more than allowed",
        shows: &[(WELL, SICK)],
        decisions: &["roll_back"],
        record: ("/rules/0/rule", "sessions/SessionsFailing"),
        ..ROW
    },
    Row {
        name: "the candidate's sessions drop more than allowed",
        rules: &["drops"],
        config: &[("observe_for", "2m")],
        shows: &[(WELL, DYING)],
        decisions: &["roll_back"],
        record: ("/rules/0/rule", "sessions/SessionsFailing"),
        drops: true,
        ..ROW
    },
    Row {
        name: "every new call is affected and there is no concurrent baseline: against history",
        rules: &["baseline"],
        idle: true,
        shows: &[(IDLE, DEAD)],
        decisions: &["roll_back"],
        record: ("/rules/0/control", "history"),
        ..ROW
    },
    Row {
        name: "every new call is affected and there is no concurrent baseline: against the ceiling",
        rules: &["ceiling"],
        idle: true,
        shows: &[(IDLE, DEAD)],
        decisions: &["roll_back"],
        record: ("/rules/0/rule", "sessions/OverCeiling"),
        ..ROW
    },
    Row {
        name: "the excess failures sit in one tenant, and later the rest regresses",
        rules: &["narrow"],
        config: &[("observe_for", "2m")],
        shows: &[(WELL, SICK_B), (WELL, SICK)],
        decisions: &["fix_forward", "roll_back"],
        ..ROW
    },
    Row {
        name: "the excess failures sit in one tenant",
        rules: &["narrow"],
        shows: &[(WELL, SICK_B)],
        decisions: &["fix_forward"],
        record: ("/narrow/slice/value", "b"),
        ..ROW
    },
    Row {
        name: "a value rule is over escalate_above, then over rollback_above for `for`",
        rules: &["sessions", "value"],
        config: &[("observe_for", "2m")],
        shows: &[(WELL, SLOW), (WELL, SLOWEST)],
        decisions: &["escalate", "roll_back"],
        record: ("/values/0/verdict", "regressed"),
        ..ROW
    },
    Row {
        name: "observation ends and the evidence is suspect",
        config: &[("false_rollback_rate", "1e-300")],
        shows: &[(WELL, WEAK)],
        decisions: &["roll_back"],
        ..ROW
    },
    Row {
        name: "observation ends, the evidence is suspect, and when_unsure is hold",
        config: &[("false_rollback_rate", "1e-300"), ("when_unsure", "hold")],
        shows: &[(WELL, WEAK)],
        decisions: &["hold"],
        ..ROW
    },
    Row {
        name: "both versions fail together (a provider outage)",
        shows: &[(SICK, SICK)],
        decisions: &["escalate"],
        ..ROW
    },
    Row {
        name: "no data while workers are alive",
        shows: &[(WELL, SILENT)],
        decisions: &["hold"],
        ..ROW
    },
    Row {
        name: "observation ends, no evidence against it",
        rules: &["narrow", "value"],
        shows: &[(WELL, WELL)],
        decisions: &["promote"],
        ..ROW
    },
];

/// A rule by the name that rows know it by. Selectors are of one fleet's series.
fn rule(name: &str, fleet: &str) -> Value {
    let of = |metric: &str| format!("{metric}{{fleet=\"{fleet}\"}}");
    let mut rule = match name {
        "value" => {
            return json!({
                "name": "Quality", "value": format!("max by (deployment_version) ({})", of("quality")),
                "escalate_above": 1.5, "rollback_above": 6, "for": "6s",
            });
        }
        "baseline" => json!({ "name": "WorseThanBefore", "tolerance": "1.5x" }),
        "ceiling" => json!({ "name": "OverCeiling", "ceiling": "5%" }),
        _ => json!({ "name": "SessionsFailing", "ceiling": "5%", "tolerance": "1.5x" }),
    };
    if name == "narrow" {
        rule["narrow_by"] = json!(["agent", "tenant"]);
    }
    if name == "drops" {
        rule["live"] = of("sessions_live").into();
    }
    rule["started"] = of("sessions_started_total").into();
    rule["failed"] = of("sessions_failed_total").into();
    rule
}

/// One row's fleet, with a `rollbackd` of its own.
struct Watched {
    fleet: String,
    directory: TempDir,
    address: SocketAddr,
    controller: Child,
}

impl Watched {
    fn start(number: usize, row: &Row, prometheus: &Prometheus) -> Self {
        let (fleet, directory) = (format!("row{number}"), tempfile::tempdir().unwrap());
        let (path, address) = (directory.path(), free_address());
        let mut entry = json!({
            "name": fleet, "observe_for": "20s", "history": "2m",
            "workers": format!("worker_info{{fleet=\"{fleet}\"}}"), "drain": { "manifest": {} },
        });
        for (key, value) in row.config {
            entry[*key] = (*value).into();
        }
        let config = json!({
            "listen": address, "prometheus": { "url": prometheus.url }, "rule_files": ["rules.yml"],
            "ledger": "sqlite:rollbackd.db", "signing_key_file": "rollbackd.key", "fleets": [entry],
        });
        let rules: Vec<Value> = row.rules.iter().map(|name| rule(name, &fleet)).collect();
        let group = json!({
            "name": "sessions", "fleet": fleet, "interval": "2s", "regressions": rules,
        });
        std::fs::write(path.join("rollbackd.yml"), config.to_string()).unwrap();
        std::fs::write(path.join("rules.yml"), json!({ "groups": [group] }).to_string()).unwrap();
        assert!(rollbackd(path, &["keygen", "rollbackd.key"]).status.success());
        let controller = Command::new(ROLLBACKD)
            .args(["run", "--config", "rollbackd.yml"])
            .current_dir(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { fleet, directory, address, controller }
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = client().get(format!("http://{}/{path}", self.address)).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    async fn view(&self) -> Option<Value> {
        serde_json::from_str(&self.get(&format!("api/v1/fleets/{}", self.fleet)).await?).ok()
    }

    async fn until_good(&self) {
        wait_for("v1 to be the last good version", LIMIT, || async {
            self.view().await.filter(|view| view["last_good"] == "v1")
        })
        .await;
    }

    /// The records of decisions, in order.
    async fn decisions(&self) -> Vec<Value> {
        let text = self.get("api/v1/ledger?after=0&limit=1000").await.unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["decision"].is_string()).collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            eprintln!("{} said:\n{}", self.fleet, log.unwrap_or_default());
        }
        self.controller.kill().unwrap();
        self.controller.wait().unwrap();
    }
}

async fn run(number: usize, row: &Row, prometheus: &Prometheus, exporter: &Exporter) {
    let watched = Watched::start(number, row, prometheus);
    exporter.show(&watched.fleet, &[("v1", WELL)]);
    watched.until_good().await;
    let counter = format!("sessions_started_total{{fleet=\"{}\"}}", watched.fleet);
    let is_so = async |expr: String| {
        let at = now().align_down(Duration::from_secs(1));
        let query = RangeQuery { expr, start: at, end: at, step: SCRAPE };
        let found = prometheus.source().range(query).await.ok();
        found.filter(|series| !series.is_empty()).map(|_| ())
    };
    wait_for("a past to compare with", LIMIT, || is_so(format!("sum({counter}) > 200"))).await;
    if row.idle {
        exporter.show(&watched.fleet, &[("v1", IDLE)]);
        let idle = format!("sum({counter}) == sum({counter} offset 5s)");
        wait_for("v1 to take nothing any more", LIMIT, || is_so(idle.clone())).await;
    }
    // An outage has begun before the candidate comes: one that began in the very tick in which it
    // comes would be in all of its sessions, and in a part of the baseline's.
    let fails = |flow: &Flow| flow.tenants.iter().any(|(_, _, share)| *share > 0.0);
    if let Some((baseline, _)) = row.shows.first().filter(|(baseline, _)| fails(baseline)) {
        exporter.show(&watched.fleet, &[("v1", *baseline)]);
        let fails = format!("sum(sessions_failed_total{{fleet=\"{}\"}}) > 40", watched.fleet);
        wait_for("v1 to fail", LIMIT, || is_so(fails.clone())).await;
    }
    for (count, (baseline, candidate)) in (1..).zip(row.shows) {
        exporter.show(&watched.fleet, &[("v1", *baseline), ("v2", *candidate)]);
        wait_for(row.name, LIMIT, || async {
            (watched.decisions().await.len() >= count).then_some(())
        })
        .await;
    }
    let replayed =
        rollbackd(watched.directory.path(), &["audit", "replay", "--key", "rollbackd.key.pub"]);
    assert!(replayed.status.success(), "{}: {replayed:?}", row.name);
    let told = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(told.contains(" 0 not derivable"), "{}: {told}", row.name);
    let records = watched.decisions().await;
    let decisions: Vec<&str> = records.iter().filter_map(|r| r["decision"].as_str()).collect();
    let last = records.last().unwrap();
    assert_eq!(decisions, row.decisions, "{}: {}", row.name, last["reason"]);
    assert_eq!(last["version"], "v2", "{}", row.name);
    let dropped = last["rules"][0]["dropped"].as_u64().unwrap();
    assert_eq!(dropped > 0, row.drops, "{}: {}", row.name, last["reason"]);
    if row.drops {
        let failed = format!("sum(sessions_failed_total{{fleet=\"{}\"}}) == 0", watched.fleet);
        wait_for("no session counted as failed", LIMIT, || is_so(failed.clone())).await;
    }
    if !row.record.1.is_empty() {
        let found = last.pointer(row.record.0);
        assert_eq!(found, Some(&Value::from(row.record.1)), "{}: {last:#}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_the_decision_table_decides_as_it_says() {
    let (prometheus, exporter) = (Prometheus::start().await, Exporter::start().await);
    prometheus.scrape(&[exporter.address]).await;
    let rows = ROWS.iter().enumerate();
    futures::future::join_all(rows.map(|(n, row)| run(n, row, &prometheus, &exporter))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_prometheus_does_not_answer_it_holds_and_a_failing_version_stays() {
    let (mut prometheus, exporter) = (Prometheus::start().await, Exporter::start().await);
    prometheus.scrape(&[exporter.address]).await;
    let watched = Watched::start(0, &ROW, &prometheus);
    exporter.show(&watched.fleet, &[("v1", WELL)]);
    watched.until_good().await;
    prometheus.stop();
    exporter.show(&watched.fleet, &[("v1", WELL), ("v2", DEAD)]);
    let holds = async || {
        let holding = watched.view().await.unwrap()["holding"].clone();
        holding.as_str().is_some_and(|holding| holding.starts_with("no evidence: "))
    };
    wait_for("the fleet to hold", LIMIT, || async { holds().await.then_some(()) }).await;
    stays("undecided", Duration::from_secs(8), async || {
        holds().await && watched.decisions().await.is_empty()
    })
    .await;
}
