//! Made-up fleets, shown to Prometheus by one target: rates that a test sets, counted by the clock.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What one version shows from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    /// Tenant, sessions started a second, and the share of them that fails. None: no counters.
    pub(crate) tenants: &'static [(&'static str, f64, f64)],
    /// A gauge.
    pub(crate) quality: Option<f64>,
    /// Sessions in progress, and how many seconds its worker lives before it dies with them and
    /// begins again.
    pub(crate) dies: Option<(f64, f64)>,
}

/// Serves `/metrics` until dropped.
pub(crate) struct Exporter {
    pub(crate) address: SocketAddr,
    shown: Arc<Mutex<BTreeMap<(String, &'static str), Shown>>>,
    serving: JoinHandle<()>,
}

struct Shown {
    flow: Flow,
    counted: Instant,
    born: Instant,
    /// By tenant: started and failed.
    counters: BTreeMap<&'static str, (f64, f64)>,
}

impl Shown {
    fn count(&mut self, now: Instant) {
        let passed = (now - self.counted).as_secs_f64();
        self.counted = now;
        if self.flow.dies.is_some_and(|(_, after)| (now - self.born).as_secs_f64() >= after) {
            self.born = now;
            self.counters.values_mut().for_each(|counter| *counter = (0.0, 0.0));
            return;
        }
        for (tenant, rate, share) in self.flow.tenants {
            let counter = self.counters.entry(tenant).or_default();
            counter.0 += rate * passed;
            counter.1 += rate * share * passed;
        }
    }
}

impl Exporter {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::new(Mutex::new(BTreeMap::new()));
        let served = Arc::clone(&shown);
        let app = Router::new().route("/metrics", get(async move || text(&served)));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shown, serving }
    }

    /// One worker of each of these versions of a fleet is alive and does this from now on. What a
    /// version has counted before stays.
    pub(crate) fn show(&self, fleet: &str, versions: &[(&'static str, Flow)]) {
        let (now, mut shown) = (Instant::now(), self.shown.lock().unwrap());
        for (version, flow) in versions {
            let known = shown.entry((fleet.to_owned(), *version)).or_insert_with(|| Shown {
                flow: *flow,
                counted: now,
                born: now,
                counters: BTreeMap::new(),
            });
            known.count(now);
            known.flow = *flow;
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn text(shown: &Mutex<BTreeMap<(String, &'static str), Shown>>) -> String {
    let (now, mut text) = (Instant::now(), String::new());
    for ((fleet, version), shown) in shown.lock().unwrap().iter_mut() {
        shown.count(now);
        let labels = format!("fleet=\"{fleet}\",deployment_version=\"{version}\"");
        writeln!(text, "worker_info{{{labels},worker_id=\"{fleet}-{version}\"}} 1").unwrap();
        if let Some(quality) = shown.flow.quality {
            writeln!(text, "quality{{{labels}}} {quality}").unwrap();
        }
        if let Some((live, _)) = shown.flow.dies {
            writeln!(text, "sessions_live{{{labels}}} {live}").unwrap();
        }
        for (tenant, (started, failed)) in &shown.counters {
            let labels = format!("{labels},tenant=\"{tenant}\"");
            writeln!(text, "sessions_started_total{{{labels}}} {}", started.floor()).unwrap();
            writeln!(text, "sessions_failed_total{{{labels}}} {}", failed.floor()).unwrap();
        }
    }
    text
}
