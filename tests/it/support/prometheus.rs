//! The real Prometheus, on a port of its own.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd::adapters::prometheus::{Authorization, PrometheusSource, Settings, Tls};
use tempfile::TempDir;

use super::wait_for;

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
    url: String,
    dir: TempDir,
}

impl Prometheus {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prometheus.yml"), CONFIG).unwrap();
        std::fs::write(dir.path().join("targets.json"), "[]").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .current_dir(dir.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self { child, url: format!("http://127.0.0.1:{port}"), dir };
        wait_for("Prometheus to be ready", Duration::from_mins(1), || async {
            let answer = reqwest_client().get(format!("{}/-/ready", started.url)).send().await;
            answer.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        started
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
        let listed = serde_json::json!([{ "targets": wanted }]);
        let written = self.dir.path().join("targets.new");
        std::fs::write(&written, listed.to_string()).unwrap();
        std::fs::rename(&written, self.dir.path().join("targets.json")).unwrap();
        wait_for("the targets to change", Duration::from_mins(1), || async {
            (self.targets().await == wanted).then_some(())
        })
        .await;
    }

    async fn targets(&self) -> BTreeSet<String> {
        let url = format!("{}/api/v1/targets?state=active", self.url);
        let answer = reqwest_client().get(url).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        let active = answer["data"]["activeTargets"].as_array().unwrap();
        active.iter().map(|t| t["labels"]["instance"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn reqwest_client() -> reqwest::Client {
    // An error says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}
