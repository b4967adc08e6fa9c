//! A router with everything around it made by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::{Access, Limits, Manifests, Shared, router};
use crate::domain::role::{Role, Roles};
use crate::domain::time::Timestamp;
use crate::ledger::record::{Draft, Record};
use crate::membership::{MembershipVerifier, sign_membership};
use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::ports::inbox::Message;
use crate::ports::ledger::{Ledger, LedgerError};
use crate::ports::manifest::SignedManifest;
use crate::ports::view::View;

/// What the clock says, in seconds.
pub(super) const NOW: f64 = 1_753_000_000.0;
pub(super) const SECRET: &str = "s3cret";

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_753_000_000_000)
    }
}

/// A ledger of `length` records that takes no more, or a broken one.
pub(super) struct Shelf(pub(super) Result<u64, LedgerError>);

impl Ledger for Shelf {
    async fn append(&self, _: u64, _: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        unreachable!("the HTTP side never appends")
    }

    async fn checkpoint(&self) -> Result<Option<String>, LedgerError> {
        let length = self.0.clone()?;
        Ok((length > 0).then(|| format!("{length}\n")))
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<Record>, LedgerError> {
        let length = self.0.clone()?;
        Ok((after + 1..=length).take(limit as usize).map(record).collect())
    }
}

fn record(seq: u64) -> Record {
    Record {
        seq,
        timestamp: "2025-07-20T08:26:40.000Z".to_owned(),
        event: "deployment.started".to_owned(),
        actor: "rollbackd".to_owned(),
        target: "voice".to_owned(),
        result: "ok".to_owned(),
        version: Some("v2".to_owned()),
        previous: "00".to_owned(),
        hash: "01".to_owned(),
        signature: "02".to_owned(),
        key: "03".to_owned(),
        extra: Map::from_iter([("fleet".to_owned(), json!("voice"))]),
    }
}

/// The router and the other ends of everything it was given.
pub(super) struct Bench {
    pub(super) router: Router,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) manifests: watch::Sender<Manifests>,
    pub(super) access: watch::Sender<Arc<Access>>,
    pub(super) stopping: watch::Sender<bool>,
    pub(super) metrics: Metrics,
}

pub(super) fn bench() -> Bench {
    bench_with(Shelf(Ok(3)))
}

/// With other rules of who may do what than where only this machine can speak.
pub(super) fn bench_for(access: Access) -> Bench {
    make(Shelf(Ok(3)), access)
}

pub(super) fn bench_with(ledger: Shelf) -> Bench {
    make(ledger, Access::anonymous(Roles::NONE.and(Role::Operate)))
}

fn make(ledger: Shelf, access: Access) -> Bench {
    let (inbox, receiver) = mpsc::channel(4);
    let (view, view_receiver) = watch::channel(Arc::default());
    let (manifests, manifests_receiver) = watch::channel(Manifests::default());
    let metrics = Metrics::new("test", "test").unwrap();
    let (stopping, stopping_receiver) = watch::channel(false);
    let (access, access_receiver) = watch::channel(Arc::new(access));
    let secrets = vec![SECRET.as_bytes().to_vec()];
    let verifier = MembershipVerifier::new(secrets, Duration::from_mins(5)).unwrap();
    let shared = Shared {
        inbox,
        view: view_receiver,
        manifests: manifests_receiver,
        ledger: Arc::new(ledger),
        metrics: metrics.clone(),
        verifiers: BTreeMap::from([("voice".to_owned(), verifier)]),
        clock: Arc::new(Stopped),
        limits: Limits::default(),
        access: access_receiver,
        stopping: stopping_receiver,
    };
    Bench { router: router(shared), inbox: receiver, view, manifests, access, stopping, metrics }
}

impl Bench {
    pub(super) async fn get(&self, uri: &str) -> Answer {
        self.call("GET", uri, String::new()).await
    }

    pub(super) async fn post(&self, uri: &str, body: impl ToString) -> Answer {
        self.call("POST", uri, body.to_string()).await
    }

    /// With headers of one's own.
    pub(super) async fn send(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(super) async fn call(&self, method: &str, uri: &str, body: String) -> Answer {
        let request = Request::builder().method(method).uri(uri).body(Body::from(body)).unwrap();
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// Publishes one manifest for fleet `voice`.
    pub(super) fn publish(&self, serial: u64, denied: &[&str]) {
        self.manifests.send_replace(Arc::new(BTreeMap::from([(
            "voice".to_owned(),
            SignedManifest {
                manifest_json: json!({ "serial": serial, "denied": denied }).to_string(),
                serial,
                issued_at: Timestamp::from_millis(0),
                key: "aa".to_owned(),
                signature: "bb".to_owned(),
            },
        )])));
    }

    pub(super) fn count_of_alerts(&self, result: &str) -> u64 {
        self.count(&format!("alerts_received_total{{result=\"{result}\"}}"))
    }

    pub(super) fn count_of_refused(&self, reason: &str) -> u64 {
        self.count(&format!("requests_refused_total{{reason=\"{reason}\"}}"))
    }

    fn count(&self, series: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let prefix = format!("rollbackd_{series} ");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse().unwrap()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let content_type = parts.headers.get("content-type").map(|v| v.to_str().unwrap());
        Self {
            status: parts.status,
            content_type: content_type.unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The detail of what must be a problem document of this status.
    pub(super) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], "about:blank");
        assert_eq!(document["title"], self.status.canonical_reason().unwrap());
        document["detail"].as_str().unwrap().to_owned()
    }
}

/// A heartbeat of worker `w1` on `v2`, signed.
pub(super) fn heartbeat(fleet: &str, timestamp: f64, secret: &str) -> Value {
    json!({
        "fleet": fleet, "worker_id": "w1", "version": "v2", "draining": false,
        "active_sessions": 3, "timestamp": timestamp,
        "token": sign_membership("v2", "w1", timestamp, secret.as_bytes()),
    })
}
