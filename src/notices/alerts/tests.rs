use super::*;
use crate::ports::view::VerdictView;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn view() -> View {
    let fleet =
        FleetView { fleet: "voice".to_owned(), last_good_ready: true, ..FleetView::default() };
    View { ready: true, fleets: BTreeMap::from([("voice".to_owned(), fleet)]), ..View::default() }
}

fn rollback(state: &str, finished_at: Option<i64>) -> RollbackView {
    RollbackView {
        id: "voice-7".to_owned(),
        fleet: "voice".to_owned(),
        from_version: "v2".to_owned(),
        version: "v1".to_owned(),
        state: state.to_owned(),
        reason: "fails more than allowed".to_owned(),
        started_at: rfc3339(at(100)),
        finished_at: finished_at.map(|seconds| rfc3339(at(seconds))),
        ..RollbackView::default()
    }
}

fn names(view: &View, now: Timestamp) -> Vec<String> {
    alerts(view, now).iter().map(|alert| alert.labels["alertname"].clone()).collect()
}

type Change = Box<dyn Fn(&mut View)>;

fn fleet(view: &mut View) -> &mut FleetView {
    view.fleets.get_mut("voice").unwrap()
}

#[test]
fn people_are_told_of_each_thing_that_is_so_and_of_nothing_else() {
    let held = |decision: &str| RolloutView {
        candidate: "v2".to_owned(),
        decision: decision.to_owned(),
        ..RolloutView::default()
    };
    let rollout = |decision| -> Change {
        let rollout = held(decision);
        Box::new(move |view| fleet(view).rollouts.push(rollout.clone()))
    };
    let back = |state, finished| -> Change {
        let rollback = rollback(state, finished);
        Box::new(move |view| view.rollbacks.push(rollback.clone()))
    };
    #[rustfmt::skip]
    let cases: Vec<(&str, Change, Option<&str>)> = vec![
        ("all is well",                Box::new(|_| {}),                                         None),
        ("a rollback begins",          back("draining", None),                                   Some("RollbackUnderWay")),
        ("it is stuck",                back("stuck", None),                                      Some("RollbackStuck")),
        ("it has ended",               back("clean", Some(900)),                                 Some("RollbackEnded")),
        ("it ended long ago",          back("clean", Some(-900)),                                None),
        ("a slice fails",              rollout("fix_forward"),                                   Some("FixForward")),
        ("a person must decide",       rollout("escalate"),                                      Some("RolloutEscalated")),
        ("a candidate is held",        rollout("hold"),                                          Some("RolloutHeld")),
        ("a candidate is watched",     rollout("wait"),                                          None),
        ("nothing can be decided",     Box::new(|v| fleet(v).holding = Some("dark".to_owned())), Some("FleetHeld")),
        ("there is no way back",       Box::new(|v| fleet(v).last_good_ready = false),           Some("LastGoodNotReady")),
        ("many fleets regress",        Box::new(|v| v.breaker.open = true),                      Some("ManyFleetsRegress")),
    ];
    for (name, change, want) in cases {
        let mut view = view();
        change(&mut view);
        assert_eq!(names(&view, at(1000)), Vec::from_iter(want), "{name}");
    }
}

#[test]
fn a_rules_annotations_are_filled_in_and_overrule_ours() {
    let mut view = view();
    let text = "{{version}} fails {{ratio}}, {{baseline}} failed {{baseline_ratio}}";
    view.rules = [RuleView {
        group: "sessions".to_owned(),
        name: "Failing".to_owned(),
        annotations: BTreeMap::from([
            ("summary".to_owned(), text.to_owned()),
            ("runbook_url".to_owned(), "https://example.org/{{fleet}}".to_owned()),
        ]),
        ..RuleView::default()
    }]
    .into();
    let verdict = VerdictView {
        rule: "sessions/Failing".to_owned(),
        verdict: "regressed".to_owned(),
        started: 200,
        failed: 25,
        control_started: 1000,
        control_failed: 10,
        ..VerdictView::default()
    };
    view.fleets.get_mut("voice").unwrap().rollouts.push(RolloutView {
        candidate: "v2".to_owned(),
        baseline: Some("v1".to_owned()),
        decision: "escalate".to_owned(),
        held: Some("would roll back; the mode is observe".to_owned()),
        verdicts: vec![verdict],
        ..RolloutView::default()
    });
    let [alert] = &alerts(&view, at(0))[..] else { panic!() };
    assert_eq!(alert.annotations["summary"], "v2 fails 12.5%, v1 failed 1.0%");
    assert_eq!(alert.annotations["runbook_url"], "https://example.org/voice");
    assert_eq!(alert.annotations["description"], "would roll back; the mode is observe");
    assert_eq!(alert.labels["rule"], "sessions/Failing");
}

#[test]
fn an_alert_keeps_its_beginning_and_its_end_is_told_for_a_while() {
    let payload =
        |board: &Board, now| -> Vec<Value> { serde_json::from_slice(&board.payload(now)).unwrap() };
    let mut board = Board::default();
    let mut stuck = view();
    stuck.rollbacks.push(rollback("stuck", None));
    assert!(board.update(alerts(&stuck, at(200)), at(200)), "it is new");
    assert!(!board.update(alerts(&stuck, at(260)), at(260)), "it is known");
    let [alert] = &payload(&board, at(260))[..] else { panic!() };
    assert_eq!(alert["startsAt"], rfc3339(at(100)));
    assert_eq!(alert["endsAt"], rfc3339(at(260 + 240)), "it ends by itself");

    assert!(board.update(Vec::new(), at(300)), "it is over");
    assert!(!board.update(Vec::new(), at(360)));
    let [alert] = &payload(&board, at(360))[..] else { panic!() };
    assert_eq!(alert["endsAt"], rfc3339(at(300)));
    board.update(Vec::new(), at(300 + 901));
    assert!(board.is_empty(), "that was told long enough");

    let mut again = alerts(&stuck, at(2000));
    again[0].starts_at = None;
    assert!(board.update(again, at(2000)));
    let [alert] = &payload(&board, at(2000))[..] else { panic!() };
    assert_eq!(alert["startsAt"], rfc3339(at(2000)), "it is another one");
}
