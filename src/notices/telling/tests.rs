use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use super::*;
use crate::domain::time::Timestamp;
use crate::ledger::record::Draft;
use crate::ports::view::FleetView;

/// Answers from a script, then takes everything, but for the time in which it fails; remembers what
/// it was sent.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<Result<(), NotifyError>>>>,
    fails_until: Option<Instant>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn answering(answers: impl IntoIterator<Item = Result<(), NotifyError>>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, ..Self::default() }
    }

    /// One that answers 500 for so long, from now on.
    fn failing_for(time: Duration) -> Self {
        Self { fails_until: Some(Instant::now() + time), ..Self::default() }
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
        if self.fails_until.is_some_and(|end| Instant::now() < end) {
            return Err(NotifyError::Failed("HTTP 500".to_owned()));
        }
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
    fn add(&self, event: &str, target: &str, extra: Map<String, Value>) -> u64 {
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
        seq
    }

    fn rolled_back(&self) -> u64 {
        self.add("deployment.rolled_back", "voice", Map::new())
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
        self.minutes(hours * 60).await;
    }

    async fn minutes(&self, minutes: u64) {
        for _ in 0..minutes {
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
    let book = Book::default();
    let house = House::start(&book, &Receiver::default());
    house.hours(1).await;
    house.kill();
    let receiver = Receiver::failing_for(Duration::from_hours(1));
    let house = House::start(&book, &receiver);
    let first = book.rolled_back();
    let second = book.add("deployment.completed", "voice", Map::new());
    house.minutes(59).await;
    let tried = receiver.seqs();
    assert!(tried.iter().all(|seq| *seq == first), "in order: {tried:?}");
    assert!((60..70).contains(&tried.len()), "{} times in an hour", tried.len());
    house.minutes(5).await;
    let later = receiver.seqs().split_off(tried.len());
    let taken = later.iter().filter(|seq| **seq == first).count();
    assert!(taken <= 2 && later.ends_with(&[first, second]), "{later:?}");
    assert_eq!(house.events().iter().filter(|event| *event == "notice.delivered").count(), 2);
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
    let receiver = Receiver::failing_for(Duration::from_hours(1));
    let mut fleet = FleetView { fleet: "voice".to_owned(), ..FleetView::default() };
    fleet.holding = Some("Prometheus does not answer".to_owned());
    let fleets = [("voice".to_owned(), fleet)].into();
    let (view, seen) = watch::channel(Arc::new(View { ready: true, fleets, ..View::default() }));
    let metrics = Metrics::new("1", "a").unwrap();
    let told = Told { view: seen, clock: Arc::new(Epoch), metrics: metrics.clone() };
    let task = tokio::spawn(tell_alertmanager(receiver.clone(), told));
    sleep(Duration::from_hours(1)).await;
    let tried = receiver.bodies.lock().unwrap().len();
    assert!((60..70).contains(&tried), "{tried} times in an hour");
    let encoded = metrics.encode().unwrap();
    assert!(!encoded.contains(r#"outcome="sent""#), "{encoded}");
    sleep(Duration::from_mins(2)).await;
    let encoded = metrics.encode().unwrap();
    assert!(encoded.contains(r#"rollbackd_notices_total{outcome="sent",to="alertmanager"}"#));
    let bodies = receiver.bodies.lock().unwrap().clone();
    let held = |alert: &Value| alert["labels"]["alertname"] == "FleetHeld";
    assert!(bodies.last().unwrap().as_array().unwrap().iter().any(held), "{bodies:#?}");
    drop(view);
    task.await.unwrap();
}
