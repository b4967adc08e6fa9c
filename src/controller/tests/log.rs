//! What is logged: each thing once, when it is recorded, with the fields that it is found by.

use std::io::{self, Write};
use std::sync::Once;

use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Takes what is logged on this thread.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Paper {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Paper {
    fn begin(&self) -> tracing::subscriber::DefaultGuard {
        // Else a test on another thread, which listens to nothing, may be the first to come by a
        // place that logs, and switch it off for all.
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| {
            let nowhere = tracing_subscriber::fmt().with_writer(io::sink).finish();
            tracing::subscriber::set_global_default(nowhere).unwrap();
        });
        let json = tracing_subscriber::fmt().json().flatten_event(true).without_time();
        tracing::subscriber::set_default(json.with_writer(self.clone()).finish())
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn said(&self) -> Vec<String> {
        let message = |line: &serde_json::Value| line["message"].as_str().unwrap().to_owned();
        self.lines().iter().map(message).collect()
    }
}

#[tokio::test]
async fn what_happens_is_logged_with_fleet_version_and_rollback() {
    let (mut stage, paper) = (Stage::new(), Paper::default());
    let _logging = paper.begin();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    for _ in 0..3 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    stage.say(Act::Abandon).await.unwrap();
    let lines = paper.lines();
    let line = |message| {
        let found: Vec<_> = lines.iter().filter(|line| line["message"] == message).collect();
        assert!(!found.is_empty(), "no `{message}` in {lines:#?}");
        found[0]
    };
    assert_eq!(line("taken as good")["version"], "v1");
    assert_eq!(line("under observation")["baseline"], "v1");
    let id = &line("rolling back")["rollback"];
    assert!(line("rolling back")["reason"].as_str().unwrap().contains("fails more than allowed"));
    for message in ["under observation", "regressed", "rolling back", "rollback moved"] {
        let line = line(message);
        assert_eq!((&line["fleet"], &line["version"]), (&"voice".into(), &"v2".into()), "{line}");
    }
    for message in ["rollback moved", "on an operator's word"] {
        assert_eq!(&line(message)["rollback"], id, "{}", line(message));
    }
    let word = line("on an operator's word");
    assert_eq!((&word["actor"], &word["reason"]), (&"ada".into(), &"a test".into()));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_logged_at_every_look() {
    let (mut stage, paper) = (Stage::new(), Paper::default());
    let _logging = paper.begin();
    *stage.ledger.full.lock().unwrap() = true;
    for _ in 0..5 {
        stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    }
    assert_eq!(paper.said(), ["not acting: the ledger takes no record"]);
    *stage.ledger.full.lock().unwrap() = false;
    for _ in 0..2 {
        stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    }
    let again = ["the ledger takes records again", "taken as good"];
    assert_eq!(paper.said()[1..], again);

    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    Arc::make_mut(&mut stage.controller.entries[0].config).mode = Mode::Observe;
    let before = paper.said().len();
    *stage.ledger.full.lock().unwrap() = true;
    for _ in 0..5 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    assert_eq!(paper.said()[before..], ["not acting: the ledger takes no record"]);
}

#[tokio::test]
async fn an_outage_of_prometheus_is_logged_once_also_before_a_fleet_is_known() {
    let (mut stage, paper) = (Stage::new(), Paper::default());
    let _logging = paper.begin();
    let (dark, light) = ("holding: no decision without an answer", "there are answers again");
    for _ in 0..3 {
        stage.look_in_vain().await;
    }
    assert_eq!(paper.said(), [dark]);
    for _ in 0..2 {
        stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    }
    for _ in 0..3 {
        stage.look_in_vain().await;
    }
    assert_eq!(paper.said(), [dark, light, "taken as good", dark]);
}
