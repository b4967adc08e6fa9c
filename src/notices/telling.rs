//! The two tasks that tell: each on its own, in its own time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::alerts::{Board, alerts};
use super::cdevents::{self, Event, Source};
use crate::ledger::record::Record;
use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::ports::inbox::{Message, Outcome, Told as Report};
use crate::ports::ledger::{Ledger, LedgerError};
use crate::ports::notify::{Notifier, NotifyError};
use crate::ports::view::View;
use crate::signing::Signer;

/// Alertmanager forgets what is not said again; this often it is, as Prometheus does.
const RESEND: Duration = Duration::from_mins(1);
/// Changes closer together than this are told in one.
const GATHER: Duration = Duration::from_secs(1);
/// The first pause after a failure, doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long to wait for a change of the view before looking at the ledger all the same.
const IDLE: Duration = Duration::from_secs(30);
/// Records read at once.
const PAGE_RECORDS: u32 = 500;
/// Whom `tell_events` tells, in the ledger.
const SINK: &str = "cdevents";

/// What both tasks need.
pub struct Told {
    /// What the controller shows.
    pub view: watch::Receiver<Arc<View>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Its own metrics.
    pub metrics: Metrics,
}

/// Logs the first failure of a row, and its end.
#[derive(Default)]
struct Log {
    failing: bool,
}

impl Log {
    fn failed(&mut self, to: &str, error: &NotifyError) {
        if !self.failing {
            warn!(to, %error, "notices are not taken; trying again");
        }
        self.failing = true;
    }

    fn taken(&mut self, to: &str) {
        if std::mem::take(&mut self.failing) {
            info!(to, "notices are taken again");
        }
    }
}

/// Keeps Alertmanager told of what is so, until the controller is gone.
pub async fn tell_alertmanager<N: Notifier>(notifier: N, mut from: Told) {
    if !has_looked(&mut from).await {
        return;
    }
    let (mut board, mut log) = (Board::default(), Log::default());
    let (mut due, mut pause) = (Instant::now(), PAUSE);
    loop {
        let now = from.clock.now();
        let current = Arc::clone(&from.view.borrow_and_update());
        let news = board.update(alerts(&current, now), now);
        if news || Instant::now() >= due {
            let told = if board.is_empty() {
                Ok(())
            } else {
                tell(&notifier, board.payload(now), &mut log, &from.metrics).await
            };
            let next = if told.is_ok() { RESEND } else { pause };
            pause = if told.is_ok() { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
            due = Instant::now() + next;
        }
        let gone = tokio::select! {
            changed = from.view.changed() => changed.is_err(),
            () = sleep_until(due) => false,
        };
        if gone {
            return;
        }
        sleep(GATHER).await;
    }
}

/// Posts alerts once.
async fn tell<N: Notifier>(
    notifier: &N,
    alerts: Vec<u8>,
    log: &mut Log,
    metrics: &Metrics,
) -> Result<(), NotifyError> {
    let told = notifier.post("/api/v2/alerts", &[], alerts).await;
    match &told {
        Ok(()) => log.taken("alertmanager"),
        Err(error) => log.failed("alertmanager", error),
    }
    metrics.notice_finished("alertmanager", if told.is_ok() { "sent" } else { "failed" });
    told
}

/// Waits until rollbackd has looked: nothing is told of a ledger before it has been verified.
/// `false`: the controller is gone.
async fn has_looked(from: &mut Told) -> bool {
    from.view.wait_for(|view| view.ready).await.is_ok()
}

/// Posts every event of the ledger once it is there, each in its turn, until the controller is
/// gone. How far that has come is itself recorded, so a restart goes on from there; an event that
/// was taken just before a crash is posted again, under the same id.
pub async fn tell_events<N: Notifier, L: Ledger>(
    notifier: N,
    ledger: Arc<L>,
    about: Source,
    signer: Signer,
    inbox: mpsc::Sender<Message>,
    mut from: Told,
) {
    if !has_looked(&mut from).await {
        return;
    }
    let mut told: Option<u64> = None;
    let mut events = Events { notifier, about, signer, inbox, from, log: Log::default() };
    loop {
        match pass(&mut events, &*ledger, &mut told).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => warn!(%error, "the ledger cannot be read for notices"),
        }
        // A change of the view, or the time: the ledger says whether there is anything to tell.
        match timeout(IDLE, events.from.view.changed()).await {
            Ok(Ok(())) => sleep(GATHER).await,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}

/// Tells what is new; `false` once the controller is gone.
async fn pass<N: Notifier, L: Ledger>(
    events: &mut Events<N>,
    ledger: &L,
    told: &mut Option<u64>,
) -> Result<bool, LedgerError> {
    let mut after = match *told {
        Some(seq) => seq,
        None => match begin(ledger).await? {
            Begin::Resumed(seq) => seq,
            Begin::Fresh(seq) => {
                if !events.report(seq, Outcome::Begun).await {
                    return Ok(!events.inbox.is_closed());
                }
                seq
            }
        },
    };
    *told = Some(after);
    loop {
        let records = ledger.read(after, PAGE_RECORDS).await?;
        if records.is_empty() {
            return Ok(true);
        }
        for record in &records {
            if let Some(event) = cdevents::event(record, &events.about)
                && !events.tell(record.seq, &event).await
            {
                return Ok(!events.inbox.is_closed());
            }
            after = record.seq;
            *told = Some(after);
        }
    }
}

enum Begin {
    /// Told up to this record.
    Resumed(u64),
    /// Never told: from the end of the ledger on.
    Fresh(u64),
}

/// How far the ledger says it has come.
async fn begin<L: Ledger>(ledger: &L) -> Result<Begin, LedgerError> {
    let (mut last, mut resumed) = (0, None);
    loop {
        let records = ledger.read(last, PAGE_RECORDS).await?;
        let Some(end) = records.last() else { break };
        last = end.seq;
        resumed = records.iter().rev().find_map(up_to).or(resumed);
    }
    Ok(resumed.map_or(Begin::Fresh(last), Begin::Resumed))
}

fn up_to(record: &Record) -> Option<u64> {
    let ours = record.event.starts_with("notice.") && record.target == SINK;
    record.extra.get("up_to_seq").filter(|_| ours).and_then(serde_json::Value::as_u64)
}

struct Events<N> {
    notifier: N,
    about: Source,
    signer: Signer,
    inbox: mpsc::Sender<Message>,
    from: Told,
    log: Log,
}

impl<N: Notifier> Events<N> {
    /// Posts an event until it is taken or refused for good; `false`: it is not recorded.
    async fn tell(&mut self, seq: u64, event: &Event) -> bool {
        let mut pause = PAUSE;
        let outcome = loop {
            let headers = cdevents::headers(event, &self.signer, self.from.clock.now());
            match self.notifier.post("", &headers, event.body.clone()).await {
                Ok(()) => break Outcome::Delivered,
                Err(NotifyError::Refused(reason)) => {
                    warn!(to = SINK, seq, reason, "an event is refused for good");
                    break Outcome::Refused(reason);
                }
                Err(error @ NotifyError::Failed(_)) => {
                    self.log.failed(SINK, &error);
                    self.from.metrics.notice_finished(SINK, "failed");
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.inbox.closed() => return false,
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        };
        if outcome == Outcome::Delivered {
            self.log.taken(SINK);
        }
        let name = if outcome == Outcome::Delivered { "sent" } else { "refused" };
        self.from.metrics.notice_finished(SINK, name);
        self.report(seq, outcome).await
    }

    /// Has it recorded; `false` if it is not.
    async fn report(&self, up_to_seq: u64, outcome: Outcome) -> bool {
        let (reply, answer) = oneshot::channel();
        let message = Message::Told(Report { sink: SINK, up_to_seq, outcome }, reply);
        self.inbox.send(message).await.is_ok() && answer.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
