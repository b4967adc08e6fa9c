use super::super::chain::{FIRST_PREVIOUS, seal};
use super::super::record::{Draft, rfc3339};
use std::sync::Arc;

use super::*;
use crate::domain::evidence::POOL_SESSIONS;
use crate::domain::narrow::{Excess, Part, SliceWatch, SlicedTick, Standout};
use crate::domain::time::Timestamp;
use crate::signing::Signer;

const THRESHOLD: f64 = 3.3;

fn watched(failing: u64, ticks: u64, baseline_until: u64) -> Observation {
    let settings = DetectorSettings {
        observation_ticks: 240,
        tolerance: Some(Tolerance::new(1.5).unwrap()),
        ceiling: Some(Share::new(0.05).unwrap()),
        dispersion: 1.25,
        pool_sessions: POOL_SESSIONS,
    };
    let past = Counts { started: 40, failed: 1, live: 3.5 };
    let mut watch = Observation::new(settings, false, vec![past; 240]);
    for tick in 0..ticks {
        let candidate = Counts { started: 40, failed: failing, live: 7.25 };
        let baseline = (tick < baseline_until).then_some(past);
        watch.observe((tick % 5 != 4).then_some(candidate), baseline);
    }
    watch
}

fn rule(watch: &Observation) -> Value {
    let settings = watch.settings();
    let side = |c: &Counts| json!([c.started, c.failed, c.live]);
    let ticks: Vec<_> = watch
        .ticks()
        .iter()
        .map(|tick| json!([side(&tick.candidate), side(&tick.control)]))
        .collect();
    let mut rule = json!({
        "rule": "sessions/Failing",
        "threshold_log10": THRESHOLD,
        "observation_ticks": settings.observation_ticks,
        "tolerance": settings.tolerance.map(Tolerance::get),
        "ceiling": settings.ceiling.map(Share::get),
        "dispersion": settings.dispersion,
        "pool_sessions": settings.pool_sessions,
        "baseline_log10": watch.evidence().baseline_log10,
        "ceiling_log10": watch.evidence().ceiling_log10,
        "ticks": ticks,
    });
    rule.as_object_mut().unwrap().extend(observation_json(watch, THRESHOLD));
    rule
}

fn value_rule(over: bool) -> Value {
    let start = Timestamp::from_millis(1_767_225_600_000);
    let interval = Duration::from_secs(15);
    let limits = ValueLimits {
        escalate_above: Some(1.5),
        rollback_above: Some(6.0),
        hold_for: Duration::from_secs(30),
        interval,
    };
    let mut watch = ValueObservation::new(limits);
    for tick in 0..4 {
        watch.observe(start + interval * tick, Some(if over { 7.5 } else { 1.0 }));
    }
    let ticks: Vec<_> =
        watch.ticks().iter().map(|(at, value)| json!([rfc3339(*at), value])).collect();
    json!({
        "rule": "values/Slow", "interval_seconds": 15.0, "for_seconds": 30.0,
        "escalate_above": 1.5, "rollback_above": 6.0, "verdict": watch.verdict().name(),
        "ticks": ticks,
    })
}

/// A decision as the controller records it, through the ledger's own writing and reading.
fn record(watch: &Observation, over: bool, change: impl FnOnce(&mut Map<String, Value>)) -> Record {
    let sessions =
        Finding { verdict: watch.verdict(THRESHOLD), rule: Some("sessions/Failing".into()) };
    let value = if over { ValueVerdict::Regressed } else { ValueVerdict::Healthy };
    let situation = Situation {
        sessions,
        breadth: Breadth::Wide,
        values: Finding { verdict: value, rule: Some("values/Slow".to_owned()) },
        observation_over: true,
        has_sessions: true,
        has_last_good: true,
        paused: false,
        rolling_back: false,
        one_of_many: false,
        within_limits: true,
        mode: Mode::Automatic,
        roll_back_when_unsure: true,
    };
    let decision = decide(&situation);
    let reason = decision.ground().map_or("observed", |ground| ground.reason);
    let extra = json!({
        "decision": decision.name(),
        "reason": format!("{reason} (Failing): figures"),
        "situation": situation_json(&situation),
        "rules": [rule(watch)],
        "values": [value_rule(over)],
    });
    let Value::Object(mut extra) = extra else { unreachable!() };
    change(&mut extra);
    let draft = Draft {
        at: Timestamp::from_millis(1_767_225_600_000),
        event: "rollout.decided".to_owned(),
        actor: "rollbackd".to_owned(),
        target: "voice".to_owned(),
        result: "ok".to_owned(),
        version: Some("v2".to_owned()),
        extra,
    };
    seal(draft, 1, FIRST_PREVIOUS, &Signer::from_seed(&[7; 32])).unwrap()
}

#[test]
fn decisions_come_out_the_same_again() {
    let suspect =
        (1..240).find(|n| watched(3, *n, *n).verdict(THRESHOLD) == Verdict::Suspect).unwrap();
    for (name, failing, ticks, baseline_until, over, want) in [
        ("convicted against both", 15, 20, 20, false, "roll_back"),
        ("against the past", 15, 30, 3, false, "roll_back"),
        ("by a value", 0, 30, 30, true, "roll_back"),
        ("healthy", 0, 60, 60, false, "promote"),
        ("suspect at the end", 3, suspect, suspect, false, "roll_back"),
    ] {
        let watch = watched(failing, ticks, baseline_until);
        let record = record(&watch, over, |_| {});
        assert_eq!(record.extra["decision"], want, "{name}: {:?}", watch.verdict(THRESHOLD));
        assert_eq!(derive(&record), Some(Derived::Same), "{name}");
    }
}

/// The whole of a candidate that fails one tenant's sessions, of which others fail `of_rest`, and
/// what is recorded of that.
fn narrow(of_rest: u64) -> (Observation, Value) {
    let labels = ["tenant".to_owned()];
    let settings = *watched(0, 1, 1).settings();
    let (mut whole, mut slices) = (
        Observation::new(settings, false, Vec::new()),
        SliceWatch::new(&labels, settings, false, Vec::new()),
    );
    for _ in 0..20 {
        let part = |tenant: &str, started, failed| Part {
            values: Arc::new([tenant.to_owned()]),
            counts: Counts { started, failed, live: 0.0 },
        };
        let candidate = vec![part("a", 80, of_rest), part("b", 20, 15)];
        let baseline = vec![part("a", 80, 0), part("b", 20, 0)];
        let sum = |parts: &[Part]| {
            parts.iter().map(|part| part.counts).reduce(|sum, counts| sum + counts)
        };
        whole.observe(sum(&candidate), sum(&baseline));
        slices.observe(SlicedTick { candidate, baseline });
    }
    let slice = Slice { label: "tenant".to_owned(), value: "b".to_owned() };
    let of_slice = Excess { started: 400, failed: 300, expected: 0.0 };
    let failed = 300 + 20 * of_rest;
    let of_all = Excess { started: 2000, failed, expected: 0.0 };
    let written = narrow_json(
        &Standout { slice: slice.clone(), of_slice, of_all },
        &rule(slices.rest(&slice)),
    );
    (whole, written)
}

fn fix_forward(written: Value, extra: &mut Map<String, Value>) {
    extra["decision"] = json!("fix_forward");
    extra["reason"] = json!("one slice fails more than allowed (Failing): figures");
    extra["situation"]["breadth"] = json!({ "label": "tenant", "value": "b" });
    extra.insert("narrow".to_owned(), written);
}

#[test]
fn a_fix_forward_is_derived_by_the_rest_of_it() {
    let derived = |of_rest, change: Change| {
        let (whole, written) = narrow(of_rest);
        derive(&record(&whole, false, |extra| {
            fix_forward(written, extra);
            change(extra);
        }))
    };
    assert_eq!(derived(0, |_| {}), Some(Derived::Same));
    let differs: [(&str, u64, Change, &str); 6] = [
        ("the rest is as sick", 10, |_| {}, "so the regression is wide"),
        ("a failure less", 0, |x| x["narrow"]["rest"]["ticks"][3][0][0] = json!(8), "is recorded"),
        ("a larger share", 0, |x| x["narrow"]["excess_share"] = json!(2), "excess_share 2 is"),
        ("another slice", 0, |x| x["narrow"]["slice"]["value"] = json!("a"), "and Narrow"),
        (
            "fewer failures to expect",
            0,
            |x| x["narrow"]["of_slice"]["expected"] = json!(200.0),
            "tenant b does not stand out",
        ),
        ("others too", 0, |x| x["narrow"]["of_all"]["failed"] = json!(310), "are not the whole"),
    ];
    for (name, of_rest, change, want) in differs {
        let derived = derived(of_rest, change);
        let Some(Derived::Differs(differences)) = derived else { panic!("{name}: {derived:?}") };
        assert!(differences.iter().any(|line| line.contains(want)), "{name}: {differences:?}");
    }
    let lacks: [(&str, Change); 3] = [
        ("narrow", |x| drop(x.remove("narrow"))),
        ("rest", |x| drop(x["narrow"].as_object_mut().unwrap().remove("rest"))),
        ("of_slice", |x| drop(x["narrow"].as_object_mut().unwrap().remove("of_slice"))),
    ];
    for (field, change) in lacks {
        let derived = derived(0, change);
        let Some(Derived::NotDerivable(what)) = derived else { panic!("{field}: {derived:?}") };
        assert!(what.contains(field), "{what}");
    }
}

fn first_rule(extra: &mut Map<String, Value>) -> &mut Map<String, Value> {
    extra["rules"][0].as_object_mut().unwrap()
}

type Change = fn(&mut Map<String, Value>);

#[test]
fn what_was_recorded_otherwise_differs_and_says_where() {
    let watch = watched(15, 20, 20);
    let cases: [(&str, Change, &str); 8] = [
        (
            "more evidence, in an older record",
            |x| {
                x["rules"][0]["ceiling_log10"] = json!(99.0);
                drop(x.remove("situation"));
                drop(x["rules"][0].as_object_mut().unwrap().remove("controls"));
            },
            "ceiling_log10 Some(99.0)",
        ),
        (
            "another decision",
            |x| x["decision"] = json!("promote"),
            "promote is recorded, roll_back derived",
        ),
        (
            "another reason",
            |x| x["reason"] = json!("because"),
            "the reason derived is \"fails more",
        ),
        ("a failure less", |x| x["rules"][0]["ticks"][3][0][1] = json!(0), "is recorded"),
        (
            "more evidence",
            |x| x["rules"][0]["baseline_log10"] = json!(99.0),
            "baseline_log10 Some(99.0)",
        ),
        (
            "another verdict",
            |x| x["rules"][0]["verdict"] = json!("healthy"),
            "healthy is recorded, regressed",
        ),
        ("a higher bar", |x| x["rules"][0]["threshold_log10"] = json!(1000.0), "derived"),
        (
            "a value below",
            |x| x["values"][0]["verdict"] = json!("over"),
            "over is recorded, healthy derived",
        ),
    ];
    for (name, change, want) in cases {
        let derived = derive(&record(&watch, false, change));
        let Some(Derived::Differs(differences)) = derived else { panic!("{name}: {derived:?}") };
        assert!(differences.iter().any(|line| line.contains(want)), "{name}: {differences:?}");
    }
}

#[test]
fn what_the_record_does_not_hold_is_not_taken_for_good() {
    let watch = watched(15, 20, 20);
    let cases: [(&str, Change, &str); 10] = [
        ("an older rollbackd", |x| drop(x.remove("situation")), "situation"),
        (
            "a newer one",
            |x| x["situation"]["moon_phase"] = json!("full"),
            "`moon_phase` is not known",
        ),
        ("no rules", |x| drop(x.remove("rules")), "rules"),
        ("no verdict", |x| drop(first_rule(x).remove("verdict")), "verdict"),
        ("no controls", |x| drop(first_rule(x).remove("controls")), "controls"),
        (
            "too many",
            |x| first_rule(x)["controls"] = json!([["history", 4_000_000_000_u32]]),
            "controls",
        ),
        ("no ceiling", |x| drop(first_rule(x).remove("ceiling")), "ceiling"),
        ("judged otherwise", |x| first_rule(x)["judging"] = json!(1), "another rollbackd"),
        ("a broken tick", |x| first_rule(x)["ticks"][0] = json!([1]), "ticks"),
        (
            "ticks left out",
            |x| drop(first_rule(x).insert("ticks_left_out".into(), json!(1))),
            "left out",
        ),
    ];
    for (name, change, want) in cases {
        let derived = derive(&record(&watch, false, change));
        let Some(Derived::NotDerivable(what)) = derived else { panic!("{name}: {derived:?}") };
        assert!(what.contains(want), "{name}: {what}");
    }
    let other = Record { event: "deployment.started".to_owned(), ..record(&watch, false, |_| {}) };
    assert_eq!(derive(&other), None);
}
