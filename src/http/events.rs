//! What happens, as it happens: server-sent events.
//!
//! ```text
//! controller ─► view (the newest only) ─► each stream: records since its last one, then "look again"
//! ```
//!
//! **Invariant:** a stream holds no queue. A slow reader misses views, not records; one that was
//! away for longer than the records kept is told to ask the ledger; one that does not read at all
//! is cut by the connection's write timeout.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::problem::ProblemDocument;
use super::{App, Problem};
use crate::ports::view::View;

/// How soon a browser comes back after a stream has ended.
const RETRY: Duration = Duration::from_secs(1);
/// The least time between two looks: views that follow one another faster are told as one.
const GAP: Duration = Duration::from_millis(100);
/// What nothing happens in is told, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follows what happens, as server-sent events.
///
/// `record`: a record of the ledger, with its `seq` as the id. `view`: something that is shown has
/// changed. `gap`: more was recorded than is kept for streams; the ledger has it. A stream begins
/// after `Last-Event-ID`, or now.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<u64>, Header, description = "the last record's `seq`")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "`Last-Event-ID` is no `seq`"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json",
            description = "as many follow as may"),
    ))]
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| Problem::bad("`Last-Event-ID` is not the `seq` of a record"))
    });
    let place = Arc::clone(&app.followers).try_acquire_owned().map_err(|_| {
        let detail = "as many streams are followed as may be";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let follower = Follower {
        sent: last.transpose()?.unwrap_or_else(|| app.view().last_seq),
        view: app.view.clone(),
        stopping: app.stopping.clone(),
        ends: Instant::now() + app.limits.connection_age_max,
        pending: VecDeque::from([Event::default().retry(RETRY)]),
        begun: false,
        _place: place,
    };
    let stream = unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// One stream.
struct Follower {
    view: watch::Receiver<Arc<View>>,
    stopping: watch::Receiver<bool>,
    /// The last record sent.
    sent: u64,
    ends: Instant,
    /// What is said of the newest view, until it is written.
    pending: VecDeque<Event>,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.begun {
                self.change().await?;
            }
            self.begun = true;
            self.look();
        }
    }

    /// Waits for a new view; `None` when the stream is over.
    async fn change(&mut self) -> Option<()> {
        let changed = async {
            sleep(GAP).await;
            if self.view.changed().await.is_err() {
                // The controller has gone; what it last published keeps being served.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => Some(()),
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
            () = sleep_until(self.ends) => None,
        }
    }

    fn look(&mut self) {
        let view = Arc::clone(&self.view.borrow_and_update());
        let new = view.recent.iter().filter(|record| record.seq > self.sent);
        let new: Vec<_> = new.collect();
        if let Some(first) = new.first().filter(|first| first.seq > self.sent + 1) {
            let gap = json!({ "after": self.sent, "before": first.seq });
            self.pending.push_back(Event::default().event("gap").data(gap.to_string()));
        }
        for record in new {
            // Plain data: it is always written.
            let data = serde_json::to_string(&**record).unwrap_or_default();
            let event = Event::default().event("record").id(record.seq.to_string()).data(data);
            self.pending.push_back(event);
            self.sent = record.seq;
        }
        let seen = json!({ "seq": view.last_seq });
        self.pending.push_back(Event::default().event("view").data(seen.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use futures::StreamExt;
    use tower::ServiceExt;

    use super::super::testing::{Bench, bench};
    use super::*;
    use crate::ports::view::RecordView;

    fn show(bench: &Bench, seqs: std::ops::RangeInclusive<u64>) {
        let last_seq = *seqs.end();
        let record = |seq| Arc::new(RecordView { seq, ..RecordView::default() });
        let view = View { last_seq, recent: seqs.map(record).collect(), ..View::default() };
        bench.view.send_replace(Arc::new(view));
    }

    /// Follows, and gives what is told until `enough` is in it, or until the end.
    async fn told(bench: &Bench, last: Option<&str>, enough: &str) -> String {
        let mut request = Request::get("/api/v1/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let answer = bench.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut body = answer.into_body().into_data_stream();
        let mut text = String::new();
        while !text.contains(enough) {
            let Some(bytes) = body.next().await else { break };
            text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
        text
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_away_is_told_the_records_since_and_who_was_away_for_long_that_there_is_a_gap()
    {
        let bench = bench();
        show(&bench, 8..=10);
        let from_now = told(&bench, None, "event: view").await;
        assert!(from_now.starts_with("retry: 1000\n\n"), "{from_now}");
        assert!(!from_now.contains("event: record"), "{from_now}");
        let since = told(&bench, Some("8"), "event: view").await;
        let ids: Vec<&str> = since.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["9", "10"]);
        assert!(!since.contains("event: gap"), "{since}");
        let long = told(&bench, Some("3"), "event: view").await;
        assert!(long.contains("event: gap\ndata: {\"after\":3,\"before\":8}"), "{long}");
        bench.send("GET", "/api/v1/events", &[("last-event-id", "x")], "").await.problem(400);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_is_told_and_a_reader_that_misses_views_misses_no_record() {
        let bench = bench();
        show(&bench, 1..=1);
        let (text, ()) = tokio::join!(told(&bench, Some("1"), "id: 4"), async {
            tokio::task::yield_now().await;
            show(&bench, 1..=2);
            show(&bench, 1..=3);
            show(&bench, 1..=4);
        });
        let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["2", "3", "4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_rollbackd_stops_and_when_it_is_old() {
        let bench = bench();
        let old = told(&bench, None, "never").await;
        assert!(old.contains("event: view"), "{old}");
        bench.stopping.send_replace(true);
        told(&bench, None, "never").await;
    }

    #[tokio::test]
    async fn more_streams_than_there_may_be_are_refused() {
        let bench = bench();
        let open = async || {
            let request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
            bench.router.clone().oneshot(request).await.unwrap()
        };
        let mut streams = Vec::new();
        loop {
            let answer = open().await;
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
            streams.push(answer);
            assert!(streams.len() <= 5000, "there is no end to them");
        }
        assert_eq!(streams.len(), super::super::Limits::default().streams_max);
        streams.pop();
        assert_eq!(open().await.status(), StatusCode::OK);
    }
}
