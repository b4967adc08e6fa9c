//! What is said in each state, read as a whole.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::*;
use crate::ports::view::{
    BreakerView, NarrowView, RecentView, RolloutView, RuleView, ValueView, VersionView,
};

fn now() -> Timestamp {
    crate::ledger::record::parse_rfc3339("2026-01-02T03:12:00Z").unwrap()
}

fn verdict() -> VerdictView {
    VerdictView {
        rule: "sessions/Failing".to_owned(),
        verdict: "suspect".to_owned(),
        baseline_log10: Some(1.2),
        ceiling_log10: Some(-0.3),
        threshold_log10: 2000_f64.log10(),
        control: "concurrent".to_owned(),
        dispersion: 1.0,
        started: 210,
        failed: 14,
        control_started: 205,
        control_failed: 2,
        tolerance: Some(1.5),
        ceiling: Some(0.05),
        interval_seconds: 15.0,
        ticks: 20,
        recent: RecentView {
            ticks: 10,
            started: 105,
            failed: 8,
            control_started: 100,
            control_failed: 1,
            baseline_growth_log10: Some(0.006),
            ceiling_growth_log10: Some(-0.01),
        },
        ..VerdictView::default()
    }
}

fn rollout(verdicts: Vec<VerdictView>) -> RolloutView {
    RolloutView {
        candidate: "v2".to_owned(),
        baseline: Some("v1".to_owned()),
        started_at: "2026-01-02T03:00:00.000Z".to_owned(),
        observe_until: "2026-01-02T04:00:00.000Z".to_owned(),
        counted_until: Some("2026-01-02T03:11:30.000Z".to_owned()),
        decision: "wait".to_owned(),
        verdicts,
        ..RolloutView::default()
    }
}

fn fleet() -> FleetView {
    let past = |version: &str, outcome: &str, seq| PastView {
        version: version.to_owned(),
        outcome: outcome.to_owned(),
        at: "2026-01-01T20:00:00.000Z".to_owned(),
        seq,
    };
    FleetView {
        fleet: "voice".to_owned(),
        mode: "automatic".to_owned(),
        last_good: Some("v1".to_owned()),
        when_unsure: "rollback".to_owned(),
        versions: vec![VersionView { version: "v9".to_owned(), workers: 2, ..Default::default() }],
        past: vec![
            past("v0", "adopted", 3),
            past("v1", "promoted", 7),
            past("bad", "rolled_back", 9),
        ],
        denied: vec!["bad".to_owned()],
        ..FleetView::default()
    }
}

fn rollback(state: &str, awaiting: Option<&str>) -> RollbackView {
    RollbackView {
        id: "voice-9".to_owned(),
        fleet: "voice".to_owned(),
        from_version: "bad".to_owned(),
        version: "v1".to_owned(),
        state: state.to_owned(),
        reason: "fails more than allowed".to_owned(),
        bad_workers: 1,
        bad_live: 2.5,
        good_workers: 1,
        workers_needed: 3,
        state_since: "2026-01-02T03:05:00.000Z".to_owned(),
        awaiting: awaiting.map(ToOwned::to_owned),
        ..RollbackView::default()
    }
}

fn view(fleet: FleetView, rollbacks: Vec<RollbackView>) -> View {
    let rule = RuleView { fleet: "voice".to_owned(), ..RuleView::default() };
    View {
        ready: true,
        fleets: BTreeMap::from([(fleet.fleet.clone(), fleet)]),
        rollbacks,
        rules: [rule].into(),
        ..View::default()
    }
}

fn record(seq: u64, event: &str, version: &str) -> Record {
    let ticks = json!([[[40, 0, 1.0], [38, 0, 1.0]], [[44, 12, 1.0], [40, 1, 1.0]]]);
    let rule = json!({
        "rule": "sessions/Failing", "threshold_log10": 3.0, "tolerance": 1.0, "ceiling": null,
        "dispersion": 2.31, "control": "history", "baseline_log10": 4.1, "ceiling_log10": null,
        "dropped": 3, "interval_seconds": 15.0, "ticks": ticks,
    });
    let extra = json!({ "baseline": "v1", "rules": [rule] });
    Record {
        seq,
        timestamp: String::new(),
        event: event.to_owned(),
        actor: "rollbackd".to_owned(),
        target: "voice".to_owned(),
        result: "ok".to_owned(),
        version: Some(version.to_owned()),
        previous: String::new(),
        hash: String::new(),
        signature: String::new(),
        key: String::new(),
        extra: extra.as_object().cloned().unwrap_or_else(Map::new),
    }
}

fn said(view: &View, version: Option<&str>, records: &[Record]) -> String {
    let explanation = explain(view, "voice", version, records, now()).unwrap();
    let mut lines = explanation.sentences;
    for version in explanation.versions {
        lines.push(format!("{} ({})", version.version, version.state));
        lines.extend(version.sentences.into_iter().map(|sentence| format!("  {sentence}")));
    }
    lines.join("\n")
}

#[test]
fn a_suspect_candidate_is_told_with_what_is_missing() {
    let observed = FleetView { rollouts: vec![rollout(vec![verdict()])], ..fleet() };
    insta::assert_snapshot!(said(&view(observed, vec![]), None, &[]), @r"
    v2 (observed)
      Nothing is done about v2 yet: it is suspect, and the evidence is not strong enough to act without a person.
      It is observed against v1 since 2026-01-02 03:00:00Z, counted until 2026-01-02 03:11:30Z, and for another 48m, until 2026-01-02 04:00:00Z. If it is still suspect then, it is rolled back (`when_unsure: rollback`).
      sessions/Failing: suspect, there is evidence against it and not enough to act on. 14 of 210 sessions of v2 failed (6.7%); of v1 at the same time 2 of 205 (1.0%).
      Against v1 (at most 1.5 times its share may fail) the evidence is 16 to 1, and 2,000 to 1 convicts. If things go on as lately (7.6% of v2 and 1.0% of v1 fails), that takes about 360 more sessions, some 8m 22s.
      Against the ceiling (at most 5.0% may fail) there is no evidence; 2,000 to 1 convicts. While things go on as lately (7.6% of v2 fails), it will not convict.
    ");
}

#[test]
fn each_test_has_its_figures() {
    let figures = tests(&[verdict()]);
    let missing = (2000_f64.log10() - 1.2) / 0.006;
    assert_eq!(figures[0].sessions_missing, Some(missing.ceil()));
    assert_eq!(figures[0].seconds_missing, Some((missing.ceil() * 150.0 / 105.0).ceil()));
    assert_eq!((figures[1].against, figures[1].sessions_missing), ("ceiling", None));
    let convicted = VerdictView { baseline_log10: Some(3.5), ..verdict() };
    let convicted = &tests(&[convicted])[0];
    assert!(convicted.convicts() && convicted.sessions_missing.is_none());
}

#[test]
fn a_candidate_without_data_or_control_is_told_as_such() {
    let blind = VerdictView {
        verdict: "no_data".to_owned(),
        control: "none".to_owned(),
        silent_ticks: 5,
        recent: RecentView { baseline_growth_log10: None, ..verdict().recent },
        ..verdict()
    };
    let waiting = VerdictView {
        verdict: "healthy".to_owned(),
        control: "history".to_owned(),
        started: 0,
        failed: 0,
        recent: RecentView::default(),
        ..verdict()
    };
    let waiting = RolloutView { candidate: "v3".to_owned(), ..rollout(vec![waiting]) };
    let held = RolloutView {
        decision: "hold".to_owned(),
        held: Some("workers are alive and their sessions are not seen".to_owned()),
        ..rollout(vec![blind])
    };
    let observed = FleetView { rollouts: vec![held, waiting], ..fleet() };
    insta::assert_snapshot!(said(&view(observed, vec![]), None, &[]), @r"
    v2 (observed)
      Nothing is done about v2: workers are alive and their sessions are not seen.
      It is observed against v1 since 2026-01-02 03:00:00Z, counted until 2026-01-02 03:11:30Z, and for another 48m, until 2026-01-02 04:00:00Z. If nothing speaks against it then, it is promoted.
      sessions/Failing: no data, its workers are alive and their sessions are not seen. 14 of 210 sessions of v2 failed (6.7%). There is nothing to compare it with: v1 takes too few sessions now, and none were counted before the rollout. Only a ceiling can judge.
      For 1m 15s no sample of its sessions has come.
      Against v1 (at most 1.5 times its share may fail) the evidence is 16 to 1, and 2,000 to 1 convicts. It cannot decide: there is nothing to compare with.
      Against the ceiling (at most 5.0% may fail) there is no evidence; 2,000 to 1 convicts. While things go on as lately (7.6% of v2 fails), it will not convict.
    v3 (observed)
      Nothing is done about v3: no session of it has been counted yet, and it is promoted only after one was.
      It is observed against v1 since 2026-01-02 03:00:00Z, counted until 2026-01-02 03:11:30Z, and for another 48m, until 2026-01-02 04:00:00Z. If nothing speaks against it then, it is promoted.
      sessions/Failing: healthy, nothing speaks against it. 0 of 0 sessions of v3 failed; of v1, in its past from before the rollout, 2 of 205 (1.0%).
      Against v1 (at most 1.5 times its share may fail) the evidence is 16 to 1, and 2,000 to 1 convicts. It has nothing to go by yet.
      Against the ceiling (at most 5.0% may fail) there is no evidence; 2,000 to 1 convicts. It has nothing to go by yet.
    ");
}

#[test]
fn a_slice_that_fails_is_told_with_its_shares_and_the_rest() {
    let narrow = NarrowView {
        label: "tenant".to_owned(),
        value: "b".to_owned(),
        excess_share: 1.04,
        traffic_share: 0.2,
        rest: VerdictView {
            verdict: "healthy".to_owned(),
            started: 168,
            failed: 2,
            control_started: 164,
            baseline_log10: Some(-0.2),
            recent: RecentView::default(),
            ..verdict()
        },
    };
    let convicted = VerdictView {
        verdict: "regressed".to_owned(),
        baseline_log10: Some(4.4),
        ceiling: None,
        ..verdict()
    };
    let asked = RolloutView { candidate: "v3".to_owned(), ..rollout(vec![convicted.clone()]) };
    let mended = RolloutView {
        decision: "fix_forward".to_owned(),
        held: Some("one slice fails more than allowed".to_owned()),
        narrow: Some(narrow),
        ..rollout(vec![convicted])
    };
    let observed = FleetView { rollouts: vec![mended, asked], ..fleet() };
    let explained = explain(&view(observed.clone(), vec![]), "voice", Some("v2"), &[], now());
    let figures = explained.unwrap().versions.remove(0).tests;
    let rest = "sessions/Failing without tenant b";
    assert_eq!(figures.iter().filter(|test| test.rule == rest).count(), 2, "{figures:?}");
    assert_eq!((figures[1].started, figures[1].failed, figures[1].control_failed), (168, 2, 2));
    insta::assert_snapshot!(said(&view(observed, vec![]), None, &[]), @r"
    v2 (observed)
      One slice of v2's sessions fails, and not the version as a whole: tenant b has 100.0% of the failures beyond those expected, in 20.0% of the sessions. Nothing is rolled back: that slice is to be mended forward. v2 is watched on, and rolled back once the rest is suspect as well.
      It is observed against v1 since 2026-01-02 03:00:00Z, counted until 2026-01-02 03:11:30Z, and for another 48m, until 2026-01-02 04:00:00Z. While it fails so, it is not promoted then.
      sessions/Failing: regressed, it fails more than is allowed. 14 of 210 sessions of v2 failed (6.7%); of v1 at the same time 2 of 205 (1.0%).
      Against v1 (at most 1.5 times its share may fail) the evidence is 25,100 to 1, and 2,000 to 1 convicts. That is enough.
      Without tenant b, sessions/Failing: healthy, nothing speaks against it. 2 of 168 sessions of v2 failed (1.2%); of v1 at the same time 2 of 164 (1.2%).
      Against v1 (at most 1.5 times its share may fail) there is no evidence; 2,000 to 1 convicts. It has nothing to go by yet.
      Against the ceiling (at most 5.0% may fail) there is no evidence; 2,000 to 1 convicts. It has nothing to go by yet.
    v3 (observed)
      v3 fails more than allowed. Before anything is done, it is asked whether that sits in one slice of its sessions.
      It is observed against v1 since 2026-01-02 03:00:00Z, counted until 2026-01-02 03:11:30Z, and for another 48m, until 2026-01-02 04:00:00Z. While it fails so, it is not promoted then.
      sessions/Failing: regressed, it fails more than is allowed. 14 of 210 sessions of v3 failed (6.7%); of v1 at the same time 2 of 205 (1.0%).
      Against v1 (at most 1.5 times its share may fail) the evidence is 25,100 to 1, and 2,000 to 1 convicts. That is enough.
    ");
}

#[test]
fn many_fleets_at_once_are_told_with_their_names_and_what_to_do() {
    let convicted = VerdictView { verdict: "regressed".to_owned(), ceiling: None, ..verdict() };
    let held = RolloutView {
        decision: "escalate".to_owned(),
        held: Some(crate::domain::decision::ONE_OF_MANY.to_owned()),
        ..rollout(vec![convicted])
    };
    let observed = FleetView { rollouts: vec![held], ..fleet() };
    let mut view = view(observed, vec![]);
    view.breaker = BreakerView {
        open: true,
        regressed: 12,
        fleets: 20,
        regressed_fleets: (1..=12).map(|n| format!("voice:f{n}")).collect(),
    };
    let told = said(&view, None, &[]);
    let told: Vec<&str> = told.lines().take(4).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    Many fleets regress at once, 12 of 20: voice:f1, voice:f2, voice:f3, voice:f4, voice:f5, voice:f6, voice:f7, voice:f8, voice:f9, voice:f10, and 2 more. That is not one version's fault, so none is rolled back by itself. Look for what they have in common; if it is the version after all, approve each (`rollbackd approve voice --reason …`).
    v2 (observed)
      A person must decide on v2: would roll back, but many fleets regress at once; a person must approve.
      That holds when the other fleets are over it, too: `rollbackd approve voice --version v2 --reason …` begins the rollback.
    ");
}

#[test]
fn a_denied_version_that_came_back_is_told_with_what_is_done() {
    let seen = |returned: Option<&str>| VersionView {
        version: "bad".to_owned(),
        workers: 2,
        denied: true,
        returned: returned.map(ToOwned::to_owned),
        ..VersionView::default()
    };
    let told = |returned, rollbacks| {
        let fleet = FleetView { versions: vec![seen(returned)], ..fleet() };
        said(&view(fleet, rollbacks), Some("bad"), &[])
    };
    let again = RollbackView {
        reason: crate::domain::comeback::CAME_BACK.to_owned(),
        ..rollback("clean", None)
    };
    let third = "denied, and came back for the third time in an hour";
    let all = [
        told(None, vec![rollback("clean", None)]),
        told(Some(third), vec![rollback("clean", None), again]),
    ];
    insta::assert_snapshot!(all.join("\n\n"), @r"
    bad is denied and has come back: it has 2 workers, and was rolled back 1 time as far as is remembered. It is drained again at the next look; coming back 3 times in an hour, it is left and people are told.
    No version is under observation. v1 is the last good one. bad was rolled back at 2026-01-01 20:00:00Z.
    bad (rolled_back)
      bad was rolled back to v1 at 2026-01-01 20:00:00Z: fails more than allowed.
      It ended at 2026-01-02 03:05:00Z: nothing of bad was left.
      bad is denied: no worker of it may start until an operator allows it (`rollbackd allow voice --version bad --reason …`).
      The record of it, 9, could not be read.

    bad is denied and has come back: it has 2 workers, and was rolled back 2 times as far as is remembered. It is not drained at the moment: denied, and came back for the third time in an hour. Stop what starts it, or allow it (`rollbackd allow voice --version bad --reason …`).
    No version is under observation. v1 is the last good one. bad was rolled back at 2026-01-01 20:00:00Z.
    bad (rolled_back)
      bad is denied, and came back: at 2026-01-01 20:00:00Z it was taken back to v1 once more, by a rollback of its own.
      It ended at 2026-01-02 03:05:00Z: nothing of bad was left.
      bad is denied: no worker of it may start until an operator allows it (`rollbackd allow voice --version bad --reason …`).
      The record of it, 9, could not be read.
    ");
    let left = told(None, vec![rollback("abandoned", None)]);
    assert!(left.contains("An operator ended its rollback, so they are left alone."), "{left}");
    let going =
        FleetView { versions: vec![seen(None)], rollback: Some("voice-9".to_owned()), ..fleet() };
    let told = said(&view(going, vec![rollback("draining", None)]), None, &[]);
    assert!(!told.contains("has come back"), "its rollback is under way: {told}");
}

#[test]
fn a_value_rule_is_told_with_its_limits() {
    let value = ValueView {
        rule: "quality/Slow".to_owned(),
        verdict: "pending".to_owned(),
        value: Some(7.25),
        escalate_above: Some(1.5),
        rollback_above: Some(6.0),
        for_seconds: 120.0,
        over_since: Some("2026-01-02T03:11:00.000Z".to_owned()),
    };
    let blind = ValueView {
        verdict: "no_data".to_owned(),
        value: None,
        rollback_above: None,
        over_since: None,
        ..value.clone()
    };
    let told = [value, blind].map(|value| rule::value(&value, "v2")).join("\n");
    insta::assert_snapshot!(told, @r"
    quality/Slow: over the limit that rolls back, not for long enough yet. v2 has 7.25. People are told above 1.5. It is rolled back when above 6 for 2m. It has been above that since 2026-01-02 03:11:00Z.
    quality/Slow: no data, its workers are alive and the value is not seen. v2 has no value. People are told above 1.5.
    ");
}

#[test]
fn what_keeps_the_fleet_as_a_whole_is_told_first() {
    let kept = FleetView {
        holding: Some("no evidence: prometheus did not answer".to_owned()),
        paused: true,
        mode: "observe".to_owned(),
        ..fleet()
    };
    insta::assert_snapshot!(said(&view(kept, vec![]), None, &[]), @r"
    Nothing is decided at the moment: no evidence: prometheus did not answer. It goes on by itself once that is over.
    An operator has paused it until it is resumed: it is watched, and nothing is promoted or rolled back by itself.
    Its mode is observe: rollbackd says what it would do and does nothing.
    No version is under observation. v1 is the last good one. bad was rolled back at 2026-01-01 20:00:00Z.
    ");
    let unknown = FleetView { last_good: None, past: vec![], ..fleet() };
    let without_rules = View { rules: [].into(), ..view(unknown, vec![]) };
    insta::assert_snapshot!(said(&without_rules, None, &[]), @r"
    No version of it is known as good yet, so none can be judged.
    No rule judges it.
    ");
}

#[test]
fn a_rollback_is_told_by_what_it_waits_for() {
    let states = [
        ("starting", None),
        ("capable", None),
        ("draining", None),
        ("confirming", None),
        ("stuck", Some("capacity")),
        ("stuck", Some("emptiness")),
    ];
    let mut all = Vec::new();
    for (state, awaiting) in states {
        let under_way = FleetView { rollback: Some("voice-9".to_owned()), ..fleet() };
        let view = view(under_way, vec![rollback(state, awaiting)]);
        assert_eq!(record_needed(&view, "voice", None), Ok(Some(9)));
        let records = [record(9, "rollback.chosen", "v1")];
        let explained = explain(&view, "voice", None, &records, now()).unwrap();
        assert_eq!(explained.versions[0].state, "rolling_back");
        all.push(explained.versions[0].sentences[1].clone());
    }
    insta::assert_snapshot!(all.join("\n"), @r"
    Before anything is drained, v1 must be seen able to carry the load: 1 worker of v1 can take sessions, of 3 needed.
    v1 can carry the load; bad is drained next.
    The platform has been asked since 2026-01-02 03:05:00Z to drain bad, and has not accepted yet: 1 worker and 3 live sessions of bad are left. It is asked again with each look; the log says why it refuses.
    bad takes no new session and lets the live ones end: 1 worker and 3 live sessions of bad are left. It waits for that as long as it takes.
    It is stuck since 2026-01-02 03:05:00Z: 1 worker of v1 can take sessions, of 3 needed. Nothing is drained before; it goes on by itself once enough workers of v1 are seen. Start them, or end the rollback (`rollbackd abandon voice`).
    It is stuck since 2026-01-02 03:05:00Z, past its drain deadline: 1 worker and 3 live sessions of bad are left. It still waits, and never ends a session by force.
    ");
}

#[test]
fn a_version_rolled_back_earlier_is_explained_from_its_record() {
    let view = view(fleet(), vec![rollback("clean", None)]);
    assert_eq!(record_needed(&view, "voice", Some("bad")), Ok(Some(9)));
    let records = [record(8, "rollout.decided", "bad"), record(9, "rollback.chosen", "v1")];
    insta::assert_snapshot!(said(&view, Some("bad"), &records), @r"
    No version is under observation. v1 is the last good one. bad was rolled back at 2026-01-01 20:00:00Z.
    bad (rolled_back)
      bad was rolled back to v1 at 2026-01-01 20:00:00Z: fails more than allowed.
      It ended at 2026-01-02 03:05:00Z: nothing of bad was left.
      bad is denied: no worker of it may start until an operator allows it (`rollbackd allow voice --version bad --reason …`).
      sessions/Failing then: 12 of 84 sessions of bad failed (14.3%); of v1, in its past from before the rollout, 1 of 78 (1.3%). Workers that died took 3 sessions with them; each such worker counts as one failure. Failures here come in bursts, so each counts as 1/2.3 of one.
      Against v1 (no more than its share may fail) the evidence is 12,600 to 1, and 1,000 to 1 convicts.
    ");
}

#[test]
fn a_version_that_was_never_judged_is_told_as_such() {
    let view = view(fleet(), vec![]);
    let records =
        [record(2, "controller.started", ""), record(3, "rollout.baseline_adopted", "v0")];
    insta::assert_snapshot!(said(&view, Some("v0"), &records), @r"
    No version is under observation. v1 is the last good one. bad was rolled back at 2026-01-01 20:00:00Z.
    v0 (adopted)
      v0 carried the fleet when rollbackd first saw it, at 2026-01-01 20:00:00Z, and was taken as good without being judged.
    ");
    assert_eq!(record_needed(&view, "voice", Some("v9")), Ok(None));
    insta::assert_snapshot!(said(&view, Some("v9"), &[]), @r"
    No version is under observation. v1 is the last good one. bad was rolled back at 2026-01-01 20:00:00Z.
    v9 (unjudged)
      v9 has 2 workers and is not under observation.
    ");
}

#[test]
fn what_is_not_known_is_told_with_what_is() {
    let view = view(fleet(), vec![]);
    let error = record_needed(&view, "chat", None).unwrap_err().to_string();
    assert_eq!(error, "there is no fleet `chat`; there is only `voice`");
    let error = explain(&view, "voice", Some("v3"), &[], now()).unwrap_err().to_string();
    assert_eq!(error, "fleet `voice` has no version `v3`; there are `bad`, `v0`, `v1`, `v9`");
    let error = record_needed(&View::default(), "voice", None).unwrap_err().to_string();
    assert_eq!(error, "there is no fleet `voice`; no fleet is known yet");
}
