//! A made-up fleet inside the test, fast and exact, around the real `rollbackd`.
//!
//! ```text
//! calls ─► hosts (a slot for one worker each) ─ /metrics ─► Prometheus ─► rollbackd
//!            ▲  ▲── manifest: drain ──────────────────────────────────────── │
//!            └───── a file for each start request ◄── start command ◄────────┘
//! ```
//!
//! Hosts stay targets when their worker has gone, so that nothing waits for service discovery.
//! Workers drain by the manifest, to the last call. No call is ever cut by the fleet itself, so a
//! caller who is turned away met a fleet that rollbackd had drained too early.

use std::fmt::Write;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use rollbackd::adapters::ledger::SqliteLedger;
use rollbackd::ledger::record::Record;
use rollbackd::ports::ledger::Ledger;

use super::fleet::{ROLLBACKD, SECRET, rollbackd};
use super::{client, free_address, signal, wait_for};

/// How long things may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

const HOSTS: usize = 4;
const PULSE: Duration = Duration::from_millis(20);
/// A call's length in pulses.
const CALL_PULSES: u64 = 40;
/// Of a bad version's calls.
const FAIL_SHARE: f64 = 0.6;

/// What a worker counts.
#[derive(Clone, Debug, Default)]
struct Worker {
    version: String,
    started: u64,
    failed: u64,
    /// When each live call ends, in pulses.
    live: Vec<u64>,
    draining: bool,
}

/// What callers met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Callers {
    pub(crate) served: u64,
    /// No worker took the call.
    pub(crate) turned_away: u64,
}

#[derive(Debug, Default)]
struct World {
    name: String,
    pulse: u64,
    hosts: [Option<Worker>; HOSTS],
    /// The version that new calls prefer.
    newest: String,
    calling: bool,
    /// Whether versions called bad fail calls.
    failing: bool,
    callers: Callers,
}

impl World {
    fn count(&self, version: &str) -> usize {
        self.hosts.iter().flatten().filter(|worker| worker.version == version).count()
    }

    /// Starts what is missing; whether so many are there that do not drain.
    fn start(&mut self, version: &str, count: usize) -> bool {
        let able = |worker: &&Worker| worker.version == version && !worker.draining;
        while self.hosts.iter().flatten().filter(able).count() < count {
            let Some(host) = self.hosts.iter_mut().find(|host| host.is_none()) else {
                return false;
            };
            *host = Some(Worker { version: version.to_owned(), ..Worker::default() });
        }
        true
    }

    fn drain(&mut self, version: &str) {
        let workers = self.hosts.iter_mut().flatten();
        workers.filter(|w| w.version == version).for_each(|w| w.draining = true);
    }

    fn step(&mut self) {
        self.pulse += 1;
        let now = self.pulse;
        for host in &mut self.hosts {
            let Some(worker) = host else { continue };
            worker.live.retain(|end| *end > now);
            if worker.draining && worker.live.is_empty() {
                *host = None;
            }
        }
        if self.calling {
            self.call(now);
        }
    }

    /// One call for the newest version that takes any, to its least busy worker.
    fn call(&mut self, now: u64) {
        let (newest, failing) = (self.newest.clone(), self.failing);
        let taking = self.hosts.iter_mut().flatten().filter(|worker| !worker.draining);
        let chosen = taking.min_by_key(|w| (w.version != newest, w.live.len()));
        let Some(worker) = chosen else {
            self.callers.turned_away += 1;
            return;
        };
        self.callers.served += 1;
        worker.started += 1;
        // Spread evenly, so that every run is alike.
        let fails = |n: u64| (n as f64 * FAIL_SHARE).fract() < FAIL_SHARE;
        if failing && worker.version.starts_with("bad") && fails(worker.started) {
            worker.failed += 1;
        } else {
            worker.live.push(now + CALL_PULSES);
        }
    }

    fn metrics(&self, host: usize) -> String {
        let Some(Some(worker)) = self.hosts.get(host) else { return String::new() };
        let labels =
            format!("{{site=\"{}\",deployment_version=\"{}\"}}", self.name, worker.version);
        let mut text = String::new();
        for (name, value) in [
            ("worker_info", 1),
            ("worker_draining", u64::from(worker.draining)),
            ("sessions_started_total", worker.started),
            ("sessions_failed_total", worker.failed),
            ("sessions_live", worker.live.len() as u64),
        ] {
            writeln!(text, "{name}{labels} {value}").unwrap();
        }
        text
    }
}

/// The fleet and its controller.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    /// What Prometheus has to scrape.
    pub(crate) targets: Vec<SocketAddr>,
    directory: TempDir,
    ledger: PathBuf,
    /// What the controller is started with, and by.
    wrapper: &'static [&'static str],
    world: Arc<Mutex<World>>,
    controller: Option<Child>,
    tasks: Vec<JoinHandle<()>>,
}

impl Site {
    /// A fleet without workers or calls, and no controller yet.
    pub(crate) async fn prepare(name: &str, prometheus: &str) -> Self {
        Self::prepare_on(name, prometheus, PathBuf::from("rollbackd.db")).await
    }

    /// The same, with the ledger somewhere else.
    pub(crate) async fn prepare_on(name: &str, prometheus: &str, ledger: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir(path.join("starts")).unwrap();
        let address = free_address();
        write_config(path, name, address, prometheus, &ledger);
        let made = rollbackd(path, &["keygen", "rollbackd.key"]);
        assert!(made.status.success(), "{made:?}");
        let world = World { name: name.to_owned(), failing: true, ..World::default() };
        let world = Arc::new(Mutex::new(world));
        let ledger = path.join(ledger);
        let mut tasks = Vec::new();
        let mut targets = Vec::new();
        for host in 0..HOSTS {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            targets.push(listener.local_addr().unwrap());
            let show =
                async move |State(world): State<Arc<Mutex<World>>>| locked(&world).metrics(host);
            let app = Router::new().route("/metrics", get(show)).with_state(world.clone());
            tasks.push(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
        }
        tasks.push(tokio::spawn(live(world.clone(), path.join("starts"))));
        tasks.push(tokio::spawn(follow_manifest(world.clone(), address)));
        Self { address, targets, directory, ledger, wrapper: &[], world, controller: None, tasks }
    }

    /// With a controller that watches two workers of v1 taking calls and knows v1 as good.
    pub(crate) async fn serve_on_v1(&mut self) {
        {
            let mut world = self.world();
            world.start("v1", 2);
            "v1".clone_into(&mut world.newest);
            world.calling = true;
        }
        self.start_controller();
        self.until("v1 to be the last good", |fleet| fleet["last_good"] == "v1").await;
    }

    /// Two workers of a new version take all new calls; all others drain, as in any cutover.
    pub(crate) fn deploy(&self, version: &str) {
        let mut world = self.world();
        world.start(version, 2);
        version.clone_into(&mut world.newest);
        for worker in world.hosts.iter_mut().flatten() {
            worker.draining |= worker.version != version;
        }
    }

    /// Whether versions called bad fail their calls, which they do from the beginning.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.world().failing = failing;
    }

    /// From its next start, the controller has one core, which nobody else is kept from.
    pub(crate) fn run_on_one_core(&mut self) {
        self.wrapper = &["taskset", "--cpu-list", "0"];
    }

    pub(crate) fn callers(&self) -> Callers {
        self.world().callers
    }

    /// How many workers of a version there are.
    pub(crate) fn workers(&self, version: &str) -> usize {
        self.world().count(version)
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        locked(&self.world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the controller, for the first time or again; waits for nothing.
    pub(crate) fn start_controller(&mut self) {
        self.start_controller_with(&[]);
    }

    /// The same, with further options.
    pub(crate) fn start_controller_with(&mut self, options: &[&str]) {
        let log = File::options().create(true).append(true).open(self.path("log"));
        let mut words = [self.wrapper, &[ROLLBACKD, "run"], options].concat().into_iter();
        let child = Command::new(words.next().unwrap())
            .args(words)
            .arg("--config")
            .arg(self.path("rollbackd.yml"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.controller = Some(child.unwrap());
    }

    /// SIGTERM, to the end.
    pub(crate) fn stop_controller(&mut self) {
        let mut controller = self.controller.take().unwrap();
        signal(controller.id(), "TERM");
        controller.wait().unwrap();
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill_controller(&mut self) {
        let mut controller = self.controller.take().unwrap();
        controller.kill().unwrap();
        controller.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        let answer = client().get(format!("http://{}/{path}", self.address)).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// The fleet as the API shows it.
    pub(crate) async fn view(&self) -> Option<Value> {
        serde_json::from_str(&self.get("api/v1/fleets/voice").await?).ok()
    }

    /// Waits for something to show in the fleet's view.
    pub(crate) async fn until(&self, what: &str, shows: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, PATIENCE, || async { self.view().await.filter(&shows) }).await
    }

    /// The sum of one of rollbackd's own metrics over its labels that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("metrics").await.unwrap_or_default();
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let found = series.split('{').next() == Some(name) && series.contains(label);
            found.then(|| value.parse::<f64>().ok()).flatten()
        };
        text.lines().filter_map(of).sum()
    }

    /// A reader of the ledger, which is there once the controller has begun it.
    pub(crate) async fn ledger(&self) -> SqliteLedger {
        wait_for("the ledger", PATIENCE, || async {
            SqliteLedger::open_read_only(&self.ledger).await.ok()
        })
        .await
    }

    /// All records after one, from the database itself.
    pub(crate) async fn records(&self, after: u64) -> Vec<Record> {
        let ledger = self.ledger().await;
        let records = ledger.read(after, 10_000).await.unwrap();
        ledger.close().await;
        records
    }

    pub(crate) fn audit(&self) -> std::process::Output {
        let ledger = self.ledger.to_str().unwrap();
        let words = ["audit", "verify", "--ledger", ledger, "--key", "rollbackd.key.pub"];
        rollbackd(self.directory.path(), &words)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rollbackd said:\n{}", self.log());
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        if self.controller.is_some() {
            self.kill_controller();
        }
    }
}

fn locked(world: &Mutex<World>) -> std::sync::MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls come and end, and what was asked for starts.
async fn live(world: Arc<Mutex<World>>, starts: PathBuf) {
    let mut pulse = tokio::time::interval(PULSE);
    loop {
        pulse.tick().await;
        let mut world = locked(&world);
        world.step();
        for request in std::fs::read_dir(&starts).unwrap().flatten() {
            let text = std::fs::read_to_string(request.path()).unwrap();
            let (version, count) = text.trim_end().split_once(' ').unwrap();
            // Those that drain hold their hosts for a while; the request waits.
            if world.start(version, count.parse().unwrap()) {
                version.clone_into(&mut world.newest);
                std::fs::remove_file(request.path()).unwrap();
            }
        }
    }
}

/// Workers do what the manifest says; without an answer, they go on.
async fn follow_manifest(world: Arc<Mutex<World>>, address: SocketAddr) {
    let mut pulse = tokio::time::interval(5 * PULSE);
    let url = format!("http://{address}/api/v1/fleets/voice/manifest");
    let client = client();
    loop {
        pulse.tick().await;
        let Ok(answer) = client.get(&url).send().await else { continue };
        let Ok(answer) = answer.json::<Value>().await else { continue };
        let draining = answer["manifest"]["draining"].as_array().cloned().unwrap_or_default();
        for version in draining {
            locked(&world).drain(version.as_str().unwrap());
        }
    }
}

fn write_config(
    directory: &Path,
    site: &str,
    address: SocketAddr,
    prometheus: &str,
    ledger: &Path,
) {
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    let of_site = |metric: &str| format!("{metric}{{site=\"{site}\"}}");
    // Moved into place whole: nobody reads half a request.
    let script = r#"printf '%s %s\n' "$1" "$2" >"$0.new" && mv "$0.new" "$0/$1""#;
    let start = ["sh", "-c", script, directory.join("starts").to_str().unwrap()]
        .map(str::to_owned)
        .into_iter()
        .chain(["{{version}}", "{{count}}"].map(str::to_owned));
    let fleet = json!({
        "name": "voice",
        "observe_for": "10m",
        "history": "10m",
        "workers": of_site("worker_info"),
        "draining": of_site("worker_draining"),
        "live": of_site("sessions_live"),
        "start": { "command": start.collect::<Vec<_>>() },
        "drain": { "manifest": {} },
        "membership": { "secret_files": ["membership.secret"] },
        "limits": { "rollbacks": 100, "per": "24h" },
    });
    // JSON is YAML.
    let config = json!({
        "listen": address,
        "prometheus": { "url": prometheus, "timeout": "2s", "retries": 0 },
        "rule_files": ["rules.yml"],
        "ledger": format!("sqlite:{}", ledger.display()),
        "signing_key_file": "rollbackd.key",
        "fleets": [fleet],
    });
    write("rollbackd.yml", &config.to_string());
    let rule = json!({
        "name": "SessionsFailing",
        "started": of_site("sessions_started_total"),
        "failed": of_site("sessions_failed_total"),
        "live": of_site("sessions_live"),
        "ceiling": "5%",
        "tolerance": "1.5x",
    });
    let group =
        json!({ "name": "sessions", "fleet": "voice", "interval": "1s", "regressions": [rule] });
    write("membership.secret", SECRET);
    write("rules.yml", &json!({ "groups": [group] }).to_string());
}
