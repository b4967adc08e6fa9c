//! What happens, as it happens: server-sent events.
//!
//! ```text
//! controller ─► view (the newest only) ─► each stream: records since its last one, then "look again"
//! ```
//!
//! Streams that know the same are told the same bytes, written once: however many follow, a record
//! costs one rendering.
//!
//! **Invariant:** a stream holds no queue. A slow reader misses views, not records; one that was
//! away for longer than the records kept is told to ask the ledger; one that does not read at all
//! is cut by the connection's write timeout.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::problem::ProblemDocument;
use super::{App, Problem};
use crate::ports::view::View;

/// The first word of a stream: how soon a browser comes back after it has ended.
const RETRY: &str = "retry: 1000\n\n";
/// The least time between two looks: views that follow one another faster are told as one.
const GAP: Duration = Duration::from_millis(100);
/// What nothing happens in is told, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A line that means nothing.
const STILL_HERE: &[u8] = b":\n\n";

/// What was last told of a view, and to those who knew everything up to which record.
///
/// Nearly all streams know the same, so this is nearly always what the next one is told.
#[derive(Default)]
pub(super) struct Told(Mutex<Option<(Arc<View>, u64, Bytes)>>);

impl Told {
    fn of(&self, view: &Arc<View>, after: u64) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, since, bytes)) = last.as_ref()
            && Arc::ptr_eq(known, view)
            && *since == after
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(tell(view, after));
        *last = Some((Arc::clone(view), after, bytes.clone()));
        bytes
    }
}

/// A view, and the records after `after`, as events.
fn tell(view: &View, after: u64) -> String {
    let mut text = String::new();
    let mut new = view.recent.iter().filter(|record| record.seq > after).peekable();
    if let Some(first) = new.peek().filter(|first| first.seq > after + 1) {
        event(&mut text, "gap", None, &json!({ "after": after, "before": first.seq }).to_string());
    }
    for record in new {
        // Plain data: it is always written.
        let data = serde_json::to_string(&**record).unwrap_or_default();
        event(&mut text, "record", Some(record.seq), &data);
    }
    event(&mut text, "view", None, &json!({ "seq": view.last_seq }).to_string());
    text
}

/// One event; `data` is JSON, which has no line's end in it.
fn event(text: &mut String, name: &str, id: Option<u64>, data: &str) {
    // A string takes everything.
    let _written = match id {
        Some(id) => write!(text, "event: {name}\nid: {id}\ndata: {data}\n\n"),
        None => write!(text, "event: {name}\ndata: {data}\n\n"),
    };
}

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
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| Problem::bad("`Last-Event-ID` is not the `seq` of a record"))
    });
    let place = Arc::clone(&app.followers).try_acquire_owned().map_err(|_| {
        let detail = "as many streams are followed as may be";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let now = Instant::now();
    let follower = Follower {
        sent: last.transpose()?.unwrap_or_else(|| app.view().last_seq),
        view: app.view.clone(),
        stopping: app.stopping.clone(),
        ends: now + app.limits.connection_age_max,
        looked_at: None,
        app,
        _place: place,
    };
    let stream = unfold(follower, async |mut follower| {
        let bytes = follower.next().await?;
        Some((Ok::<_, Infallible>(bytes), follower))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// One stream.
struct Follower {
    app: Arc<App>,
    view: watch::Receiver<Arc<View>>,
    stopping: watch::Receiver<bool>,
    /// The last record sent.
    sent: u64,
    ends: Instant,
    /// When it last told of a view; none: it has not begun.
    looked_at: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

/// What a stream waited for.
enum Waited {
    Changed,
    Quiet,
    Over,
}

impl Follower {
    /// What is told next; `None` when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let Some(looked_at) = self.looked_at else {
            let begun = self.look();
            return Some([RETRY.as_bytes(), &begun].concat().into());
        };
        match self.change(looked_at).await {
            Waited::Changed => Some(self.look()),
            Waited::Quiet => Some(Bytes::from_static(STILL_HERE)),
            Waited::Over => None,
        }
    }

    /// Waits for a new view.
    async fn change(&mut self, looked_at: Instant) -> Waited {
        let changed = async {
            sleep_until(looked_at + GAP).await;
            if self.view.changed().await.is_err() {
                // The controller has gone; what it last published keeps being served.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => Waited::Changed,
            _ = self.stopping.wait_for(|stopping| *stopping) => Waited::Over,
            () = sleep_until(self.ends) => Waited::Over,
            () = sleep(KEEP_ALIVE) => Waited::Quiet,
        }
    }

    fn look(&mut self) -> Bytes {
        let view = Arc::clone(&self.view.borrow_and_update());
        let told = self.app.told.of(&view, self.sent);
        self.sent = view.recent.last().map_or(self.sent, |newest| newest.seq.max(self.sent));
        self.looked_at = Some(Instant::now());
        told
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
    async fn those_who_know_the_same_are_told_the_same_bytes() {
        let bench = bench();
        show(&bench, 8..=10);
        let (view, told) = (Arc::clone(&bench.view.borrow()), Told::default());
        let first = told.of(&view, 8);
        assert_eq!(told.of(&view, 8).as_ptr(), first.as_ptr(), "written once");
        assert_ne!(told.of(&view, 9), first);
        show(&bench, 8..=11);
        let next = Arc::clone(&bench.view.borrow());
        assert_ne!(told.of(&next, 8), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_in_which_nothing_happens_says_that_it_is_there() {
        let bench = bench();
        let began = Instant::now();
        let text = told(&bench, None, "\n:\n\n").await;
        assert!(text.ends_with("\n:\n\n"), "{text}");
        assert_eq!(began.elapsed().as_secs(), KEEP_ALIVE.as_secs());
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
