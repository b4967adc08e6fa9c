//! An operator's word: pauses, approvals, rollbacks by hand, and words that cannot be recorded.

use super::*;

#[tokio::test]
async fn while_paused_nothing_is_rolled_back_and_afterwards_it_is() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    let until = stage.clock.now() + INTERVAL * 8;
    stage.say(Act::Pause { until: Some(until) }).await.unwrap();
    let record = stage.last_record();
    assert_eq!((record.event.as_str(), record.actor.as_str()), ("operator.paused", "ada"));
    assert_eq!(record.extra["reason"], "a test");
    assert!(matches!(stage.say(Act::Pause { until: None }).await, Err(Refusal::Conflict(_))));
    let mut stage = Stage { clock: stage.clock.clone(), ..Stage::resume(stage.ledger.clone()) };
    stage.controller.ports.clock = stage.clock.clone();
    for _ in 0..7 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    assert!(stage.controller.fleets["voice"].observed.history.rollback().is_none());
    assert_eq!(stage.last_record().event, "rollout.held", "{:?}", stage.events());
    for _ in 0..3 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    assert!(
        stage.controller.fleets["voice"].observed.history.rollback().is_some(),
        "the pause is over"
    );
}

#[tokio::test]
async fn a_pause_and_a_limit_end_also_after_the_observation_is_over() {
    for paused in [true, false] {
        let mut stage = Stage::new();
        stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
        if paused {
            let until = stage.clock.now() + INTERVAL * 50;
            stage.say(Act::Pause { until: Some(until) }).await.unwrap();
        } else {
            let limits = Limits { rollbacks: 1, per: INTERVAL * 50 };
            Arc::make_mut(&mut stage.controller.entries[0].config).limits = limits;
            stage.look(&[("v1", 2), ("v0", 2)], &[]).await;
            stage.say(Act::RollBack { version: Some(v("v0")), to: None }).await.unwrap();
            stage.say(Act::Abandon).await.unwrap();
        }
        // Five minutes are observed: 30 looks.
        for _ in 0..45 {
            stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
        }
        assert!(stage.controller.fleets["voice"].observed.history.rollback().is_none());
        for _ in 0..8 {
            stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
        }
        let rollback = stage.controller.fleets["voice"].observed.history.rollback();
        assert!(rollback.is_some(), "paused: {paused}, {:?}", stage.events());
    }
}

#[tokio::test]
async fn what_people_could_not_be_told_is_told_later() {
    let mut stage = Stage::new();
    Arc::make_mut(&mut stage.controller.entries[0].config).mode = Mode::Observe;
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    *stage.ledger.full.lock().unwrap() = true;
    for _ in 0..4 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    *stage.ledger.full.lock().unwrap() = false;
    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    assert_eq!(stage.last_record().event, "rollout.escalated");
}

#[tokio::test]
async fn a_rollback_that_needs_a_person_begins_when_one_approves() {
    let mut stage = Stage::new();
    let entry = &mut stage.controller.entries[0];
    Arc::make_mut(&mut entry.config).mode = Mode::Approve;
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    let early = stage.say(Act::Approve { version: None }).await;
    assert_eq!(early, Err(Refusal::Conflict("no version waits for approval".to_owned())));
    for _ in 0..3 {
        stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    }
    assert!(stage.controller.fleets["voice"].observed.history.rollback().is_none());
    assert_eq!(stage.last_record().event, "rollout.approval_requested");
    let wrong = stage.say(Act::Approve { version: Some(v("v1")) }).await;
    assert_eq!(wrong, Err(Refusal::Conflict("no version v1 waits for approval".to_owned())));
    let away = MetricError::Unreachable { url: "none".to_owned(), reason: "a test".to_owned() };
    stage.controller.hold_all(0, &away);
    let blind = stage.say(Act::Approve { version: None }).await;
    assert!(matches!(blind, Err(Refusal::Conflict(why)) if why.contains("did not answer")));
    stage.look(&[("v1", 2), ("v2", 2)], FAILING).await;
    assert_eq!(stage.say(Act::Approve { version: None }).await, Ok("rolling back v2".to_owned()));
    let events = stage.events();
    let at = events.iter().position(|event| event == "operator.approved").unwrap();
    assert_eq!(events[at + 1], "rollback.chosen", "in one transaction, the word first");
    assert!(matches!(stage.say(Act::Approve { version: None }).await, Err(Refusal::Conflict(_))));
}

#[tokio::test]
async fn a_person_can_roll_back_a_healthy_version_end_that_and_allow_it_again() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    let alone = stage.say(Act::RollBack { version: Some(v("v1")), to: None }).await;
    assert!(matches!(alone, Err(Refusal::Conflict(why)) if why.contains("no last good version")));
    stage.look(&[("v1", 2), ("v2", 2)], &[("v1", 20, 0), ("v2", 20, 0)]).await;
    let unknown = stage.say(Act::RollBack { version: Some(v("v9")), to: None }).await;
    assert_eq!(unknown, Err(Refusal::Conflict("no version v9 is known here".to_owned())));
    assert_eq!(
        stage.say(Act::RollBack { version: None, to: None }).await,
        Ok("rolling back v2".to_owned())
    );
    let draining =
        |stage: &Stage| stage.controller.fleets["voice"].observed.history.draining().len();
    assert_eq!(draining(&stage), 0, "v1 was able at a look before the word, however long ago");
    assert!(stage.controller.entries[0].out_of_turn, "it looks at once");
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    assert_eq!(draining(&stage), 1, "v1 is able");
    let busy = stage.say(Act::Allow { version: v("v2") }).await;
    assert!(matches!(busy, Err(Refusal::Conflict(why)) if why.contains("under way")));
    stage.say(Act::Abandon).await.unwrap();
    let record = stage.last_record();
    assert_eq!((record.event.as_str(), record.actor.as_str()), ("rollback.abandoned", "ada"));
    assert_eq!(record.extra["actor_proven"], true);
    assert_eq!(
        stage.say(Act::Abandon).await,
        Err(Refusal::Conflict("no rollback is under way".into()))
    );
    stage.say(Act::Allow { version: v("v2") }).await.unwrap();
    let again = stage.say(Act::Allow { version: v("v2") }).await;
    assert_eq!(again, Err(Refusal::Conflict("version v2 is not denied".to_owned())));
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    assert_eq!(stage.last_record().event, "deployment.started", "a candidate again");
}

#[tokio::test]
async fn a_word_that_cannot_be_recorded_is_not_followed() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], &[("v1", 20, 0), ("v2", 20, 0)]).await;
    *stage.ledger.full.lock().unwrap() = true;
    for act in [Act::Pause { until: None }, Act::RollBack { version: None, to: None }] {
        let refused = stage.say(act).await;
        assert!(matches!(refused, Err(Refusal::NotRecorded(why)) if why.contains("disk full")));
    }
    let history = &stage.controller.fleets["voice"].observed.history;
    assert!(history.paused(stage.clock.now()).is_none() && history.rollback().is_none());
    let other = Order { fleet: "chat".to_owned(), ..order(Act::Abandon) };
    let answer = stage.controller.take_order(&other).await.unwrap();
    assert_eq!(answer, Err(Refusal::UnknownFleet("chat".to_owned())));
}

#[tokio::test]
async fn a_rollback_is_refused_while_nobody_knows_how_many_must_take_over() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.look(&[("v1", 2), ("v2", 2)], &[("v1", 20, 0), ("v2", 20, 0)]).await;
    let back = Act::RollBack { version: Some(v("v2")), to: None };
    let is_blind = |answer: Result<String, Refusal>| matches!(answer, Err(Refusal::Conflict(why)) if why.contains("how many must take over"));
    // A start remembers versions, and no worker.
    let mut again = Stage::resume(stage.ledger.clone());
    assert!(is_blind(again.say(back.clone()).await));
    // Prometheus has lost its past.
    stage.look(&[], &[]).await;
    assert!(is_blind(stage.say(back.clone()).await));
    stage.look(&[("v2", 5)], &[]).await;
    stage.say(back).await.unwrap();
    let history = &stage.controller.fleets["voice"].observed.history;
    assert_eq!(history.rollback().unwrap().workers_needed, 5);
}
