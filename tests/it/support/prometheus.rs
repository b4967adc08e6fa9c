//! The real Prometheus, on a port of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd::adapters::prometheus::{Authorization, PrometheusSource, Settings, Tls};
use tempfile::TempDir;

use super::{client, free_address, wait_for};

/// How often targets are scraped.
pub(crate) const SCRAPE: Duration = Duration::from_secs(1);

const CONFIG: &str = "
global: { scrape_interval: 1s, scrape_timeout: 500ms }
scrape_configs:
  - job_name: workers
    file_sd_configs: [{ files: [targets.json] }]
";

/// Killed by its process id when dropped.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) url: String,
    dir: TempDir,
}

impl Prometheus {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[]).await
    }

    /// With what an `OpenMetrics` file says of times past; `options` are Prometheus' own.
    pub(crate) async fn with_history(
        write: impl FnOnce(&mut File) -> std::io::Result<()>,
        options: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&mut File::create(dir.path().join("history")).unwrap()).unwrap();
        let made = Command::new("promtool")
            .current_dir(dir.path())
            .args(["tsdb", "create-blocks-from", "openmetrics", "history", "data"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self::start_in(dir, options).await
    }

    async fn start_in(dir: TempDir, options: &[&str]) -> Self {
        std::fs::write(dir.path().join("prometheus.yml"), CONFIG).unwrap();
        let address = free_address();
        let child = spawn(dir.path(), address, options);
        let started = Self { child, url: format!("http://{address}"), dir };
        started.list(&BTreeSet::new());
        started.ready().await;
        started
    }

    async fn ready(&self) {
        wait_for("Prometheus to be ready", Duration::from_mins(1), || async {
            let answer = client().get(format!("{}/-/ready", self.url)).send().await;
            answer.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Dies.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Comes back on the same address, with the same data.
    pub(crate) async fn start_again(&mut self) {
        self.child =
            spawn(self.dir.path(), self.url.trim_start_matches("http://").parse().unwrap(), &[]);
        self.ready().await;
    }

    pub(crate) fn source(&self) -> PrometheusSource {
        PrometheusSource::new(Settings {
            urls: vec![self.url.clone()],
            timeout: Duration::from_secs(30),
            retries: 2,
            headers: Vec::new(),
            authorization: Authorization::None,
            tls: Tls::default(),
        })
        .unwrap()
    }

    /// Scrapes these from now on and returns when Prometheus has taken note (seconds later).
    pub(crate) async fn scrape(&self, targets: &[SocketAddr]) {
        let wanted: BTreeSet<String> = targets.iter().map(ToString::to_string).collect();
        self.list(&wanted);
        wait_for("the targets to change", Duration::from_mins(1), || async {
            (self.targets().await == wanted).then_some(())
        })
        .await;
    }

    /// Has these scraped as soon as Prometheus takes note.
    pub(crate) fn list(&self, targets: &BTreeSet<String>) {
        list_in(self.dir.path(), targets);
    }

    /// Where [`list_in`] lists targets.
    pub(crate) fn directory(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    async fn targets(&self) -> BTreeSet<String> {
        let url = format!("{}/api/v1/targets?state=active", self.url);
        let answer = client().get(url).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        let active = answer["data"]["activeTargets"].as_array().unwrap();
        active.iter().map(|t| t["labels"]["instance"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Replaces the targets of the Prometheus in `directory`.
pub(crate) fn list_in(directory: &Path, targets: &BTreeSet<String>) {
    let listed = serde_json::json!([{ "targets": targets }]);
    let written = directory.join("targets.new");
    std::fs::write(&written, listed.to_string()).unwrap();
    std::fs::rename(&written, directory.join("targets.json")).unwrap();
}

fn spawn(dir: &Path, address: SocketAddr, options: &[&str]) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new("prometheus")
        .current_dir(dir)
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={address}"))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}
