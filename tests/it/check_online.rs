//! `rollbackd check --online`: what it says of rules that fit a real Prometheus, and of those that
//! do not.

use std::io::{self, Write};
use std::process::Output;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use rollbackd::ports::metrics::{MetricSource, RangeQuery};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::fleet::ROLLBACKD;
use crate::support::history::SCRAPE_SECONDS;
use crate::support::prometheus::Prometheus;
use crate::support::{free_address, now, wait_for};

/// Two hours.
const SCRAPES: u64 = 2 * 3600 / SCRAPE_SECONDS;

/// The scrape, half an hour ago, at which the young series begin.
const YOUNG_FROM: u64 = SCRAPES - 1800 / SCRAPE_SECONDS;

/// What a series shows at a scrape, if it is there.
type Shows = fn(u64) -> Option<u64>;

/// Twenty sessions a second, and what can be wrong with counting them. Prometheus keeps no type of
/// what it did not scrape itself.
const SERIES: [(&str, Option<&str>, Shows); 10] = [
    ("started_total", Some("v1"), |n| Some(300 * n)),
    // One in a hundred.
    ("failed_total", Some("v1"), |n| Some(3 * n)),
    ("live", Some("v1"), |n| Some(120 + n % 7)),
    ("close_failed_total", Some("v1"), |n| Some(12 * n)),
    ("often_failed_total", Some("v1"), |n| Some(24 * n)),
    ("bare_total", None, |n| Some(30 * n)),
    ("falls", Some("v1"), |n| Some(100 + n * 37 % 50)),
    // Half an hour old, with a past of 50,000 that it did not live through.
    ("carried_total", Some("v2"), |n| n.checked_sub(YOUNG_FROM).map(|age| 50_000 + age)),
    ("fresh_total", Some("v2"), |n| n.checked_sub(YOUNG_FROM).map(|age| 300 * age)),
    // Scraped every two minutes.
    ("seldom_info", Some("v1"), |n| (n % 8 == 7).then_some(1)),
];

fn write_history(mut out: impl Write) -> io::Result<()> {
    let end = u64::try_from(now().as_millis()).unwrap() / 1000;
    let begin = end - SCRAPES * SCRAPE_SECONDS;
    for (name, version, shows) in SERIES {
        let version =
            version.map_or_else(String::new, |of| format!(",deployment_version=\"{of}\""));
        for scrape in 0..SCRAPES {
            if let Some(value) = shows(scrape) {
                let at = begin + scrape * SCRAPE_SECONDS;
                writeln!(out, "{name}{{instance=\"a:1\"{version}}} {value} {at}")?;
            }
        }
    }
    for region in ["eu", "us"] {
        let labels = format!("{{deployment_version=\"v1\",region=\"{region}\"}}");
        let fails = if region == "us" { 24 } else { 3 };
        for scrape in 0..SCRAPES {
            let at = begin + scrape * SCRAPE_SECONDS;
            writeln!(out, "regional_total{labels} {} {at}", 300 * scrape)?;
            writeln!(out, "regional_failed_total{labels} {} {at}", fails * scrape)?;
        }
    }
    writeln!(out, "# EOF")
}

/// A rule of the healthy series, with `changes` to it.
fn rule(changes: &Value) -> Value {
    let mut rule = json!({
        "name": "Failing",
        "started": "started_total",
        "failed": "failed_total",
        "live": "live",
        "ceiling": "5%",
        "tolerance": "1.5x",
    });
    rule.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    rule
}

/// `rollbackd check --online` of one rule for fleets told apart by `by`, with this `workers`
/// selector.
async fn check(url: &str, by: &[&str], workers: &str, rule: &Value) -> Output {
    check_all(url, by, workers, "1h", std::slice::from_ref(rule)).await
}

/// The same of several rules, with this history.
async fn check_all(
    url: &str,
    by: &[&str],
    workers: &str,
    history: &str,
    rules: &[Value],
) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "listen": "127.0.0.1:0",
        "prometheus": { "url": url, "retries": 0 },
        "rule_files": ["rules.yml"],
        "ledger": "sqlite:rollbackd.db",
        "signing_key_file": "rollbackd.key",
        "fleets": [{
            "name": "voice",
            "by": by,
            "mode": "observe",
            "observe_for": "30m",
            "history": history,
            "workers": workers,
            "drain": { "manifest": {} },
        }],
    });
    let rules = json!({ "groups": [
        { "name": "sessions", "fleet": "voice", "interval": "15s", "regressions": rules },
    ] });
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text);
    write("rollbackd.yml", config.to_string()).unwrap();
    write("rules.yml", rules.to_string()).unwrap();
    let mut command = tokio::process::Command::new(ROLLBACKD);
    command.current_dir(directory.path()).args(["check", "--online"]);
    command.output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Has Prometheus scrape metrics with their types, in both formats there are.
async fn scrape_types(server: &Prometheus) {
    const METRICS: &str = "# TYPE level gauge\nlevel{deployment_version=\"v1\"} 5\n\
         # TYPE counted_total counter\ncounted_total{deployment_version=\"v1\"} 5\n";
    const OPEN: &str = "# TYPE open counter\nopen_total{deployment_version=\"v1\"} 5\n# EOF\n";
    let typed = |text, kind| get(async move || ([(CONTENT_TYPE, kind)], text));
    let mut addresses = Vec::new();
    for (text, kind) in [
        (METRICS, "text/plain; version=0.0.4"),
        (OPEN, "application/openmetrics-text; version=1.0.0"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let app = Router::new().route("/metrics", typed(text, kind));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }
    server.scrape(&addresses).await;
    let source = server.source();
    wait_for("the samples and their types", Duration::from_mins(1), || async {
        // As `check` asks: at a full second.
        let at = now().align_down(Duration::from_secs(1));
        for metric in ["level", "counted_total", "open_total"] {
            let step = Duration::from_secs(1);
            let query = RangeQuery { expr: metric.to_owned(), start: at, end: at, step };
            source.range(query).await.unwrap().first()?;
            source.metric_type(metric).await?;
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn what_does_not_fit_prometheus_is_said_with_what_to_do_instead() {
    let server = Prometheus::with_history(|file| write_history(file), &[]).await;
    scrape_types(&server).await;
    #[rustfmt::skip]
    let cases = [
        ("all in order", json!({}), 0,
         &["note: fleet voice, sessions/Failing: v1: at ",
           "failing at the ceiling (5.0%) is found after about ",
           "ok: 1 fleet, 1 rule in 1 file"] as &[&str]),
        ("no such series", json!({ "started": "strated_total" }), 1,
         &["`started`: no series of `strated_total` in the last 1h; check its name and matchers"]),
        ("no such failures, which may be rare", json!({ "failed": "no_total" }), 0,
         &["warning: ", "`failed`: no series of `no_total` in the last 1h; good only if",
           "ok, with 1 warning"]),
        ("no version", json!({ "failed": "bare_total" }), 1,
         &["`failed`: 1 of its series have no label `deployment_version`; add it in the exporter"]),
        ("it falls", json!({ "failed": "falls" }), 1,
         &["`failed`: `falls` fell in ", "give a counter, which only grows"]),
        ("a gauge by its type", json!({ "failed": "level" }), 1,
         &["`failed`: `level` is a gauge; give a counter"]),
        ("a counter by its type", json!({ "live": "counted_total" }), 1,
         &["`live`: `counted_total` is a counter; give a gauge"]),
        ("a counter by its OpenMetrics type", json!({ "live": "open_total" }), 1,
         &["`live`: `open_total` is a counter; give a gauge"]),
        ("begins with a past", json!({ "failed": "carried_total" }), 0,
         &["warning: ", "1 series of `carried_total` that appeared in the last 1h began above 0",
           "it must begin at 0 with its worker"]),
        ("began with Prometheus", json!({ "started": "fresh_total", "failed": "carried_total" }), 0,
         &["\nok: 1 fleet"]),
        ("as young as its fleet", json!({ "started": "fresh_total" }), 0,
         &["v2: at "]),
        ("young, and from 0", json!({ "failed": "fresh_total" }), 0, &["\nok: 1 fleet"]),
        ("fails nearly as much by itself", json!({ "failed": "close_failed_total" }), 0,
         &["warning: ", "v1: failed 4.00% of its sessions in the last 1h, close to the ceiling of 5%",
           "raise `ceiling`, or use `tolerance` alone"]),
        ("fails as much by itself", json!({ "failed": "often_failed_total" }), 1,
         &["v1: failed 8.00% of its sessions in the last 1h, above the ceiling of 5%",
           "raise `ceiling`, or leave it out and use `tolerance`"]),
    ];
    for (name, changes, code, wants) in cases {
        let output = check(&server.url, &[], "live", &rule(&changes)).await;
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
        for want in wants {
            assert!(out.contains(want), "{name}: no {want:?} in:\n{out}");
        }
        // What cannot be counted is not reckoned with.
        assert!(code == 0 || !out.contains("sessions/s"), "{name}: {out}");
        if let Some((_, told)) = out.split_once(": at ") {
            // Prometheus extrapolates to the edges of the hour.
            let rate: f64 = told.split_once(" sessions/s").unwrap().0.parse().unwrap();
            assert!((19.0..=21.0).contains(&rate), "{name}: {out}");
        }
    }
    let output = check(&server.url, &[], "no_worker_info", &rule(&json!({}))).await;
    let want =
        "rollbackd.yml: fleet voice: `workers`: no series of `no_worker_info` in the last 1h";
    assert!(text(&output.stdout).starts_with(want), "{output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = check(&server.url, &[], "seldom_info", &rule(&json!({}))).await;
    let want =
        "rollbackd.yml: fleet voice: `workers`: scraped every 120 s; a worker counts as able";
    assert!(text(&output.stdout).starts_with(want), "{output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let regional = json!({ "started": "regional_total", "failed": "regional_failed_total", "live": "regional_total" });
    let output = check(&server.url, &["region"], "regional_total", &rule(&regional)).await;
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(out.contains("region=eu v1: at ") && !out.contains("region=eu v1: failed"), "{out}");
    assert!(out.contains("region=us v1: failed 8.00% of its sessions"), "{out}");
}

#[tokio::test]
async fn what_prometheus_refuses_to_say_is_found_and_the_rest_is_asked_all_the_same() {
    const REFUSED: &str =
        "cannot be checked, so this check is partial: http://127.0.0.1:PORT refused the query: 422";
    let young = json!({ "name": "Young", "started": "fresh_total", "failed": "carried_total" });
    let seldom = json!({ "name": "Value", "value": "seldom_info", "escalate_above": 1 });
    let clash = json!({ "name": "Clash", "value": "{__name__=~\"live|falls\"} + on (deployment_version) live", "escalate_above": 1 });
    let rules = [rule(&json!({})), rule(&young), seldom, clash];
    let regressing = |name: &str| format!("rules.yml: fleet voice, sessions/{name}: ");
    #[rustfmt::skip]
    let cases = [
        ("two hours are too much, half an hour is not", "400", vec![
            regressing("Failing") + "the traffic of the last 2h: " + REFUSED,
        ], "sessions/Young: v2: at "),
        ("an hour is too much, but of what is seldom scraped", "100", vec![
            "rollbackd.yml: fleet voice: `workers`: how often they are scraped: ".to_owned() + REFUSED,
            regressing("Failing") + "`started`: " + REFUSED,
            regressing("Failing") + "`failed`: " + REFUSED,
            regressing("Failing") + "`live`: " + REFUSED,
        ], ""),
    ];
    for (name, samples_max, refused, found) in cases {
        let option = format!("--query.max-samples={samples_max}");
        let server = Prometheus::with_history(|file| write_history(file), &[&option]).await;
        let output = check_all(&server.url, &[], "seldom_info", "2h", &rules).await;
        let port = server.url.rsplit_once(':').unwrap().1;
        let out = text(&output.stdout).replace(port, "PORT");
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        for want in &refused {
            assert!(out.contains(want), "{name}: no {want:?} in:\n{out}");
        }
        assert!(out.contains(found), "{name}: no {found:?} in:\n{out}");
        let clash = regressing("Clash") + "`value`: " + REFUSED;
        assert!(out.contains(&clash), "{name}: it goes on to the last rule:\n{out}");
        assert!(!out.contains("sessions/Value"), "{name}: nothing is wrong with this:\n{out}");
        assert!(out.contains(" errors: 1 fleet, 4 rules in 1 file"), "{name}:\n{out}");
    }
}

#[tokio::test]
async fn a_prometheus_that_is_down_is_named() {
    let url = format!("http://{}", free_address());
    let output = check(&url, &[], "live", &rule(&json!({}))).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{url} did not answer: ")), "{said}");
    assert_eq!(text(&output.stdout), "", "nothing is known, so nothing is said to be good");
}
