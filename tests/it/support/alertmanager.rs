//! The real Alertmanager, which passes on to one webhook what it is told.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{client, free_address, wait_for};

/// Killed by its process id when dropped.
pub(crate) struct Alertmanager {
    child: Child,
    pub(crate) url: String,
    _directory: TempDir,
}

impl Alertmanager {
    pub(crate) async fn start(rollbackd: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let webhook = json!({
            "url": format!("http://{rollbackd}/api/v1/alerts"), "send_resolved": true,
        });
        let config = json!({
            "route": {
                "receiver": "rollbackd", "group_by": ["alertname"],
                "group_wait": "0s", "group_interval": "1s",
            },
            "receivers": [{ "name": "rollbackd", "webhook_configs": [webhook] }],
        });
        std::fs::write(directory.path().join("config.yml"), config.to_string()).unwrap();
        let address = free_address();
        let child = Command::new("prometheus-alertmanager")
            .current_dir(directory.path())
            .args(["--config.file=config.yml", "--storage.path=data", "--cluster.listen-address="])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self { child, url: format!("http://{address}"), _directory: directory };
        wait_for("Alertmanager to be ready", Duration::from_secs(30), || async {
            let answer = client().get(format!("{}/-/ready", started.url)).send().await;
            answer.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        started
    }

    /// The alerts that fire, by name, with their annotations.
    pub(crate) async fn firing(&self) -> Vec<(String, Value)> {
        let url = format!("{}/api/v2/alerts?active=true", self.url);
        let alerts: Vec<Value> = client().get(url).send().await.unwrap().json().await.unwrap();
        let named = |alert: &Value| {
            let name = alert["labels"]["alertname"].as_str().unwrap().to_owned();
            (name, alert["annotations"].clone())
        };
        alerts.iter().map(named).collect()
    }

    /// What Prometheus would post: an alert that began or, with `ends_at`, has ended.
    pub(crate) async fn post(&self, ends_at: Option<String>) {
        let mut alert: Value =
            json!({ "labels": { "alertname": "VoiceSessionsFailing", "fleet": "voice" } });
        if let Some(ends_at) = ends_at {
            alert["endsAt"] = ends_at.into();
        }
        let url = format!("{}/api/v2/alerts", self.url);
        let answer = client().post(url).json(&[alert]).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
