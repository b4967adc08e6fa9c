//! A fleet of real workers with calls, a Prometheus that scrapes them, and the `rollbackd` binary.
//!
//! **Invariant:** every process that names the fleet's directory is killed when it is dropped,
//! also what rollbackd has started.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::prometheus::{Prometheus, list_in};
use super::{client, free_address, signal, wait_for};

/// The command under test.
pub(crate) const ROLLBACKD: &str = env!("CARGO_BIN_EXE_rollbackd");
/// What workers and controller share.
pub(crate) const SECRET: &str = "a secret of the tests";

/// What tests want different.
pub(crate) struct Setup {
    pub(crate) interval: &'static str,
    pub(crate) observe_for: &'static str,
    pub(crate) history: &'static str,
    /// A drain is accepted when there is a file `drain`, and not before.
    pub(crate) drain_held: bool,
    /// Further options of v2's workers.
    pub(crate) v2: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            interval: "2s",
            observe_for: "5m",
            history: "5m",
            drain_held: false,
            v2: &["--fail-setup", "0.6"],
        }
    }
}

pub(crate) struct Fleet {
    pub(crate) prometheus: Prometheus,
    pub(crate) address: SocketAddr,
    directory: TempDir,
    /// What the controllers started from now on log.
    pub(crate) log_level: &'static str,
    controller: Option<Child>,
    targets: JoinHandle<()>,
}

/// The interpreter that has the integration installed.
pub(crate) fn python() -> String {
    let python = std::env::var("ROLLBACKD_PYTHON");
    assert!(python.is_ok(), "ROLLBACKD_PYTHON is not set: run the tests by `make test`");
    python.unwrap()
}

impl Fleet {
    /// Without workers yet, and without a controller.
    pub(crate) async fn prepare(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let prometheus = Prometheus::start().await;
        let address = free_address();
        let path = directory.path();
        for name in ["workers", "records", "log"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        write_config(path, address, &prometheus.url, &setup);
        let made = rollbackd(path, &["keygen", "rollbackd.key"]);
        assert!(made.status.success(), "{made:?}");
        let (workers, scraped) = (path.join("workers"), prometheus.directory());
        let targets = tokio::spawn(async move { keep_targets(&workers, &scraped).await });
        Self { prometheus, address, directory, log_level: "info", controller: None, targets }
    }

    /// With a controller that watches two workers of v1 taking calls and knows v1 as good.
    pub(crate) async fn serving_on_v1(setup: Setup) -> (Self, Dispatcher) {
        let mut fleet = Self::prepare(setup).await;
        let calls = fleet.serve_on_v1().await;
        (fleet, calls)
    }

    /// Starts the controller, two workers of v1 and calls, until it knows v1 as good.
    pub(crate) async fn serve_on_v1(&mut self) -> Dispatcher {
        self.start_controller().await;
        self.start_workers("v1").await;
        let calls = self.dispatch();
        self.until("v1 to be the last good", |fleet| fleet["last_good"] == "v1").await;
        calls
    }

    /// Two workers of v2 take all new calls; those of v1 drain, as in any cutover.
    pub(crate) async fn cut_over_to_v2(&self) {
        self.start_workers("v2").await;
        for worker in self.workers("v1") {
            signal(u32::try_from(worker["pid"].as_u64().unwrap()).unwrap(), "TERM");
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the controller, for the first time or again, and waits until it has looked.
    pub(crate) async fn start_controller(&mut self) {
        self.controller = Some(self.spawn_controller("rollbackd.yml", &[]));
        wait_for("rollbackd to be ready", Duration::from_secs(30), || self.get("-/ready")).await;
    }

    /// Starts a controller and does not wait for anything.
    pub(crate) fn spawn_controller(&self, config: &str, arguments: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(self.path("log/rollbackd"));
        Command::new(ROLLBACKD)
            .args(["run", "--config"])
            .arg(self.path(config))
            .args(arguments)
            .env("NO_COLOR", "1")
            .env("ROLLBACKD_LOG", self.log_level)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap()
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop_controller(&mut self) -> Option<i32> {
        let mut controller = self.controller.take().unwrap();
        signal(controller.id(), "TERM");
        controller.wait().unwrap().code()
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill_controller(&mut self) {
        let mut controller = self.controller.take().unwrap();
        controller.kill().unwrap();
        controller.wait().unwrap();
    }

    /// For the next controller.
    pub(crate) fn move_to_another_address(&mut self) {
        self.address = free_address();
        let listen = self.address.to_string();
        self.configure(|config| config["listen"] = listen.into());
    }

    /// Changes the config file.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("rollbackd.yml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// The controller's process.
    pub(crate) fn controller_pid(&self) -> u32 {
        self.controller.as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log/rollbackd")).unwrap_or_default()
    }

    /// Starts what is missing of two workers, the way rollbackd does, and waits for them.
    pub(crate) async fn start_workers(&self, version: &str) {
        let (directory, version) = (self.directory.path().to_owned(), version.to_owned());
        let asked = Command::new(python())
            .arg(start_worker())
            .args([Path::new("--run"), &directory, Path::new(&version), Path::new("2")])
            .output()
            .unwrap();
        assert!(asked.status.success(), "{asked:?}");
        wait_for("two workers", Duration::from_mins(1), || async {
            (self.workers(&version).len() == 2).then_some(())
        })
        .await;
    }

    /// What a version's workers say of themselves.
    pub(crate) fn workers(&self, version: &str) -> Vec<Value> {
        let mut workers = notices(&self.path("workers"));
        workers.retain(|worker| worker["version"] == version);
        workers
    }

    /// Calls for the newest version's workers, until the dispatcher is dropped.
    pub(crate) fn dispatch(&self) -> Dispatcher {
        let child = Command::new(python())
            .args(["-m", "rollbackd_openrtc.dispatch", "--prefer", "newest"])
            .args(["--rate", "8", "--length", "2", "--workers-dir"])
            .arg(self.path("workers"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Dispatcher(child)
    }

    /// The body of a good answer to a GET.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        let answer = client().get(format!("http://{}/{path}", self.address)).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// One of rollbackd's own metrics; 0 where there is none yet.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.get("metrics").await.unwrap();
        let values = text.lines().filter_map(|line| line.strip_prefix(series));
        values.map(|value| value.trim().parse().unwrap()).next().unwrap_or(0.0)
    }

    /// Waits for something to show in the fleet's view.
    pub(crate) async fn until(&self, what: &str, shows: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, Duration::from_mins(2), || async {
            let view: Value = serde_json::from_str(&self.get("api/v1/fleets/voice").await?).ok()?;
            shows(&view).then_some(view)
        })
        .await
    }

    /// Waits for a record of this event.
    pub(crate) async fn until_recorded(&self, event: &str) -> Value {
        wait_for(event, Duration::from_mins(2), || async {
            self.records().into_iter().find(|record| record["event"] == event)
        })
        .await
    }

    /// All records, from the database itself.
    pub(crate) fn records(&self) -> Vec<Value> {
        let exported = rollbackd(self.directory.path(), &["audit", "export"]);
        let text = String::from_utf8(exported.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// All records of rollbacks, in order.
    pub(crate) fn steps(&self) -> Vec<String> {
        let steps = self.records().into_iter().filter(|record| !record["rollback_id"].is_null());
        steps.map(|record| record["event"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn audit(&self) -> Output {
        rollbackd(self.directory.path(), &["audit", "verify", "--key", "rollbackd.key.pub"])
    }

    /// What the workers' own exact records prove.
    pub(crate) fn check(&self, bad: &str, good: &str) -> Value {
        let done = Command::new(python())
            .args(["-m", "rollbackd_openrtc.check", "--json", "--bad", bad, "--good", good])
            .arg("--records")
            .arg(self.path("records"))
            .output()
            .unwrap();
        let facts = serde_json::from_slice(&done.stdout);
        assert!(facts.is_ok(), "{done:?}");
        facts.unwrap()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.targets.abort();
        if std::thread::panicking() {
            eprintln!("rollbackd said:\n{}", self.log());
        }
        if self.controller.is_some() {
            self.kill_controller();
        }
        // One that was starting others may have started one more.
        loop {
            let left = processes_of(self.directory.path());
            if left.is_empty() {
                break;
            }
            for pid in left {
                signal(pid, "KILL");
            }
        }
    }
}

/// Sends calls.
pub(crate) struct Dispatcher(Child);

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs one command to its end.
pub(crate) fn rollbackd(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(ROLLBACKD)
        .current_dir(directory)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Starts what is missing of a version: the demo's made-up platform.
fn start_worker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/start-worker")
}

/// Living processes that have the directory in their command line. Nobody else's do.
pub(crate) fn processes_of(directory: &Path) -> Vec<u32> {
    let directory = directory.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(directory)
    };
    pids.filter(names).collect()
}

/// The workers' files. One may go while it is read.
fn notices(directory: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
    files.filter_map(|p| serde_json::from_slice(&std::fs::read(p).ok()?).ok()).collect()
}

/// What a platform's service discovery does.
async fn keep_targets(workers: &Path, prometheus: &Path) {
    let mut pulse = tokio::time::interval(Duration::from_millis(200));
    let mut known = BTreeSet::new();
    loop {
        pulse.tick().await;
        let host = |worker: Value| Some(worker["metrics"].as_str()?.split('/').nth(2)?.to_owned());
        let targets: BTreeSet<String> = notices(workers).into_iter().filter_map(host).collect();
        if targets != known {
            list_in(prometheus, &targets);
            known = targets;
        }
    }
}

fn write_config(directory: &Path, address: SocketAddr, prometheus: &str, setup: &Setup) {
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    let start = [python().as_str(), start_worker().to_str().unwrap(), "--run"].map(str::to_owned);
    let start = start.into_iter().chain([directory.to_str().unwrap().to_owned()]);
    let start: Vec<_> = start.chain(["{{version}}", "{{count}}"].map(str::to_owned)).collect();
    let mut drain = json!({ "manifest": {} });
    if setup.drain_held {
        let script = r#"until [ -e "$0" ]; do sleep 0.1; done"#;
        drain["command"] = json!(["sh", "-c", script, directory.join("drain")]);
    }
    let fleet = json!({
        "name": "voice",
        "observe_for": setup.observe_for,
        "history": setup.history,
        "workers": "openrtc_worker_info",
        "draining": "openrtc_worker_draining",
        "live": "openrtc_active_sessions",
        "start": { "command": start },
        "drain": drain,
        "membership": { "secret_files": ["membership.secret"] },
    });
    // JSON is YAML.
    let config = json!({
        "listen": address,
        "prometheus": { "url": prometheus, "timeout": "2s", "retries": 0 },
        "rule_files": ["rules.yml"],
        "ledger": "sqlite:rollbackd.db",
        "signing_key_file": "rollbackd.key",
        "fleets": [fleet],
    });
    write("rollbackd.yml", &config.to_string());
    let rule = json!({
        "name": "SessionsFailing",
        "started": "openrtc_sessions_started_total",
        "failed": "openrtc_sessions_failed_total",
        "live": "openrtc_active_sessions",
        "ceiling": "5%",
        "tolerance": "1.5x",
    });
    let group = json!({
        "name": "sessions", "fleet": "voice", "interval": setup.interval, "regressions": [rule],
    });
    write("rules.yml", &json!({ "groups": [group] }).to_string());
    write("membership.secret", SECRET);
    let options = [
        ("--rollbackd-url", format!("http://{address}")),
        ("--secret-file", directory.join("membership.secret").to_str().unwrap().to_owned()),
        ("--public-key-file", directory.join("rollbackd.key.pub").to_str().unwrap().to_owned()),
    ];
    let options: Vec<_> = options.into_iter().flat_map(|(name, v)| [name.to_owned(), v]).collect();
    let workers = json!({ "all": { "options": options }, "by_version": { "v2": setup.v2 } });
    write("workers.json", &workers.to_string());
}
