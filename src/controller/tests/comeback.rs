//! A denied version that comes back.

use super::*;

const BOTH: &[(&str, usize)] = &[("v1", 2), ("v2", 2)];
const GOOD_ONLY: &[(&str, usize)] = &[("v1", 2)];

impl Stage {
    async fn until_clean(&mut self) {
        let drained = async {
            while self.last_record().event != "rollback.confirming" {
                self.settle().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), drained).await.unwrap();
        self.look(GOOD_ONLY, &[]).await;
        self.look(GOOD_ONLY, &[]).await;
        assert_eq!(self.last_record().event, "rollback.clean");
    }

    /// v2 was rolled back, and is gone.
    async fn rolled_back() -> Self {
        let mut stage = Self::new();
        stage.look(GOOD_ONLY, &[("v1", 20, 0)]).await;
        for _ in 0..3 {
            stage.look(BOTH, FAILING).await;
        }
        stage.until_clean().await;
        stage
    }

    fn draining(&self) -> usize {
        self.controller.fleets["voice"].observed.history.draining().len()
    }

    fn told(&self, event: &str) -> Vec<Record> {
        let records = self.ledger.records.lock().unwrap();
        records.iter().filter(|record| record.event == event).cloned().collect()
    }
}

#[tokio::test]
async fn it_is_drained_again_with_an_effect_of_its_own_and_a_record_first() {
    let mut stage = Stage::rolled_back().await;
    assert_eq!(stage.draining(), 0);
    stage.look(&[("v1", 2), ("v2", 1)], &[]).await;
    let events = stage.events();
    let returned = events.iter().position(|event| event == "rollback.returned").unwrap();
    assert_eq!(events[returned + 1], "rollback.chosen", "in one transaction");
    assert_eq!(stage.draining(), 1, "v1 can carry it");
    stage.until_clean().await;
    assert_eq!(stage.asked(), ["drain v2", "drain v2"]);
    let ids: Vec<_> =
        stage.told("rollback.clean").iter().map(|r| r.extra["rollback_id"].clone()).collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(stage.told("rollback.chosen")[1].extra["reason"], "denied, and came back");
}

#[tokio::test]
async fn one_that_has_replaced_the_good_version_serves_on_until_that_is_back() {
    let mut stage = Stage::rolled_back().await;
    for _ in 0..3 {
        stage.look(&[("v2", 2)], &[]).await;
    }
    stage.settle().await;
    assert_eq!(stage.asked(), ["drain v2", "start 2 of v1"]);
    assert_eq!(stage.draining(), 0, "drained before v1 can carry its load");
    stage.look(BOTH, &[]).await;
    assert_eq!(stage.draining(), 1);
    stage.until_clean().await;
}

#[tokio::test]
async fn a_worker_that_is_only_heard_is_back_too() {
    let mut stage = Stage::rolled_back().await;
    stage.controller.hear(Heartbeat {
        fleet: "voice".to_owned(),
        worker_id: "v2-9".to_owned(),
        version: v("v2"),
        draining: false,
        active_sessions: 1,
        timestamp_seconds: 0.0,
        token: String::new(),
    });
    stage.look(GOOD_ONLY, &[]).await;
    assert_eq!(stage.told("rollback.returned").len(), 1);
    assert_eq!(stage.draining(), 1);
}

#[tokio::test]
async fn the_third_time_in_an_hour_people_are_told_instead_and_later_it_is_drained_again() {
    let mut stage = Stage::rolled_back().await;
    for _ in 0..2 {
        stage.look(BOTH, &[]).await;
        stage.until_clean().await;
    }
    let (asked, drained) = (stage.asked().len(), stage.told("rollback.chosen").len());
    let mut stage = {
        let clock = stage.clock.clone();
        let again = Stage::resume(stage.ledger.clone());
        *again.clock.0.lock().unwrap() = clock.now();
        again
    };
    for _ in 0..5 {
        stage.look(BOTH, &[]).await;
    }
    assert_eq!((asked, stage.asked().len()), (3, 0));
    assert_eq!(stage.told("rollback.chosen").len(), drained, "told, and not drained");
    let told = stage.told("rollback.returned");
    assert_eq!((told.len(), told[2].result.as_str()), (3, "escalate"), "once");
    let view = stage.controller.ports.view.borrow().clone();
    let seen = view.fleets["voice"].versions.iter().find(|seen| seen.version == "v2").unwrap();
    assert!(seen.returned.as_ref().unwrap().contains("for the third time"), "{seen:?}");
    let metrics = stage.controller.ports.metrics.encode().unwrap();
    assert!(metrics.contains(r#"rollbackd_denied_workers{fleet="voice",version="v2"} 2"#));

    // A person may, at once; and when the hour is over, it does so by itself.
    let clock = stage.clock.now();
    let by_hand = Act::RollBack { version: Some(v("v2")), to: None };
    assert_eq!(stage.say(by_hand.clone()).await, Ok("rolling back v2".to_owned()));
    stage.look(BOTH, &[]).await;
    stage.until_clean().await;
    let metrics = stage.controller.ports.metrics.encode().unwrap();
    assert!(!metrics.contains("rollbackd_denied_workers{"));
    assert!(
        matches!(stage.say(by_hand).await, Err(Refusal::Conflict(why)) if why.contains("none of its workers"))
    );
    *stage.clock.0.lock().unwrap() = clock + Duration::from_hours(1);
    stage.look(BOTH, &[]).await;
    assert_eq!(stage.told("rollback.returned").last().unwrap().result, "roll_back");
}

#[tokio::test]
async fn coming_back_uses_up_no_limit_and_an_abandoned_rollback_leaves_its_workers_alone() {
    let mut stage = Stage::rolled_back().await;
    let limits = Limits { rollbacks: 2, per: Duration::from_hours(24) };
    Arc::make_mut(&mut stage.controller.entries[0].config).limits = limits;
    stage.look(BOTH, &[]).await;
    stage.say(Act::Abandon).await.unwrap();
    let before = stage.events();
    for _ in 0..3 {
        stage.look(BOTH, &[]).await;
    }
    assert_eq!(stage.events(), before, "an operator has left them to themselves");
    assert_eq!(stage.draining(), 0);
    for _ in 0..3 {
        stage.look(&[("v1", 2), ("v3", 2)], &[("v1", 20, 0), ("v3", 20, 15)]).await;
    }
    let rollback = stage.controller.fleets["voice"].observed.history.rollback();
    assert_eq!(rollback.map(|r| r.bad.clone()), Some(v("v3")), "the second that was decided");
}

#[tokio::test]
async fn while_paused_it_is_held_and_a_clock_put_back_shows_no_comeback() {
    let mut stage = Stage::rolled_back().await;
    let now = stage.clock.now();
    *stage.clock.0.lock().unwrap() = now - INTERVAL * 10;
    stage.look(BOTH, &[]).await;
    assert!(stage.told("rollback.returned").is_empty(), "the past");
    *stage.clock.0.lock().unwrap() = now;
    stage.say(Act::Pause { until: None }).await.unwrap();
    for _ in 0..3 {
        stage.look(BOTH, &[]).await;
    }
    assert_eq!(stage.told("rollback.returned").len(), 1);
    assert_eq!(stage.last_record().result, "hold");
    stage.say(Act::Resume).await.unwrap();
    stage.look(BOTH, &[]).await;
    assert_eq!(stage.draining(), 1);
}

#[tokio::test]
async fn a_worker_that_comes_while_the_others_leave_is_asked_to_drain_by_the_command_too() {
    let mut stage = rolled_back_to_starting().await;
    Arc::make_mut(&mut stage.controller.entries[0].config).drain.command =
        Some(vec!["d".to_owned()]);
    stage.look(BOTH, &[]).await;
    while stage.last_record().event != "rollback.confirming" {
        stage.settle().await;
    }
    stage.look(BOTH, &[]).await;
    let drains = |stage: &Stage| stage.asked().iter().filter(|asked| *asked == "drain v2").count();
    assert_eq!(drains(&stage), 1, "they were asked");
    stage.look(&[("v1", 2), ("v2", 3)], &[]).await;
    stage.settle().await;
    stage.look(&[("v1", 2), ("v2", 3)], &[]).await;
    assert_eq!(drains(&stage), 2);
}

#[tokio::test]
async fn an_operator_names_the_version_to_go_back_to_and_it_is_the_last_good_one_then() {
    let mut stage = Stage::new();
    stage.look(&[("v0", 2)], &[("v0", 20, 0)]).await;
    let good = |version| [("v0", 20, 0), (version, 20, 0)];
    while stage.last_record().event != "deployment.completed" {
        stage.look(&[("v0", 2), ("v1", 2)], &good("v1")).await;
    }
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    let to = |to: &str| Act::RollBack { version: Some(v("v2")), to: Some(v(to)) };
    for wrong in ["v2", "v9"] {
        let refused = stage.say(to(wrong)).await;
        assert_eq!(
            refused,
            Err(Refusal::Conflict(format!("version {wrong} is not known as good")))
        );
    }
    stage.say(to("v0")).await.unwrap();
    let chosen = stage.told("rollback.chosen").pop().unwrap();
    assert_eq!(chosen.version.as_deref(), Some("v0"));
    let again = Stage::resume(stage.ledger.clone());
    let last_good = again.controller.fleets["voice"].observed.history.last_good().cloned();
    assert_eq!(last_good, Some(v("v0")), "it is no candidate when it is back");
    stage.say(Act::Abandon).await.unwrap();
    let denied = Act::RollBack { version: Some(v("v1")), to: Some(v("v2")) };
    assert!(
        matches!(stage.say(denied).await, Err(Refusal::Conflict(why)) if why.contains("not known"))
    );
}
