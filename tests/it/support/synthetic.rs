//! A fleet of made-up workers that count by the clock, a Prometheus that scrapes them, and the
//! `rollbackd` binary. Faster to begin and to fail than real workers; who needs those takes
//! [`super::fleet`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fleet::{ROLLBACKD, rollbackd};
use super::prometheus::{Prometheus, list_in};
use super::{client, free_address, signal, wait_for};

/// Sessions a worker has in progress while it serves.
const LIVE: f64 = 40.0;

/// What tests want different.
pub(crate) struct Setup {
    pub(crate) mode: &'static str,
    pub(crate) observe_for: &'static str,
    /// How long a draining worker's sessions take to end.
    pub(crate) drains_in: Duration,
    /// Further keys of the config.
    pub(crate) further: serde_json::Map<String, Value>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mode: "automatic",
            observe_for: "2m",
            drains_in: Duration::from_secs(6),
            further: serde_json::Map::new(),
        }
    }
}

/// One made-up worker.
struct Worker {
    version: String,
    address: SocketAddr,
    state: Arc<Mutex<WorkerState>>,
    serving: JoinHandle<()>,
}

struct WorkerState {
    began: Instant,
    /// Sessions a second.
    pace: f64,
    fails: f64,
    draining: Option<Instant>,
    drains_in: Duration,
}

impl WorkerState {
    /// The share of its sessions still in progress.
    fn left(&self) -> f64 {
        self.draining.map_or(1.0, |since| {
            (1.0 - since.elapsed().as_secs_f64() / self.drains_in.as_secs_f64()).max(0.0)
        })
    }

    fn exposition(&self, version: &str) -> String {
        let served = self.draining.map_or_else(|| self.began.elapsed(), |at| at - self.began);
        let started = (self.pace * served.as_secs_f64()).floor();
        let version = version.replace('"', "\\\"");
        let labels = format!("{{deployment_version=\"{version}\"}}");
        let draining = u8::from(self.draining.is_some());
        let mut text = String::new();
        for (name, value) in [
            ("worker_info", 1.0),
            ("worker_draining", f64::from(draining)),
            ("sessions_started_total", started),
            ("sessions_failed_total", (started * self.fails).floor()),
            ("sessions_live", (LIVE * self.left()).ceil()),
        ] {
            writeln!(text, "{name}{labels} {value}").unwrap();
        }
        text
    }
}

/// Everything around one fleet, `voice`.
pub(crate) struct Synthetic {
    pub(crate) address: SocketAddr,
    pub(crate) controller: Child,
    directory: TempDir,
    _prometheus: Prometheus,
    workers: Arc<Mutex<Vec<Worker>>>,
    platform: JoinHandle<()>,
}

impl Synthetic {
    /// Two workers of `v1`, known as good.
    pub(crate) async fn serving_on_v1(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let prometheus = Prometheus::start().await;
        let address = free_address();
        write_config(directory.path(), address, &prometheus.url, &setup);
        let made = rollbackd(directory.path(), &["keygen", "rollbackd.key"]);
        assert!(made.status.success(), "{made:?}");
        let workers = Arc::<Mutex<Vec<Worker>>>::default();
        let platform = tokio::spawn(play_platform(
            directory.path().to_owned(),
            prometheus.directory(),
            address,
            Arc::clone(&workers),
            setup.drains_in,
        ));
        let log = File::create(directory.path().join("log")).unwrap();
        let controller = Command::new(ROLLBACKD)
            .args(["run", "--config"])
            .arg(directory.path().join("rollbackd.yml"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let fleet =
            Self { address, controller, directory, _prometheus: prometheus, workers, platform };
        fleet.add("v1", 0.01).await;
        fleet.add("v1", 0.01).await;
        fleet.until("v1 to be the last good", |view| view["last_good"] == "v1").await;
        fleet
    }

    /// One more worker, of whose sessions this share fails.
    pub(crate) async fn add(&self, version: &str, fails: f64) {
        add(&self.workers, version, fails, Duration::from_secs(6)).await;
    }

    /// A version's workers take no new session, as in any cut-over, and leave.
    pub(crate) fn drain(&self, version: &str) {
        let workers = self.workers.lock().unwrap();
        for worker in workers.iter().filter(|worker| worker.version == version) {
            worker.state.lock().unwrap().draining = Some(Instant::now());
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A GET's body as JSON, if it is good.
    pub(crate) async fn json(&self, path: &str) -> Option<Value> {
        let answer = client().get(self.url(path)).send().await.ok()?;
        serde_json::from_str(&answer.error_for_status().ok()?.text().await.ok()?).ok()
    }

    /// Waits for something to show in the fleet's view.
    pub(crate) async fn until(&self, what: &str, shows: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, Duration::from_mins(2), || async {
            self.json("/api/v1/fleets/voice").await.filter(|view| shows(view))
        })
        .await
    }

    /// All records.
    pub(crate) async fn records(&self) -> Vec<Value> {
        let answer = client().get(self.url("/api/v1/ledger?limit=10000")).send().await.unwrap();
        let text = answer.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a record of this event.
    pub(crate) async fn until_recorded(&self, event: &str) -> Value {
        wait_for(event, Duration::from_mins(2), || async {
            self.records().await.into_iter().find(|record| record["event"] == event)
        })
        .await
    }
}

impl Drop for Synthetic {
    fn drop(&mut self) {
        self.platform.abort();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            eprintln!("rollbackd said:\n{log}");
        }
        signal(self.controller.id(), "KILL");
        self.controller.wait().unwrap();
        for worker in self.workers.lock().unwrap().iter() {
            worker.serving.abort();
        }
    }
}

async fn add(workers: &Mutex<Vec<Worker>>, version: &str, fails: f64, drains_in: Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(WorkerState {
        began: Instant::now(),
        pace: 12.0,
        fails,
        draining: None,
        drains_in,
    }));
    let (shown, label) = (Arc::clone(&state), version.to_owned());
    let metrics = get(async move || shown.lock().unwrap().exposition(&label));
    let app = Router::new().route("/metrics", metrics);
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let worker = Worker { version: version.to_owned(), address, state, serving };
    workers.lock().unwrap().push(worker);
}

/// Does what a platform does: starts workers when asked, lets those drain that the manifest names,
/// and tells Prometheus who is there.
async fn play_platform(
    directory: PathBuf,
    prometheus: PathBuf,
    controller: SocketAddr,
    workers: Arc<Mutex<Vec<Worker>>>,
    drains_in: Duration,
) {
    let mut pulse = tokio::time::interval(Duration::from_millis(200));
    let mut known = BTreeSet::new();
    loop {
        pulse.tick().await;
        for version in asked_for(&directory) {
            add(&workers, &version, 0.01, drains_in).await;
            add(&workers, &version, 0.01, drains_in).await;
        }
        let manifest =
            client().get(format!("http://{controller}/api/v1/fleets/voice/manifest")).send().await;
        let manifest = match manifest {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let manifest: Value = serde_json::from_str(&manifest).unwrap_or_default();
        let draining = manifest["manifest"]["draining"].as_array().cloned().unwrap_or_default();
        let mut workers = workers.lock().unwrap();
        for worker in workers.iter() {
            let mut state = worker.state.lock().unwrap();
            if draining.iter().any(|version| *version == worker.version) {
                state.drains_in = drains_in;
                state.draining.get_or_insert_with(Instant::now);
            }
        }
        workers.retain(|worker| worker.state.lock().unwrap().left() > 0.0);
        let targets: BTreeSet<String> =
            workers.iter().map(|worker| worker.address.to_string()).collect();
        if targets != known {
            list_in(&prometheus, &targets);
            known = targets;
        }
    }
}

/// The versions whose workers the start command has asked for since.
fn asked_for(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let asked = entries.filter_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("start-")?.to_owned();
        std::fs::remove_file(entry.path()).ok()?;
        Some(version)
    });
    asked.collect()
}

fn write_config(directory: &Path, address: SocketAddr, prometheus: &str, setup: &Setup) {
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    let start = directory.join("start-{{version}}");
    let fleet = json!({
        "name": "voice",
        "mode": setup.mode,
        "observe_for": setup.observe_for,
        "history": setup.observe_for,
        "workers": "worker_info",
        "draining": "worker_draining",
        "live": "sessions_live",
        "start": { "command": ["touch", start] },
        "drain": { "manifest": {} },
        "membership": { "secret_files": ["membership.secret"] },
    });
    // JSON is YAML.
    let mut config = json!({
        "listen": address,
        "prometheus": { "url": prometheus, "timeout": "5s" },
        "rule_files": ["rules.yml"],
        "ledger": "sqlite:rollbackd.db",
        "signing_key_file": "rollbackd.key",
        "fleets": [fleet],
    });
    config.as_object_mut().unwrap().extend(setup.further.clone());
    write("rollbackd.yml", &config.to_string());
    let rule = json!({
        "name": "SessionsFailing",
        "started": "sessions_started_total",
        "failed": "sessions_failed_total",
        "live": "sessions_live",
        "ceiling": "5%",
        "tolerance": "1.5x",
        "annotations": { "runbook_url": "https://runbooks.example.org/{{fleet}}/{{version}}" },
    });
    let group =
        json!({ "name": "sessions", "fleet": "voice", "interval": "1s", "regressions": [rule] });
    write("rules.yml", &json!({ "groups": [group] }).to_string());
    write("membership.secret", "a secret of the tests");
}
