use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use super::*;
use crate::domain::time::Timestamp;
use crate::ledger::record::Draft;
use crate::ports::view::FleetView;

/// Answers from a script, then takes everything; remembers what it was sent.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<Result<(), NotifyError>>>>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn answering(answers: impl IntoIterator<Item = Result<(), NotifyError>>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, ..Self::default() }
    }

    /// The records it was sent events of.
    fn seqs(&self) -> Vec<u64> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().map(|body| body["data"]["customData"]["seq"].as_u64().unwrap()).collect()
    }
}

impl Notifier for Receiver {
    async fn post(
        &self,
        _: &str,
        _: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<(), NotifyError> {
        self.bodies.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        self.answers.lock().unwrap().pop_front().unwrap_or(Ok(()))
    }
}

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<Record>>>);

impl Book {
    fn add(&self, event: &str, target: &str, extra: Map<String, Value>) {
        let mut records = self.0.lock().unwrap();
        let seq = records.len() as u64 + 1;
        records.push(Record {
            seq,
            timestamp: "2026-01-31T23:59:59.000Z".to_owned(),
            event: event.to_owned(),
            actor: "rollbackd".to_owned(),
            target: target.to_owned(),
            result: "ok".to_owned(),
            version: Some("v1".to_owned()),
            previous: String::new(),
            hash: format!("hash-{seq}"),
            signature: String::new(),
            key: String::new(),
            extra,
        });
    }

    fn rolled_back(&self) {
        self.add("deployment.rolled_back", "voice", Map::new());
    }
}

impl Ledger for Book {
    async fn append(&self, _: u64, _: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        unreachable!("only the controller appends")
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<Record>, LedgerError> {
        let records = self.0.lock().unwrap();
        let later = records.iter().filter(|record| record.seq > after);
        Ok(later.take(limit as usize).cloned().collect())
    }
}

/// A controller that does nothing but record what it is told was told.
struct House {
    book: Book,
    view: watch::Sender<Arc<View>>,
    task: tokio::task::JoinHandle<()>,
    controller: tokio::task::JoinHandle<()>,
}

impl House {
    fn start(book: &Book, receiver: &Receiver) -> Self {
        let ready = View { ready: true, ..View::default() };
        let (view, seen) = watch::channel(Arc::new(ready));
        let (inbox, mut messages) = mpsc::channel(8);
        let recording = book.clone();
        let controller = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let Message::Told(told, reply) = message else { panic!("{message:?}") };
                let event = match told.outcome {
                    Outcome::Begun => "notice.begun",
                    Outcome::Delivered => "notice.delivered",
                    Outcome::Refused(_) => "notice.refused",
                };
                let extra = json!({"up_to_seq": told.up_to_seq});
                recording.add(event, told.sink, extra.as_object().unwrap().clone());
                reply.send(true).unwrap();
            }
        });
        let about = Source {
            source: "/rollbackd".to_owned(),
            environment: "production".to_owned(),
            artifact: "pkg:generic/{{fleet}}@{{version}}".to_owned(),
        };
        let metrics = Metrics::new("1", "a").unwrap();
        let told = Told { view: seen, clock: Arc::new(Epoch), metrics };
        let signer = Signer::from_seed(&[7; 32]);
        let ledger = Arc::new(book.clone());
        let telling = tell_events(receiver.clone(), ledger, about, signer, inbox, told);
        Self { book: book.clone(), view, task: tokio::spawn(telling), controller }
    }

    /// Time passes, as much as retries and pauses may take.
    async fn hours(&self, hours: u64) {
        for _ in 0..hours * 60 {
            self.view.send_modify(|_| {});
            sleep(Duration::from_mins(1)).await;
        }
    }

    fn kill(self) {
        self.task.abort();
        self.controller.abort();
    }

    fn events(&self) -> Vec<String> {
        self.book.0.lock().unwrap().iter().map(|record| record.event.clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_the_first_start_is_not_told_and_what_follows_is() {
    let (book, receiver) = (Book::default(), Receiver::default());
    book.rolled_back();
    let house = House::start(&book, &receiver);
    house.hours(1).await;
    assert_eq!(receiver.seqs(), [0; 0]);
    assert_eq!(house.events()[1..], ["notice.begun"]);
    book.rolled_back();
    book.add("rollback.clean", "voice", Map::new());
    house.hours(1).await;
    assert_eq!(receiver.seqs(), [3]);
    house.kill();
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_for_an_hour_gets_everything_once_and_in_order() {
    let failing = || Err(NotifyError::Failed("HTTP 500".to_owned()));
    let (book, receiver) = (Book::default(), Receiver::answering((0..60).map(|_| failing())));
    let house = House::start(&book, &receiver);
    house.hours(1).await;
    book.rolled_back();
    book.add("deployment.completed", "voice", Map::new());
    house.hours(3).await;
    let seqs = receiver.seqs();
    assert_eq!(seqs[..61], [2; 61], "the first one until it is taken");
    assert_eq!(seqs[61..], [3]);
    house.kill();
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_ledger_says_it_was() {
    let (book, receiver) = (Book::default(), Receiver::default());
    let house = House::start(&book, &receiver);
    house.hours(1).await;
    book.rolled_back();
    house.hours(1).await;
    house.kill();
    book.rolled_back();
    let house = House::start(&book, &receiver);
    house.hours(1).await;
    let rolled_back: Vec<u64> = book
        .0
        .lock()
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, record)| record.event == "deployment.rolled_back")
        .map(|(place, _)| place as u64 + 1)
        .collect();
    assert_eq!(receiver.seqs(), rolled_back);
    house.kill();
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_holds_nothing_up_and_is_recorded() {
    let refusal = Err(NotifyError::Refused("HTTP 400".to_owned()));
    let (book, receiver) = (Book::default(), Receiver::answering([refusal]));
    let house = House::start(&book, &receiver);
    house.hours(1).await;
    book.rolled_back();
    book.rolled_back();
    house.hours(1).await;
    assert_eq!(receiver.seqs(), [2, 3]);
    let notices: Vec<String> =
        house.events().into_iter().filter(|event| event.starts_with("notice.")).collect();
    assert_eq!(notices, ["notice.begun", "notice.refused", "notice.delivered"]);
    house.kill();
}

#[tokio::test(start_paused = true)]
async fn an_alertmanager_that_fails_for_an_hour_is_told_of_what_is_still_so() {
    let failing = || Err(NotifyError::Failed("HTTP 500".to_owned()));
    let receiver = Receiver::answering((0..40).map(|_| failing()));
    let mut fleet = FleetView { fleet: "voice".to_owned(), ..FleetView::default() };
    fleet.holding = Some("Prometheus does not answer".to_owned());
    let fleets = [("voice".to_owned(), fleet)].into();
    let (view, seen) = watch::channel(Arc::new(View { ready: true, fleets, ..View::default() }));
    let metrics = Metrics::new("1", "a").unwrap();
    let told = Told { view: seen, clock: Arc::new(Epoch), metrics: metrics.clone() };
    let task = tokio::spawn(tell_alertmanager(receiver.clone(), told));
    sleep(Duration::from_hours(1)).await;
    let bodies = receiver.bodies.lock().unwrap().clone();
    assert!(bodies.len() > 40, "it was taken after {} times", bodies.len());
    assert!(bodies.len() < 120, "and not asked without end: {}", bodies.len());
    let held = |alert: &Value| alert["labels"]["alertname"] == "FleetHeld";
    assert!(bodies.last().unwrap().as_array().unwrap().iter().any(held), "{bodies:#?}");
    let encoded = metrics.encode().unwrap();
    assert!(encoded.contains(r#"rollbackd_notices_total{outcome="failed",to="alertmanager"} 40"#));
    drop(view);
    task.await.unwrap();
}
