//! What Prometheus knows of a metric besides its samples.

use reqwest::header::AUTHORIZATION;
use serde_json::Value;

use super::{PrometheusSource, read_bounded};

impl PrometheusSource {
    /// The type that a metric's exporters give it, such as `counter` or `gauge`. `None` where it
    /// is not known, or exporters differ: not every server has metadata, and nothing depends on it.
    pub async fn metric_type(&self, metric: &str) -> Option<String> {
        match (self.type_of(metric).await, metric.strip_suffix("_total")) {
            // OpenMetrics types a counter without its suffix.
            (None, Some(bare)) => self.type_of(bare).await,
            (known, _) => known,
        }
    }

    async fn type_of(&self, metric: &str) -> Option<String> {
        for (server, url) in self.servers.iter().zip(&self.settings.urls) {
            let url = format!("{}/api/v1/metadata", url.trim_end_matches('/'));
            let mut request =
                server.client.inner().get(url).query(&[("metric", metric), ("limit", "1")]);
            for (name, value) in self.settings.header_map().ok()? {
                if let Some(name) = name {
                    request = request.header(name, value);
                }
            }
            if let Some(value) = self.settings.authorization.read().await.ok()? {
                request = request.header(AUTHORIZATION, value);
            }
            let request = request.timeout(self.settings.timeout).send().await;
            let Some(response) = request.ok().filter(|answer| answer.status().is_success()) else {
                continue;
            };
            let body = read_bounded(response).await.ok()?;
            let body: Value = serde_json::from_slice(&body).ok()?;
            let entries = body["data"][metric].as_array()?;
            let mut types = entries.iter().map(|entry| entry["type"].as_str());
            let first = types.next()??.to_owned();
            return types.all(|other| other == Some(&first)).then_some(first);
        }
        None
    }
}
