//! Rules on values, in the loop.

use super::*;
use crate::rules::ValueRule;

const HEALTHY: &[(&str, u64, u64)] = &[("v1", 20, 0), ("v2", 20, 0)];
const BOTH: &[(&str, usize)] = &[("v1", 2), ("v2", 2)];

fn slow() -> ValueRule {
    ValueRule {
        name: "SlowFirstResponse".to_owned(),
        value: "slow".to_owned(),
        escalate_above: Some(1.5),
        rollback_above: Some(6.0),
        hold_for: INTERVAL * 3,
        annotations: BTreeMap::new(),
        digest: "e".to_owned(),
    }
}

/// v2 has just appeared beside v1, and nothing fails.
async fn watching() -> Stage {
    let mut stage = Stage::new();
    with_rule(&mut stage);
    stage.look(&[("v1", 2)], HEALTHY).await;
    stage.look(BOTH, HEALTHY).await;
    stage
}

fn with_rule(stage: &mut Stage) {
    Arc::make_mut(&mut stage.controller.entries[0].groups)[0].values.push(slow());
}

impl Stage {
    async fn looks(&mut self, count: usize, value: Option<f64>) {
        self.values = value.map(|value| ("v2", value)).into_iter().collect();
        for _ in 0..count {
            self.look(BOTH, HEALTHY).await;
        }
    }
}

#[tokio::test]
async fn a_value_over_its_limit_is_told_once_and_after_its_time_rolled_back() {
    let mut stage = watching().await;
    stage.looks(2, Some(2.0)).await;
    let told = stage.last_record();
    assert_eq!(
        (told.event.as_str(), &told.extra["decision"]),
        ("rollout.escalated", &"escalate".into())
    );
    let reason = told.extra["reason"].as_str().unwrap();
    assert!(reason.contains("SlowFirstResponse") && reason.contains("v2 has 2"), "{reason}");
    stage.looks(1, Some(7.0)).await;
    let view = stage.controller.ports.view.borrow().clone();
    let shown = &view.fleets["voice"].rollouts[0].values[0];
    assert_eq!((shown.verdict.as_str(), shown.value), ("over", Some(7.0)));
    assert!(shown.over_since.is_some());
    stage.looks(2, Some(7.0)).await;
    assert_eq!(stage.last_record().seq, told.seq, "told once");
    stage.looks(1, Some(7.0)).await;
    let events = stage.events();
    let decided = events.iter().position(|event| event == "rollout.decided").unwrap();
    let decided = stage.ledger.records.lock().unwrap()[decided].clone();
    assert!(decided.extra["reason"].as_str().unwrap().contains("SlowFirstResponse"));
    let evidence = &decided.extra["values"][0];
    assert_eq!(
        (&evidence["rule"], &evidence["digest"]),
        (&"sessions/SlowFirstResponse".into(), &"e".into())
    );
    let above = evidence["ticks"].as_array().unwrap().iter().filter(|tick| tick[1] == 7.0);
    assert_eq!(above.count(), 4, "the first of them, and three ticks later");
}

#[tokio::test]
async fn a_gap_in_the_values_holds_and_never_rolls_back() {
    let mut stage = watching().await;
    for _ in 0..5 {
        stage.looks(2, Some(7.0)).await;
        stage.looks(1, None).await;
    }
    stage.looks(20, None).await;
    assert_eq!(stage.last_record().event, "rollout.held");
    let events = stage.events();
    assert!(!events.contains(&"rollout.decided".to_owned()), "{events:?}");
}

#[tokio::test]
async fn a_restart_asks_for_the_values_since_the_rollout_began() {
    let mut stage = watching().await;
    stage.looks(2, Some(7.0)).await;
    assert!(!stage.events().contains(&"rollback.chosen".to_owned()), "three ticks are not four");
    let mut again = Stage::resume(stage.ledger.clone());
    with_rule(&mut again);
    *again.clock.0.lock().unwrap() = stage.clock.now();
    // The first look only finds out what is there to watch.
    again.looks(2, Some(7.0)).await;
    assert!(again.events().contains(&"rollback.chosen".to_owned()), "{:?}", again.events());
}

#[tokio::test]
async fn where_no_rule_counts_sessions_values_are_enough_to_promote() {
    let mut stage = watching().await;
    Arc::make_mut(&mut stage.controller.entries[0].groups)[0].sessions.clear();
    stage.looks(40, Some(1.0)).await;
    assert_eq!(stage.last_record().event, "deployment.completed");
}
