//! Many fleets of one entry that regress at once.

use super::*;

const SITES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const GOOD: &[(&str, u64, u64)] = &[("v1", 20, 0), ("v2", 20, 0)];

impl Stage {
    async fn look_at_failing(&mut self, failing: &[&str]) {
        let both: &[(&str, usize)] = &[("v1", 2), ("v2", 2)];
        let counts = |site: &str| if failing.contains(&site) { FAILING } else { GOOD };
        self.look_at(&SITES.map(|site| (site, both, counts(site)))).await;
    }

    /// Six fleets on v1, to which v2 has just come.
    async fn with_six_fleets() -> Self {
        let mut stage = Self::new();
        stage.divide();
        let (alone, counts): (&[_], &[_]) = (&[("v1", 2)], &[("v1", 20, 0)]);
        stage.look_at(&SITES.map(|site| (site, alone, counts))).await;
        stage.look_at_failing(&[]).await;
        stage
    }

    fn divide(&mut self) {
        Arc::make_mut(&mut self.controller.entries[0].config).by = vec!["site".to_owned()];
    }

    /// The fleets whose rollback has begun.
    fn rolling_back(&self) -> Vec<&str> {
        let fleets = &self.controller.fleets;
        let under_way = fleets.iter().filter(|(_, f)| f.observed.history.rollback().is_some());
        under_way.map(|(name, _)| name.trim_start_matches("voice:")).collect()
    }

    fn breaker_is_open(&self) -> bool {
        self.controller.ports.view.borrow().breaker.open
    }
}

#[tokio::test]
async fn fleets_that_regress_in_the_same_look_are_held_and_people_are_told() {
    let mut stage = Stage::with_six_fleets().await;
    stage.look_at_failing(&["a", "b", "c", "d"]).await;
    stage.look_at_failing(&["a", "b", "c", "d"]).await;
    assert_eq!(stage.rolling_back(), [""; 0], "not even the first three");
    let events = stage.events();
    let count = |event: &str| events.iter().filter(|e| *e == event).count();
    assert_eq!((count("rollout.escalated"), count("rollout.held_back")), (4, 4), "{events:?}");
    assert!(stage.breaker_is_open());
    let view = stage.controller.ports.view.borrow().clone();
    let held = view.fleets["voice:a"].rollouts[0].held.clone().unwrap();
    assert!(held.contains("many fleets regress at once"), "{held}");
    let regressed = ["voice:a", "voice:b", "voice:c", "voice:d"];
    assert_eq!(view.breaker.regressed_fleets, regressed);
    let escalated = {
        let records = stage.ledger.records.lock().unwrap();
        records.iter().rfind(|record| record.event == "rollout.escalated").unwrap().clone()
    };
    assert_eq!(
        (&escalated.extra["regressed_fleets"], &escalated.extra["fleets"]),
        (&4.into(), &6.into())
    );
}

#[tokio::test]
async fn three_fleets_that_regress_are_three_versions_faults() {
    let mut stage = Stage::with_six_fleets().await;
    for _ in 0..3 {
        stage.look_at_failing(&["a", "b", "c"]).await;
    }
    assert_eq!(stage.rolling_back(), ["a", "b", "c"]);
    assert!(!stage.breaker_is_open());
}

#[tokio::test]
async fn rollbacks_under_way_go_on_and_the_rest_is_held_also_after_a_restart() {
    let mut stage = Stage::with_six_fleets().await;
    for _ in 0..3 {
        stage.look_at_failing(&["a", "b", "c"]).await;
    }
    let clock = stage.clock.clone();
    let mut stage = Stage::resume(stage.ledger.clone());
    stage.divide();
    *stage.clock.0.lock().unwrap() = clock.now();
    for _ in 0..3 {
        stage.look_at_failing(&SITES).await;
    }
    assert_eq!(stage.rolling_back(), ["a", "b", "c"], "no fourth");
    assert!(stage.breaker_is_open());
    for _ in 0..3 {
        stage.settle().await;
    }
    let confirming = stage.events().iter().filter(|e| *e == "rollback.confirming").count();
    assert_eq!(confirming, 3, "those three go on");

    // Ten minutes later they are no longer many at once, and a person must decide all the same.
    for _ in 0..65 {
        stage.look_at_failing(&SITES).await;
    }
    assert!(!stage.breaker_is_open());
    let mut stage = Stage { clock: stage.clock.clone(), ..Stage::resume(stage.ledger.clone()) };
    stage.divide();
    stage.controller.ports.clock = stage.clock.clone();
    for _ in 0..3 {
        stage.look_at_failing(&SITES).await;
    }
    assert_eq!(stage.rolling_back(), ["a", "b", "c"]);
    let approve = Order { fleet: "voice:d".to_owned(), ..order(Act::Approve { version: None }) };
    let done = stage.controller.take_order(&approve).await.unwrap();
    assert_eq!(done, Ok("rolling back v2".to_owned()));
    assert_eq!(stage.rolling_back(), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_fleet_that_regresses_long_after_the_others_is_taken_back() {
    let mut stage = Stage::with_six_fleets().await;
    Arc::make_mut(&mut stage.controller.entries[0].config).observe_for = Duration::from_hours(1);
    stage.controller.breaker.within = INTERVAL * 6;
    for _ in 0..9 {
        stage.look_at_failing(&["a", "b", "c"]).await;
    }
    for _ in 0..4 {
        stage.look_at_failing(&["a", "b", "c", "d"]).await;
    }
    assert_eq!(stage.rolling_back(), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn fleets_that_are_suspect_at_the_end_together_are_held_too() {
    const WEAK: &[(&str, u64, u64)] = &[("v1", 20, 0), ("v2", 20, 2)];
    let mut stage = Stage::new();
    stage.divide();
    // So that nothing convicts before the observation is over.
    let config = Arc::make_mut(&mut stage.controller.entries[0].config);
    config.false_rollback_rate = Share::new(1e-300).unwrap();
    let (alone, both): (&[_], &[_]) = (&[("v1", 2)], &[("v1", 2), ("v2", 2)]);
    let calm: &[_] = &[("v1", 20, 0)];
    stage.look_at(&SITES.map(|site| (site, alone, calm))).await;
    for _ in 0..35 {
        stage.look_at(&SITES.map(|site| (site, both, WEAK))).await;
    }
    assert_eq!(stage.rolling_back(), [""; 0], "{:?}", stage.events());
    assert!(stage.breaker_is_open());
    let held = stage.events().iter().filter(|event| *event == "rollout.held_back").count();
    assert_eq!(held, 6);
}
