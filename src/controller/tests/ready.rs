//! Whether there is a way back, before it is needed.

use super::*;
use crate::config::StartCheck;

impl Stage {
    fn way_back(&self) -> (bool, String) {
        let view = self.controller.ports.view.borrow().clone();
        let metrics = self.controller.ports.metrics.encode().unwrap();
        let exported = metrics.contains(r#"rollbackd_last_good_ready{fleet="voice"} 1"#);
        let fleet = &view.fleets["voice"];
        assert_eq!(exported, fleet.last_good_ready);
        (fleet.last_good_ready, fleet.last_good_state.clone())
    }

    fn check_start(&mut self) {
        let config = Arc::make_mut(&mut self.controller.entries[0].config);
        let check =
            StartCheck { command: vec!["c".to_owned()], interval: INTERVAL * 3, timeout: SECOND };
        config.start.as_mut().unwrap().check = Some(check);
    }
}

#[tokio::test]
async fn a_start_command_alone_is_no_way_back() {
    let mut stage = Stage::new();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    assert_eq!(stage.way_back(), (true, "running".to_owned()));
    stage.look(&[("v2", 2)], &[]).await;
    let (ready, why) = stage.way_back();
    assert!(!ready && why.contains("nothing has checked"), "{why}");
    assert!(stage.asked().is_empty());
}

#[tokio::test]
async fn a_check_is_repeated_and_what_it_says_last_holds() {
    let mut stage = Stage::new();
    stage.check_start();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.settle().await;
    assert_eq!(stage.asked(), ["check 2 of v1"], "also while it runs");
    stage.look(&[("v2", 2)], &[]).await;
    let (ready, why) = stage.way_back();
    assert!(ready && why.contains("could be started"), "{why}");
    *stage.platform.1.lock().unwrap() = Some("no image".to_owned());
    for _ in 0..2 {
        stage.look(&[("v2", 2)], &[]).await;
    }
    stage.settle().await;
    let (ready, why) = stage.way_back();
    assert_eq!((ready, why.as_str()), (false, "not running, and the check failed: no image"));
    assert_eq!(stage.asked().len(), 2, "every third look");

    // Prometheus gone, it is checked all the same.
    *stage.platform.1.lock().unwrap() = None;
    for _ in 0..3 {
        stage.look_in_vain().await;
    }
    stage.settle().await;
    assert!(stage.way_back().0);
}

#[tokio::test]
async fn workers_that_only_drain_are_no_way_back_and_another_version_is_checked_anew() {
    let mut stage = Stage::new();
    stage.check_start();
    stage.look(&[("v1", 2)], &[("v1", 20, 0)]).await;
    stage.settle().await;
    for _ in 0..36 {
        stage.look(&[("v1", 2), ("v2", 2)], &[("v1", 20, 0), ("v2", 20, 0)]).await;
        if stage.last_record().event == "deployment.completed" {
            break;
        }
    }
    let fleet = stage.controller.fleets.get_mut("voice").unwrap();
    fleet.observed.seen.get_mut(&v("v2")).unwrap().draining = 2;
    stage.controller.show();
    let (ready, why) = stage.way_back();
    assert!(!ready && why.contains("nothing has checked"), "what was checked is v1: {why}");
}
