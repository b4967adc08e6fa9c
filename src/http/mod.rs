//! The HTTP side: what others may ask of rollbackd and tell it.
//!
//! ```text
//! Alertmanager ── alerts ────┐                     ┌── view ────── api, health ──► people, load balancers
//! workers ────── heartbeat ──┼──► inbox ► controller ── manifests ─ membership ──► workers, coordinators
//! operators ── reload, acts ──┘                     └── metrics ─── health ───────► Prometheus
//! ```
//!
//! **Invariant:** a handler decides nothing about a fleet. It checks what came in, hands it to the
//! controller without waiting for room, and shows what the controller has last published.

mod access;
mod alerts;
mod api;
mod claim;
mod etag;
mod events;
mod explain;
mod guard;
mod health;
mod membership;
mod openapi;
mod operate;
mod page;
mod paging;
mod passwords;
mod problem;
mod refusals;
mod router;
mod serve;
#[cfg(test)]
mod testing;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

pub use self::access::{Access, Caller};
pub use self::passwords::User;
pub use self::problem::Problem;
use self::refusals::Refusals;
pub use self::router::router;
pub use self::serve::{Doors, serve};
pub use self::tls::{ClientCerts, TlsError, TlsSettings};
use crate::membership::MembershipVerifier;
use crate::metrics::{Metrics, Refused};
use crate::ports::Clock;
use crate::ports::inbox::Message;
use crate::ports::manifest::SignedManifest;
use crate::ports::view::View;

/// What reads foreign bytes here, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign {
    use super::{alerts, claim, operate};

    pub(crate) fn read_webhook(body: &[u8]) {
        if let Err(problem) = alerts::firing(body) {
            assert!(!problem.detail().is_empty(), "refused without a word");
        }
    }

    pub(crate) fn read_heartbeat(body: &[u8]) {
        let question = claim::question(body);
        match claim::heartbeat(body) {
            Ok(heartbeat) => assert!(question.is_ok_and(|asked| asked == heartbeat)),
            Err(problem) => assert!(!problem.detail().is_empty(), "refused without a word"),
        }
    }

    pub(crate) fn read_order(body: &[u8]) {
        if let Err(problem) = operate::read(body) {
            assert!(!problem.detail().is_empty(), "refused without a word");
        }
    }
}

/// The manifests in force, by fleet as [`crate::domain::fleet::FleetId`] writes itself.
pub type Manifests = Arc<BTreeMap<String, SignedManifest>>;

/// What the HTTP side shares with the rest.
#[derive(Clone)]
pub struct Shared<L> {
    /// The controller's inbox.
    pub inbox: mpsc::Sender<Message>,
    /// What the controller shows of itself. Closed, it keeps being served.
    pub view: watch::Receiver<Arc<View>>,
    /// What workers are told. Closed, held heartbeats are answered at once.
    pub manifests: watch::Receiver<Manifests>,
    /// Read, never appended to.
    pub ledger: Arc<L>,
    /// Served, and counted in.
    pub metrics: Metrics,
    /// By the fleet entry's name; an entry without membership has none.
    pub verifiers: BTreeMap<String, MembershipVerifier>,
    /// Tells how old a token is.
    pub clock: Arc<dyn Clock>,
    /// What a peer may cost.
    pub limits: Limits,
    /// Who may do what; what is sent here last is in force.
    pub access: watch::Receiver<Arc<Access>>,
    /// Whether rollbackd stops: event streams end then.
    pub stopping: watch::Receiver<bool>,
}

/// What a peer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest request body.
    pub body_bytes_max: usize,
    /// The longest a request's headers may take; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// The longest a request's body may take, and the longest the controller or the ledger may
    /// take to answer.
    pub request_timeout: Duration,
    /// The longest a heartbeat is held.
    pub wait_max: Duration,
    /// Event streams at a time; further ones are refused.
    pub streams_max: usize,
    /// The longest a peer may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// Connections at a time; further ones wait to be accepted.
    pub connections_max: u32,
    /// After this a connection finishes what it is doing and closes, whatever the peer does.
    pub connection_age_max: Duration,
    /// How long requests in progress may take to finish when rollbackd stops.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            wait_max: Duration::from_mins(1),
            streams_max: 1024,
            write_timeout: Duration::from_secs(30),
            connections_max: 4096,
            connection_age_max: Duration::from_mins(15),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// The part of [`Shared`] that handlers need, and what they remember between requests.
struct App {
    inbox: mpsc::Sender<Message>,
    view: watch::Receiver<Arc<View>>,
    manifests: watch::Receiver<Manifests>,
    metrics: Metrics,
    verifiers: BTreeMap<String, MembershipVerifier>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    access: watch::Receiver<Arc<Access>>,
    stopping: watch::Receiver<bool>,
    /// The first page as it was written last.
    written: page::Written,
    /// What event streams were told last.
    told: events::Told,
    /// Room for event streams.
    followers: Arc<Semaphore>,
    /// Workers whose refusal was recorded of late.
    refusals: Refusals,
    /// Kinds of refusal that were logged of late.
    refusals_logged: Refusals,
    /// Whether the last webhook was malformed, and that was logged.
    malformed_logged: AtomicBool,
}

impl App {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    fn manifest(&self, fleet: &str) -> Option<SignedManifest> {
        self.manifests.borrow().get(fleet).cloned()
    }

    /// Hands a message to the controller if there is room.
    fn send(&self, message: Message) -> Result<(), Problem> {
        self.inbox.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Problem::busy("the controller's inbox is full"),
            mpsc::error::TrySendError::Closed(_) => Problem::busy("the controller has stopped"),
        })
    }

    /// Counts a refused request, and logs it unless one like it was logged a moment ago.
    fn refuse(&self, refused: Refused, path: &str) {
        self.metrics.request_refused(refused);
        if self.refusals_logged.admit(refused.as_str(), "", self.clock.now()) {
            tracing::warn!(
                path,
                reason = refused.as_str(),
                "request refused; more of this kind are silent for a minute"
            );
        }
    }

    /// Reads a request's body, of limited length, in limited time.
    async fn body(&self, request: Request) -> Result<Bytes, Problem> {
        match timeout(self.limits.request_timeout, Bytes::from_request(request, &())).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(rejection)) => {
                self.metrics.request_refused(Refused::Body);
                Err(Problem::new(rejection.status(), rejection.body_text()))
            }
            Err(_) => {
                self.metrics.request_refused(Refused::Body);
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to come"))
            }
        }
    }
}
