//! `rollbackd backtest` over a history that a real Prometheus holds.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::fleet::ROLLBACKD;
use crate::support::history::{self, Run, SCRAPE_SECONDS};
use crate::support::prometheus::Prometheus;
use crate::support::{client, now};

/// Scrapes in an hour.
const HOUR: u64 = 3600 / SCRAPE_SECONDS;

/// When the history begins: seven hours ago, at a full minute.
fn begin() -> u64 {
    let seconds = u64::try_from(now().as_millis()).unwrap() / 1000;
    (seconds - 7 * 3600) / 60 * 60
}

/// v2 is as good as v1 and takes over; v3 fails a fifth, and is taken back by hand.
fn runs(fleet: &str) -> Vec<Run> {
    let run = |version, first, last, fails| {
        let fleet = fleet.to_owned();
        Run { fleet, version, tenant: "", workers: 2, first, last, rate: 2.0, fails }
    };
    vec![
        run("v1", 0, 2 * HOUR, 0.02),
        run("v2", HOUR, 6 * HOUR, 0.02),
        run("v3", 4 * HOUR, 4 * HOUR + HOUR / 2, 0.2),
    ]
}

struct Setup {
    directory: TempDir,
    begin: u64,
}

impl Setup {
    fn new(url: &str, begin: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "listen": "127.0.0.1:0",
            "prometheus": { "url": url, "retries": 0 },
            "rule_files": ["rules.yml"],
            "ledger": "sqlite:rollbackd.db",
            "signing_key_file": "rollbackd.key",
            "fleets": [{
                "name": "voice",
                "by": ["fleet"],
                // Nothing may be done live; a backtest says what would be.
                "mode": "observe",
                "observe_for": "30m",
                "history": "1h",
                "workers": "worker_info",
                "live": "sessions_live",
                "drain": { "manifest": {} },
            }],
        });
        let rules = json!({ "groups": [{
            "name": "sessions", "fleet": "voice", "interval": "15s",
            "regressions": [{
                "name": "SessionsFailing",
                "started": "sessions_started_total",
                "failed": "sessions_failed_total",
                "live": "sessions_live",
                "ceiling": "5%",
                "tolerance": "1.5x",
            }],
        }] });
        let setup = Self { directory, begin };
        setup.write("rollbackd.yml", &config.to_string());
        setup.write("rules.yml", &rules.to_string());
        setup
    }

    /// The same rules, by which what one agent or tenant fails alone is narrow.
    fn narrow(self) -> Self {
        let rules = std::fs::read_to_string(self.path().join("rules.yml")).unwrap();
        let mut rules: Value = serde_json::from_str(&rules).unwrap();
        rules["groups"][0]["regressions"][0]["narrow_by"] = json!(["agent", "tenant"]);
        self.write("rules.yml", &rules.to_string());
        self
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn backtest(&self, more: &[&str]) -> Output {
        let (from, to) = (self.begin.to_string(), (self.begin + 6 * 3600).to_string());
        let range = ["backtest", "--from", &from, "--to", &to];
        self.run(&range.iter().chain(more).copied().collect::<Vec<_>>()).await
    }

    async fn run(&self, args: &[&str]) -> Output {
        let ran =
            tokio::process::Command::new(ROLLBACKD).current_dir(self.path()).args(args).output();
        ran.await.unwrap()
    }
}

fn document(output: &Output) -> Value {
    assert!(!output.stdout.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn prometheus(begin: u64, fleets: &[&str], options: &[&str]) -> Prometheus {
    let runs: Vec<Run> = fleets.iter().flat_map(|fleet| runs(fleet)).collect();
    Prometheus::with_history(|file| history::write(file, begin, &runs), options).await
}

#[tokio::test]
async fn every_rollout_is_found_and_decided_as_it_would_have_been() {
    let begin = begin();
    let server = prometheus(begin, &["eu", "us"], &[]).await;
    let setup = Setup::new(&server.url, begin);
    setup.write("known.yml", "versions:\n- {version: v3, verdict: bad, note: INC-7}\n");

    let ran =
        setup.backtest(&["--format", "json", "--known", "known.yml", "--html", "page.html"]).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let found = document(&ran);
    let rollouts = found["rollouts"].as_array().unwrap();
    let ends: Vec<[&str; 4]> = rollouts
        .iter()
        .map(|r| ["fleet", "candidate", "baseline", "end"].map(|key| r[key].as_str().unwrap()))
        .collect();
    let mut want = Vec::new();
    for fleet in ["voice:eu", "voice:us"] {
        want.push([fleet, "v2", "v1", "promoted"]);
        want.push([fleet, "v3", "v2", "rolled back"]);
    }
    want.sort_unstable_by_key(|row| (row[1], row[0]));
    assert_eq!(ends, want, "{found:#}");
    for bad in rollouts.iter().filter(|rollout| rollout["candidate"] == "v3") {
        let after = &bad["afterwards"];
        let count = |key: &str| after[key].as_u64().unwrap();
        // A fifth of 2 sessions a second for most of half an hour, of which one in fifty is usual.
        assert!((200..800).contains(&count("saved")), "{bad:#}");
        assert!(count("saved") < count("failed"), "{bad:#}");
        assert_eq!(bad["opinion"], "right");
        let decision = bad["decisions"].as_array().unwrap().last().unwrap();
        assert_eq!(decision["decision"], "roll_back");
        assert!(decision["text"].as_str().unwrap().contains("sessions/SessionsFailing"));
    }

    let page = std::fs::read_to_string(setup.path().join("page.html")).unwrap();
    for part in ["voice:eu", "v3 rolled back", "convicting", "INC-7", "prefers-color-scheme:dark"] {
        assert!(page.contains(part), "{part} is missing");
    }
    for outside in ["http://", "https://", "src=", "@import"] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "the page needs {outside}");
    }

    setup.write(
        "known.yml",
        "versions:\n- {version: v3, verdict: good}\n- {version: v9, verdict: bad}\n",
    );
    let ran = setup.backtest(&["--known", "known.yml"]).await;
    let out = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{out}");
    assert!(out.contains("[known to be good: false]"), "{out}");
    assert!(out.contains("of 2 with a label: 0 right, 2 false rollbacks, 0 missed"), "{out}");
    assert!(out.contains("labels without a rollout: v9"), "{out}");
}

#[tokio::test]
async fn many_fleets_that_regress_at_once_are_held_back_as_they_would_have_been() {
    let begin = begin();
    let server = prometheus(begin, &["f1", "f2", "f3", "f4", "f5"], &[]).await;
    let ran = Setup::new(&server.url, begin).backtest(&["--format", "json"]).await;
    let found = document(&ran);
    let bad = || found["rollouts"].as_array().unwrap().iter().filter(|r| r["candidate"] == "v3");
    let rolled_back = bad().filter(|rollout| rollout["end"] == "rolled back").count();
    let held_back = bad()
        .filter(|rollout| rollout["decisions"].to_string().contains("many fleets regress at once"));
    assert!(rolled_back <= 3 && rolled_back + held_back.count() == 5, "{found:#}");
}

#[tokio::test]
async fn a_server_that_limits_samples_is_asked_for_less_until_it_answers() {
    let begin = begin();
    let whole = prometheus(begin, &["eu"], &[]).await;
    let want = document(&Setup::new(&whole.url, begin).backtest(&["--format", "json"]).await);
    // A part of 1,440 looks at two workers is several thousand samples.
    let narrow = prometheus(begin, &["eu"], &["--query.max-samples=2500"]).await;
    let found = document(&Setup::new(&narrow.url, begin).backtest(&["--format", "json"]).await);
    assert_eq!(found["partial"], false, "{found:#}");
    assert_eq!(found["rollouts"], want["rollouts"]);

    let shut = prometheus(begin, &["eu"], &["--query.max-samples=1"]).await;
    let ran = Setup::new(&shut.url, begin).backtest(&[]).await;
    assert_eq!(ran.status.code(), Some(2));
    let error = text(&ran.stderr);
    assert!(
        error.contains("nothing could be replayed") && error.contains("too many samples"),
        "{error}"
    );
}

/// v1 serves two tenants. v2 fails most of what tenant b's few sessions are; v3 fails for both.
fn runs_by_tenant() -> Vec<Run> {
    let run = |version, tenant, first, last, rate, fails| {
        let fleet = "eu".to_owned();
        Run { fleet, version, tenant, workers: 1, first, last, rate, fails }
    };
    vec![
        run("v1", "a", 0, 6 * HOUR, 2.0, 0.01),
        run("v1", "b", 0, 6 * HOUR, 0.5, 0.01),
        run("v2", "a", 2 * HOUR, 2 * HOUR + HOUR / 3, 2.0, 0.01),
        run("v2", "b", 2 * HOUR, 2 * HOUR + HOUR / 3, 0.5, 0.6),
        run("v3", "a", 4 * HOUR, 4 * HOUR + HOUR / 3, 2.0, 0.2),
        run("v3", "b", 4 * HOUR, 4 * HOUR + HOUR / 3, 0.5, 0.6),
    ]
}

/// What was told of a version, last, and with which slice.
fn told(found: &Value, version: &str) -> (String, Value) {
    let mut rollouts = found["rollouts"].as_array().unwrap().iter();
    let rollout = rollouts.find(|rollout| rollout["candidate"] == version).unwrap();
    let last = rollout["decisions"].as_array().unwrap().last().unwrap();
    (last["decision"].as_str().unwrap().to_owned(), last["slice"].clone())
}

#[tokio::test]
async fn what_one_tenant_alone_fails_is_narrow_as_it_is_for_run() {
    let begin = begin();
    let runs = runs_by_tenant();
    let server = Prometheus::with_history(|file| history::write(file, begin, &runs), &[]).await;
    let setup = Setup::new(&server.url, begin).narrow();
    let found = document(&setup.backtest(&["--format", "json"]).await);
    let b = json!({ "label": "tenant", "value": "b" });
    assert_eq!(told(&found, "v2"), ("fix_forward".to_owned(), b), "{found:#}");
    assert_eq!(told(&found, "v3"), ("roll_back".to_owned(), Value::Null), "{found:#}");
    let ends: Vec<_> = found["rollouts"].as_array().unwrap().iter().map(|r| &r["end"]).collect();
    assert_eq!(ends, ["gone", "rolled back"], "{found:#}");
    assert_eq!(found["partial"], false);
    let ran = setup.backtest(&[]).await;
    let out = text(&ran.stdout);
    assert!(out.contains("tenant b holds") && out.contains("the rest: "), "{out}");
    assert!(out.contains("1 rollout with a slice that fails alone"), "{out}");

    // Without `narrow_by` it is the version as a whole.
    let wide = Setup::new(&server.url, begin);
    let found = document(&wide.backtest(&["--format", "json"]).await);
    assert_eq!(told(&found, "v2").0, "roll_back");

    // The server answers all but what is asked by slice.
    let deaf = refuses(&server.url, "tenant").await;
    let setup = Setup::new(&deaf, begin).narrow();
    let ran = setup.backtest(&[]).await;
    let out = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    assert!(out.contains("v2 after v1") && out.contains("rolled back after"), "{out}");
    let partial = "PARTIAL: the slices of v2 of voice:eu could not be had, and what it fails";
    assert!(out.contains(partial) && out.contains("422"), "{out}");
}

#[tokio::test]
async fn slices_are_asked_for_in_as_many_parts_as_the_server_answers() {
    let begin = begin();
    let runs = runs_by_tenant();
    let write = |file: &mut std::fs::File| history::write(file, begin, &runs);
    let whole = Prometheus::with_history(write, &[]).await;
    let want = Setup::new(&whole.url, begin).narrow().backtest(&["--format", "json"]).await;
    let narrow = Prometheus::with_history(write, &["--query.max-samples=1200"]).await;
    let found = Setup::new(&narrow.url, begin).narrow().backtest(&["--format", "json"]).await;
    let (found, want) = (document(&found), document(&want));
    assert_eq!(found["partial"], false, "{found:#}");
    assert_eq!(found["rollouts"], want["rollouts"]);
}

/// Passes on to a Prometheus, but for queries that name a label.
async fn refuses(url: &str, label: &'static str) -> String {
    type Door = (reqwest::Client, String, &'static str);
    async fn pass(
        State((client, url, label)): State<Door>,
        uri: axum::http::Uri,
        body: Bytes,
    ) -> Result<Bytes, StatusCode> {
        if String::from_utf8_lossy(&body).contains(label) {
            return Err(StatusCode::UNPROCESSABLE_ENTITY);
        }
        ask(&client, &format!("{url}{}", uri.path()), body).await
    }
    serve(Router::new().fallback(pass).with_state((client(), url.to_owned(), label))).await
}

async fn ask(client: &reqwest::Client, url: &str, body: Bytes) -> Result<Bytes, StatusCode> {
    let asked =
        client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = asked.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    answer.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// Passes on to a Prometheus until it has answered so often.
async fn leaves_after(url: &str, answers: u32) -> String {
    type Door = (reqwest::Client, String, Arc<AtomicU32>);
    async fn pass(
        State((client, url, left)): State<Door>,
        uri: axum::http::Uri,
        body: Bytes,
    ) -> Result<Bytes, StatusCode> {
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        taken.map_err(|_| StatusCode::BAD_GATEWAY)?;
        let asked = client
            .post(format!("{url}{}", uri.path()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let answer = asked.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
        answer.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)
    }
    let door: Door = (client(), url.to_owned(), Arc::new(AtomicU32::new(answers)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(pass).with_state(door);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

#[tokio::test]
async fn what_was_replayed_before_prometheus_went_away_is_kept_and_marked_as_partial() {
    let begin = begin();
    let server = prometheus(begin, &["eu"], &[]).await;
    // The first part takes 8 answers of 9, and the pasts of two rollouts 5 each.
    let leaving = leaves_after(&server.url, 9 + 10).await;
    let setup = Setup::new(&leaving, begin);
    let whole = begin.to_string();
    let to = (begin + 6 * 3600 + 1800).to_string();
    let range = ["backtest", "--from", &whole, "--to", &to, "--html", "page.html"];
    let ran = setup.run(&range).await;
    let out = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    assert!(out.contains("v3 after v2") && out.contains("rolled back after"), "{out}");
    assert!(out.contains("PARTIAL: voice was replayed only until"), "{out}");
    assert!(out.contains("502 Bad Gateway"), "{out}");
    let page = std::fs::read_to_string(setup.path().join("page.html")).unwrap();
    assert!(page.contains("class=\"partial\""));
}

#[tokio::test]
async fn a_time_without_data_and_other_bad_input_is_told_as_it_is() {
    let begin = begin();
    let server = prometheus(begin, &["eu"], &[]).await;
    let setup = Setup::new(&server.url, begin);
    setup.write("known.yml", "versions:\n- {version: v3, verdict: fine}\n");
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&["--from", "-30d", "--to", "-29d"],          "no worker of voice was seen from"),
        (&["--from", "-1h", "--to", "-2h"],            "--to must come after --from"),
        (&["--from", "-1h", "--fleet", "chat"],        "the config has no fleet `chat`"),
        (&["--from", "-1h", "--known", "known.yml"],   "known.yml:2:26: versions[0].verdict: expected `good` or `bad`, found `fine`"),
        (&["--from", "-1h", "--known", "no.yml"],      "no.yml: failed to read: "),
        (&["--from", "soon"],                          "expected RFC 3339 with its zone, Unix seconds"),
    ];
    for (args, want) in cases {
        let ran = setup.run(&[&["backtest"], *args].concat()).await;
        let error = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(want), "{args:?}: {error}");
    }
}
