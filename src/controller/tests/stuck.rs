//! What gets out of `stuck`.

use super::*;

async fn stuck_for_capacity() -> Stage {
    let mut stage = rolled_back_to_starting().await;
    stage.settle().await;
    for _ in 0..62 {
        stage.look(&[("v2", 2)], &[]).await;
    }
    assert_eq!(stage.last_record().extra["awaiting"], "capacity");
    let metrics = stage.controller.ports.metrics.encode().unwrap();
    let shown = r#"rollbackd_rollback_state{fleet="voice",state="stuck",version="v2"} 1"#;
    assert!(metrics.contains(shown), "{metrics}");
    stage
}

async fn stuck_for_emptiness() -> Stage {
    let mut stage = rolled_back_to_starting().await;
    stage.look(&[("v1", 2), ("v2", 1)], &[]).await;
    while stage.last_record().event != "rollback.confirming" {
        stage.settle().await;
        stage.look(&[("v1", 2), ("v2", 1)], &[]).await;
    }
    for _ in 0..=2 * 3600 / 10 {
        stage.look(&[("v1", 2), ("v2", 1)], &[]).await;
    }
    assert_eq!(stage.last_record().extra["awaiting"], "emptiness");
    stage
}

#[tokio::test]
async fn workers_that_come_and_an_abandonment_get_a_start_unstuck() {
    let mut stage = stuck_for_capacity().await;
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    assert!(stage.events().contains(&"rollback.capable".to_owned()));
    let mut stage = stuck_for_capacity().await;
    stage.say(Act::Abandon).await.unwrap();
    stage.look(&[("v1", 2), ("v2", 2)], &[]).await;
    assert!(!stage.events().contains(&"rollback.capable".to_owned()));
}

#[tokio::test]
async fn a_config_that_says_proceed_gets_a_start_unstuck_after_a_restart() {
    let stage = stuck_for_capacity().await;
    let clock = stage.clock.now();
    let mut stage = Stage::resume(stage.ledger.clone());
    *stage.clock.0.lock().unwrap() = clock;
    stage.look(&[("v1", 1), ("v2", 2)], &[]).await;
    assert_eq!(stage.last_record().event, "rollback.stuck");
    let config = Arc::make_mut(&mut stage.controller.entries[0].config);
    config.on_start_timeout = OnStartTimeout::Proceed;
    stage.look(&[("v1", 1), ("v2", 2)], &[]).await;
    assert_eq!(stage.last_record().event, "deployment.drain_started");
}

#[tokio::test]
async fn the_last_worker_that_leaves_and_an_abandonment_get_a_drain_unstuck() {
    let stage = stuck_for_emptiness().await;
    let drains = stage.asked().iter().filter(|asked| asked.starts_with("drain")).count();
    assert_eq!(drains, 1, "it is never forced");
    let mut again = Stage::resume(stage.ledger.clone());
    *again.clock.0.lock().unwrap() = stage.clock.now();
    for _ in 0..2 {
        again.look(&[("v1", 2)], &[]).await;
    }
    assert_eq!(again.last_record().event, "rollback.clean", "also after a restart");
    let mut stage = stuck_for_emptiness().await;
    stage.say(Act::Abandon).await.unwrap();
    assert_eq!(stage.last_record().event, "rollback.abandoned");
    stage.look(&[("v1", 2), ("v2", 1)], &[]).await;
    assert_eq!(stage.last_record().event, "rollback.abandoned", "its worker is left alone");
}
