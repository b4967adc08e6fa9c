use super::*;
use crate::ports::view::{NarrowView, VerdictView};

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
    let own = [("summary", text), ("runbook_url", "https://example.org/{{fleet}}")];
    view.rules = [rule("Failing", &own)].into();
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
        held_rule: Some("sessions/Failing".to_owned()),
        verdicts: vec![verdict],
        ..RolloutView::default()
    });
    let [alert] = &alerts(&view, at(0))[..] else { panic!() };
    assert_eq!(alert.annotations["summary"], "v2 fails 12.5%, v1 failed 1.0%");
    assert_eq!(alert.annotations["runbook_url"], "https://example.org/voice");
    assert_eq!(alert.annotations["description"], "would roll back; the mode is observe");
    assert_eq!(alert.labels["rule"], "sessions/Failing");
}

fn rule(name: &str, annotations: &[(&str, &str)]) -> RuleView {
    let annotations = annotations.iter().map(|(name, text)| (name.to_string(), text.to_string()));
    RuleView {
        group: "sessions".to_owned(),
        fleet: "voice".to_owned(),
        name: name.to_owned(),
        annotations: annotations.collect(),
        ..RuleView::default()
    }
}

#[test]
fn a_slice_that_fails_alone_is_named_and_to_be_mended_whatever_the_rule_says() {
    let mut view = view();
    let own = [("summary", "{{version}} fails"), ("dashboard", "of {{slice}}")];
    view.rules = [rule("Failing", &own)].into();
    let narrow = NarrowView {
        label: "agent".to_owned(),
        value: "billing".to_owned(),
        excess_share: 0.934,
        traffic_share: 0.125,
        ..NarrowView::default()
    };
    let verdict = VerdictView {
        rule: "sessions/Failing".to_owned(),
        verdict: "regressed".to_owned(),
        ..VerdictView::default()
    };
    fleet(&mut view).rollouts.push(RolloutView {
        candidate: "v2".to_owned(),
        decision: "fix_forward".to_owned(),
        held: Some("one slice fails more than allowed".to_owned()),
        held_rule: Some("sessions/Failing".to_owned()),
        verdicts: vec![verdict],
        narrow: Some(narrow),
        ..RolloutView::default()
    });
    let [alert] = &alerts(&view, at(0))[..] else { panic!() };
    let wants = [
        ("summary", r#"v2 of voice fails in agent="billing"; fix it forward"#),
        ("slice", r#"agent="billing""#),
        ("dashboard", r#"of agent="billing""#),
        (
            "description",
            "agent=\"billing\" fails more than allowed: it has 93% of the failures beyond those \
             expected, in 12% of the sessions",
        ),
    ];
    for (name, want) in wants {
        assert_eq!(alert.annotations[name], want, "{name}");
    }
    assert_eq!(alert.annotations.len(), wants.len());
}

/// v2 is escalated by one of two rules, of which `Loud` has more evidence.
fn escalated_by(held_rule: Option<&str>) -> View {
    let mut view = view();
    let own = |name| rule(name, &[("runbook_url", name), ("summary", "{{ratio}}")]);
    view.rules = [own("Quiet"), own("Loud")].into();
    let verdict = |rule: &str, failed, log10| VerdictView {
        rule: rule.to_owned(),
        verdict: "regressed".to_owned(),
        baseline_log10: Some(log10),
        started: 100,
        failed,
        ..VerdictView::default()
    };
    fleet(&mut view).rollouts.push(RolloutView {
        candidate: "v2".to_owned(),
        decision: "escalate".to_owned(),
        held_rule: held_rule.map(ToOwned::to_owned),
        verdicts: vec![verdict("sessions/Quiet", 10, 5.0), verdict("sessions/Loud", 20, 9.0)],
        ..RolloutView::default()
    });
    view
}

#[test]
fn an_alerts_annotations_are_those_of_the_rule_that_decides() {
    let [alert] = &alerts(&escalated_by(Some("sessions/Quiet")), at(0))[..] else { panic!() };
    assert_eq!(alert.labels["rule"], "sessions/Quiet");
    assert_eq!(alert.annotations["runbook_url"], "Quiet");
    assert_eq!(alert.annotations["summary"], "10.0%");

    let [alert] = &alerts(&escalated_by(None), at(0))[..] else { panic!() };
    assert!(!alert.labels.contains_key("rule"), "it is not one rule's word");
    assert_eq!(alert.annotations["summary"], "v2 of voice needs a person");
}

#[test]
fn a_rule_of_the_same_name_for_another_fleet_is_another_one() {
    let mut view = escalated_by(Some("sessions/Quiet"));
    let other = rule("Quiet", &[("runbook_url", "another")]);
    let other = RuleView { fleet: "chat".to_owned(), ..other };
    view.rules = [&[other], &view.rules[..]].concat().into();
    let [alert] = &alerts(&view, at(0))[..] else { panic!() };
    assert_eq!(alert.annotations["runbook_url"], "Quiet");
}

#[test]
fn a_rollback_has_the_runbook_of_the_rule_that_decided_and_a_summary_of_its_own() {
    let own = |name| rule(name, &[("runbook_url", "{{version}}: {{ratio}}"), ("summary", name)]);
    let by = |reason: &str, fleet_name: &str, names: &[&'static str], known: bool| {
        let mut view = view();
        view.rules = names.iter().copied().map(own).collect();
        let mut of_it = view.fleets["voice"].clone();
        of_it.fleet = fleet_name.to_owned();
        let verdict = VerdictView {
            rule: "sessions/Failing".to_owned(),
            started: 100,
            failed: 30,
            ..VerdictView::default()
        };
        let candidate = if known { "v2" } else { "v0" }.to_owned();
        let verdicts = vec![verdict];
        of_it.judged = Some(RolloutView { candidate, verdicts, ..RolloutView::default() }.into());
        view.fleets.insert(fleet_name.to_owned(), of_it);
        view.rollbacks.push(RollbackView {
            fleet: fleet_name.to_owned(),
            reason: reason.to_owned(),
            ..rollback("draining", None)
        });
        let [alert] = &alerts(&view, at(200))[..] else { panic!() };
        let ours = format!("{fleet_name} is being rolled back from v2 to v1");
        assert_eq!(alert.annotations["summary"], ours);
        assert_eq!(alert.annotations["description"], reason);
        alert.annotations.get("runbook_url").cloned()
    };
    let sentence = "fails more than allowed (Failing): 30 of 100 sessions of v2 failed";
    let known = Some("v2: 30.0%".to_owned());
    let both = ["Failing", "FailingToo"];
    assert_eq!(by(sentence, "voice", &both, true), known);
    assert_eq!(by(sentence, "voice:eu", &both, true), known, "one of an entry's fleets");
    assert_eq!(by(sentence, "voice", &both, false), Some("v2: ".to_owned()), "after a restart");
    assert_eq!(by(sentence, "chat", &both, true), None, "another fleet's rules");
    assert_eq!(by(sentence, "voice", &["Failing", "Failing"], true), None, "which of them?");
    assert_eq!(by("on the word of anna: Failing", "voice", &both, true), None, "a person's word");
}

#[test]
fn another_rule_that_takes_over_ends_no_alert_and_begins_none() {
    let mut board = Board::default();
    let mut rules = |decides, now| -> Vec<(String, String)> {
        board.update(alerts(&escalated_by(decides), at(now)), at(now));
        let alerts: Vec<Value> = serde_json::from_slice(&board.payload(at(now))).unwrap();
        let text = |alert: &Value, at: &str| {
            alert.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let both = |a: &Value| (text(a, "/labels/rule"), text(a, "/annotations/runbook_url"));
        alerts.iter().map(both).collect()
    };
    let want = |rule: &str, runbook: &str| vec![(rule.to_owned(), runbook.to_owned())];
    let (quiet, loud) = (Some("sessions/Quiet"), Some("sessions/Loud"));
    assert_eq!(rules(quiet, 100), want("sessions/Quiet", "Quiet"));
    assert_eq!(rules(loud, 115), want("sessions/Quiet", "Loud"));
    assert_eq!(rules(None, 130), want("sessions/Quiet", ""));
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
