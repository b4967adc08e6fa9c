//! A fake worker that plays a script, one step a scrape.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONNECTION;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a worker shows of one tenant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) failed: u64,
    pub(crate) live: u64,
}

/// What happens to one scrape.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The version, and what each tenant's series show.
    Show(&'static str, Vec<(&'static str, Counts)>),
    /// Status 500.
    Fail,
    /// No answer.
    Hang,
}

/// Serves `/metrics` until stopped or dropped. The last step is played for ever.
pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    script: Arc<Script>,
    serving: JoinHandle<()>,
}

struct Script {
    steps: Vec<Step>,
    played: Mutex<usize>,
}

impl Worker {
    pub(crate) async fn start(steps: Vec<Step>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), steps).await
    }

    /// Takes the place of a worker that was stopped.
    pub(crate) async fn start_at(address: SocketAddr, steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script { steps, played: Mutex::new(0) });
        let app = Router::new().route("/metrics", get(metrics)).with_state(Arc::clone(&script));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, script, serving }
    }

    /// Whether every step of the script was played.
    pub(crate) fn is_done(&self) -> bool {
        *self.script.played.lock().unwrap() >= self.script.steps.len()
    }

    /// Dies: connections are refused from now on, or reset.
    pub(crate) fn stop(&self) {
        self.serving.abort();
    }

    /// What a reader who sees every scrape counts: started and failed.
    pub(crate) fn truth(&self) -> (u64, u64) {
        assert!(self.is_done(), "the script is not played yet");
        truth(&self.script.steps)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A counter that fell began again at zero.
fn truth(steps: &[Step]) -> (u64, u64) {
    let mut last = BTreeMap::<_, Counts>::new();
    let (mut started, mut failed) = (0, 0);
    let grown = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
    for step in steps {
        let Step::Show(version, tenants) = step else { continue };
        for (tenant, now) in tenants {
            let before = last.insert((version, tenant), *now).unwrap_or_default();
            started += grown(before.started, now.started);
            failed += grown(before.failed, now.failed);
        }
    }
    (started, failed)
}

/// Without a connection kept open, a stopped worker answers nobody.
type Answer = ([(HeaderName, &'static str); 1], String);

async fn metrics(State(script): State<Arc<Script>>) -> Result<Answer, StatusCode> {
    let step = {
        let mut played = script.played.lock().unwrap();
        let step = script.steps.get(*played).or(script.steps.last()).unwrap().clone();
        *played += 1;
        step
    };
    match step {
        Step::Show(version, tenants) => Ok(([(CONNECTION, "close")], text(version, &tenants))),
        Step::Fail => Err(StatusCode::INTERNAL_SERVER_ERROR),
        Step::Hang => pending().await,
    }
}

fn text(version: &str, tenants: &[(&str, Counts)]) -> String {
    let mut text = String::new();
    for (tenant, Counts { started, failed, live }) in tenants {
        let labels = format!("{{deployment_version=\"{version}\",tenant=\"{tenant}\"}}");
        writeln!(text, "sessions_started_total{labels} {started}").unwrap();
        writeln!(text, "sessions_failed_total{labels} {failed}").unwrap();
        writeln!(text, "sessions_live{labels} {live}").unwrap();
    }
    text
}
