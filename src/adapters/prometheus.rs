//! Counts from servers that speak Prometheus' HTTP API: Thanos, Mimir and `VictoriaMetrics` too.
//!
//! ```text
//! range(query) ─► round 1: server 1, server 2, … ─► backoff ─► round 2 … ─► the last error
//!                   └► POST api/v1/query_range, no redirects, bounded answer ─► answer::parse
//! ```
//! **Invariant:** whatever is not a complete answer is an error. Only a server that looked
//! everywhere and found nothing makes `Ok` with no series.

mod answer;
mod metadata;
/// The series in an answer's body, as [`PrometheusSource`] reads it; for benchmarks.
#[doc(hidden)]
#[must_use]
pub fn series_of(body: &[u8]) -> Option<Vec<Series>> {
    answer::parse(body).ok()
}

/// Reads an answer's body; both ways to read a good one say the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_foreign_answer(body: &[u8]) {
    match answer::parse(body) {
        Ok(series) => assert_eq!(answer::parse_any(body), Ok(series)),
        Err(_) => assert!(!answer::error_text(body).is_empty(), "refused without a word"),
    }
}

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_http_query::Client;
use prometheus_http_query::Error as ClientError;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use reqwest::header::LOCATION;
use tokio::time::Instant;

use crate::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};

use super::http_client;
pub use super::http_client::{Authorization, InvalidSettings, Secret, Settings, Tls};

/// The largest answer read, in bytes: what is larger is an error.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The pause before the second round; doubled for every further one.
const BACKOFF: Duration = Duration::from_millis(100);

/// Told of every query: how long it took in all, and whether there was an answer.
pub type Observer = Arc<dyn Fn(Duration, bool) + Send + Sync>;

/// Asks one server after the other until one has the whole answer.
pub struct PrometheusSource {
    servers: Vec<Server>,
    settings: Settings,
    observer: Option<Observer>,
}

struct Server {
    client: Client,
    /// Without credentials, for error texts.
    url: String,
}

/// Why one server gave no answer, and what that means for the others.
struct Failure {
    error: MetricError,
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The query itself is bad: no server will take it.
    Query,
    /// This server will not answer, however often it is asked.
    Server,
    /// Asking again may help.
    Attempt,
}

impl PrometheusSource {
    /// Reads the certificates and prepares the connections; nothing is asked yet.
    ///
    /// # Errors
    /// When a URL, a header or a certificate cannot be used, or there is no URL.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let http = settings.http_client()?;
        let mut servers = Vec::with_capacity(settings.urls.len());
        for url in &settings.urls {
            let shown = http_client::without_credentials(url)?;
            let client =
                Client::from(http.clone(), url.trim_end_matches('/')).map_err(|error| {
                    InvalidSettings { subject: shown.clone(), reason: error.to_string() }
                })?;
            servers.push(Server { client, url: shown });
        }
        if servers.is_empty() {
            return Err(InvalidSettings { subject: "url".into(), reason: "there is none".into() });
        }
        Ok(Self { servers, settings, observer: None })
    }

    /// Tells `observer` of every query from now on.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    async fn ask_all(&self, query: &RangeQuery) -> Result<Vec<Series>, MetricError> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut backoff = BACKOFF;
        let mut round = 0;
        loop {
            let failure = match self.ask_round(query, deadline).await {
                Ok(series) => return Ok(series),
                Err(failure) => failure,
            };
            let out_of_time = Instant::now() + backoff >= deadline;
            if failure.scope != Scope::Attempt || round == self.settings.retries || out_of_time {
                return Err(failure.error);
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
            round += 1;
        }
    }

    /// Asks every server once. Of the failures, one that may pass is kept before one that will not.
    async fn ask_round(
        &self,
        query: &RangeQuery,
        deadline: Instant,
    ) -> Result<Vec<Series>, Failure> {
        let mut kept: Option<Failure> = None;
        let mut servers_left = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        for server in &self.servers {
            // A server that hangs must leave time for the ones after it.
            let limit = deadline.saturating_duration_since(Instant::now()) / servers_left.max(1);
            servers_left = servers_left.saturating_sub(1);
            let asked = tokio::time::timeout(limit, self.ask(server, query, limit)).await;
            let failure = match asked {
                Ok(Ok(series)) => return Ok(series),
                Ok(Err(failure)) if failure.scope == Scope::Query => return Err(failure),
                Ok(Err(failure)) => failure,
                Err(_elapsed) => {
                    server.unreachable(format!("no answer within {} ms", limit.as_millis()))
                }
            };
            if kept.as_ref().is_none_or(|kept| kept.scope != Scope::Attempt) {
                kept = Some(failure);
            }
        }
        Err(kept.unwrap_or_else(|| Failure {
            error: MetricError::Unreachable {
                url: String::new(),
                reason: "no server is configured".into(),
            },
            scope: Scope::Server,
        }))
    }

    async fn ask(
        &self,
        server: &Server,
        query: &RangeQuery,
        limit: Duration,
    ) -> Result<Vec<Series>, Failure> {
        let (start, end) = whole_seconds(query).map_err(|reason| server.refused(reason))?;
        // The server stops working on what nobody waits for any more.
        let limit_millis = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1);
        let mut request = server
            .client
            .query_range(&query.expr, start, end, query.step.as_secs_f64())
            .timeout(limit_millis);
        for (name, value) in self.settings.header_map().map_err(|e| server.unusable(&e))? {
            if let Some(name) = name {
                request = request.header(name, value);
            }
        }
        let credentials = self.settings.authorization.read().await;
        if let Some(value) = credentials.map_err(|e| server.unusable(&e))? {
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.post_raw().await.map_err(|e| server.unreachable(client_text(&e)))?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.map_or_else(|| "nowhere".into(), http_client::shown);
            return Err(server.refused_here(format!("{status}: redirected to {to}, not followed")));
        }
        let body = read_bounded(response).await.map_err(|reason| server.unreachable(reason))?;
        if !status.is_success() {
            return Err(server.status(status, &answer::error_text(&body)));
        }
        answer::parse(&body).map_err(|bad| match bad {
            answer::Bad::Malformed(reason) => server.malformed(reason),
            answer::Bad::Incomplete(reason) => server.unreachable(reason),
        })
    }
}

impl MetricSource for PrometheusSource {
    async fn range(&self, query: RangeQuery) -> Result<Vec<Series>, MetricError> {
        let began = Instant::now();
        let answer = self.ask_all(&query).await;
        if let Some(observer) = &self.observer {
            observer(began.elapsed(), answer.is_ok());
        }
        answer
    }
}

impl fmt::Debug for PrometheusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|server| &server.url)).finish()
    }
}

impl Server {
    fn unreachable(&self, reason: String) -> Failure {
        let error = MetricError::Unreachable { url: self.url.clone(), reason };
        Failure { error, scope: Scope::Attempt }
    }

    fn refused(&self, reason: String) -> Failure {
        let error = MetricError::Refused { url: self.url.clone(), reason };
        Failure { error, scope: Scope::Query }
    }

    fn refused_here(&self, reason: String) -> Failure {
        Failure { scope: Scope::Server, ..self.refused(reason) }
    }

    fn malformed(&self, reason: String) -> Failure {
        let error = MetricError::Malformed { url: self.url.clone(), reason };
        Failure { error, scope: Scope::Server }
    }

    /// The credentials could not be read; they may be mid-rotation.
    fn unusable(&self, error: &InvalidSettings) -> Failure {
        self.unreachable(error.to_string())
    }

    fn status(&self, status: StatusCode, text: &str) -> Failure {
        let reason = format!("{status}: {text}");
        match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => self.refused(reason),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => self.unreachable(reason),
            other if other.is_server_error() => self.unreachable(reason),
            _ => self.refused_here(reason),
        }
    }
}

/// The client speaks whole seconds only; rounding would shift a tick.
fn whole_seconds(query: &RangeQuery) -> Result<(i64, i64), String> {
    let (start, end) = (query.start.as_millis(), query.end.as_millis());
    if start % 1000 != 0 || end % 1000 != 0 {
        return Err(format!("{start} ms to {end} ms is not in whole seconds"));
    }
    if query.step.is_zero() || end < start {
        return Err(format!("no points from {start} ms to {end} ms every {:?}", query.step));
    }
    Ok((start / 1000, end / 1000))
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > ANSWER_BYTES_MAX => {
                return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(format!("the answer broke off: {}", causes(error))),
        }
    }
}

fn client_text(error: &ClientError) -> String {
    if let ClientError::Client(client) = error
        && let Some(inner) = client.inner()
    {
        return match std::error::Error::source(inner) {
            Some(cause) => causes_of(cause),
            None => client.to_string(),
        };
    }
    error.to_string()
}

fn causes(error: reqwest::Error) -> String {
    causes_of(&error.without_url())
}

/// An error with all its causes. `reqwest` repeats a cause in its own text only at the top.
fn causes_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
