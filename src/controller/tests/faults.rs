//! A clock that jumps, and a Prometheus that has lost its past.

use super::*;

async fn confirming() -> Stage {
    let mut stage = rolled_back_to_starting().await;
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    while stage.events().last().map(String::as_str) != Some("rollback.confirming") {
        stage.settle().await;
    }
    stage
}

#[tokio::test]
async fn an_answer_without_any_worker_does_not_prove_the_bad_version_gone() {
    let mut stage = confirming().await;
    for _ in 0..5 {
        stage.look(&[], &[]).await;
    }
    assert_eq!(stage.events().last().map(String::as_str), Some("rollback.confirming"));
    stage.look(&[("v1", 2)], &[]).await;
    stage.look(&[("v1", 2)], &[]).await;
    assert_eq!(stage.events().last().map(String::as_str), Some("rollback.clean"));
}

#[tokio::test]
async fn a_clock_put_back_moves_no_rollback_and_one_that_was_ahead_stops_none() {
    let mut stage = confirming().await;
    let moved = stage.clock.now();
    *stage.clock.0.lock().unwrap() = moved - INTERVAL * 10;
    for _ in 0..5 {
        stage.look(&[("v1", 2)], &[]).await;
    }
    assert_eq!(stage.events().last().map(String::as_str), Some("rollback.confirming"));
    let view = stage.controller.ports.view.borrow().clone();
    assert!(view.fleets["voice"].holding.as_ref().unwrap().contains("the clock is behind"));

    *stage.clock.0.lock().unwrap() = moved + Duration::from_hours(1);
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    *stage.clock.0.lock().unwrap() = moved;
    stage.look(&[("v1", 2)], &[]).await;
    stage.look(&[("v1", 2)], &[]).await;
    assert_eq!(stage.events().last().map(String::as_str), Some("rollback.clean"));
}

#[tokio::test]
async fn ticks_counted_by_a_clock_that_was_ahead_are_counted_again() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    let before = stage.clock.now();
    *stage.clock.0.lock().unwrap() = before + Duration::from_hours(2);
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    *stage.clock.0.lock().unwrap() = before + INTERVAL;
    for _ in 0..3 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    assert!(stage.events().contains(&"rollback.chosen".to_owned()), "{:?}", stage.events());
}

#[tokio::test]
async fn a_record_that_is_there_although_it_was_refused_stops_the_controller() {
    for (unsure, full) in [(true, false), (false, true)] {
        let mut stage = Stage::new();
        stage.look(&[("v1", 2)], &[]).await;
        *stage.ledger.unsure.lock().unwrap() = unsure;
        *stage.ledger.full.lock().unwrap() = full;
        stage.controller.note("controller.stopped", "ok").await.unwrap();
        let (plan, took) = (stage.controller.plan(0, stage.clock.now()), Duration::ZERO);
        let answer = Ok(crate::evaluate::plan::Answer::default());
        let looked =
            stage.controller.take_report(Report::Looked { plan, reloads: 0, took, answer }).await;
        let stopped = matches!(looked, Err(Stop::Ledger(LedgerError::Conflict { .. })));
        assert_eq!(stopped, unsure);
    }
}

#[tokio::test]
async fn a_look_whose_word_could_not_be_recorded_moves_no_rollback_by_the_word_before() {
    let mut stage = rolled_back_to_starting().await;
    // v1 comes up, and the disk is full for the drain alone.
    *stage.ledger.refuses.lock().unwrap() = vec!["deployment.drain_started", "rollback.starting"];
    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    assert_eq!(stage.last_record().event, "rollback.capable");
    // v1 has gone again, and that cannot be recorded either.
    stage.look(&[("v2", 2)], FAILING).await;
    assert_eq!(stage.last_record().event, "rollback.capable", "it drains what nobody can replace");
    stage.look(&[("v2", 2)], FAILING).await;
    assert_eq!(stage.last_record().event, "rollback.starting");
}

#[tokio::test]
async fn an_answer_to_the_rules_before_a_reload_is_not_taken() {
    let mut stage = Stage::new();
    let plan = stage.controller.plan(0, stage.clock.now());
    let mut rules = rules();
    rules.groups[0].sessions[0].name = "Renamed".to_owned();
    stage.controller.ports.load_rules = Box::new(move || Ok(rules.clone()));
    let reloads = stage.controller.reloads;
    stage.controller.reload().unwrap();
    let answer = Ok(crate::evaluate::plan::Answer::default());
    let report = Report::Looked { plan, reloads, took: SECOND, answer };
    stage.controller.take_report(report).await.unwrap();
    assert!(!stage.controller.ready, "it is no look");
    stage.look(&[("v1", 2)], &[]).await;
    assert!(stage.controller.ready);
}
