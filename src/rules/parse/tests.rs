use proptest::prelude::*;

use super::*;

const GOOD: &str = include_str!("../../../tests/fixtures/rules/good.yml");
const BAD: &str = include_str!("../../../tests/fixtures/rules/bad.yml");
const SYNTAX: &str = include_str!("../../../tests/fixtures/rules/syntax.yml");

fn fleets() -> Fleets {
    let traits = FleetTraits {
        observe_for: Duration::from_hours(1),
        version_label: "version".to_owned(),
        by: Vec::new(),
        false_rollback_rate: Share::PER_MILLE,
    };
    Fleets::from([("voice".parse().unwrap(), traits)])
}

fn problems(text: &str) -> String {
    let (_, problems) = parse(text, "rules/voice.yml", Some(&fleets()));
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn good_rules_are_read() {
    let (groups, problems) = parse(GOOD, "rules/voice.yml", Some(&fleets()));
    assert_eq!(problems, []);
    insta::assert_debug_snapshot!(groups, @r###"
    [
        Group {
            name: "sessions",
            file: "rules/voice.yml",
            fleet: FleetName(
                "voice",
            ),
            interval: 15s,
            sessions: [
                SessionRule {
                    name: "SessionsFailing",
                    started: "started_total{job=\"voice\"}",
                    failed: "failed_total",
                    live: Some(
                        "live",
                    ),
                    ceiling: Some(
                        Share(
                            0.05,
                        ),
                    ),
                    tolerance: Some(
                        Tolerance(
                            1.5,
                        ),
                    ),
                    dispersion: Some(
                        2.0,
                    ),
                    narrow_by: [
                        "agent",
                    ],
                    annotations: {
                        "summary": "{{version}} fails {{ratio}}",
                    },
                    digest: "d4961aa35b86e371ac578e8e04d0bc418220c6f9455064cbc50e2a44d6dc378b",
                },
            ],
            values: [
                ValueRule {
                    name: "Slow",
                    value: "max by (version) (latency)",
                    escalate_above: None,
                    rollback_above: Some(
                        6.0,
                    ),
                    hold_for: 120s,
                    annotations: {},
                    digest: "d0db8cea151681c094728f78116f976b88ba7d4418b12d317acf2f2a57d59675",
                },
            ],
        },
    ]
    "###);
}

#[test]
fn every_problem_is_told_at_once_and_placed() {
    insta::assert_snapshot!(problems(BAD), @r###"
    rules/voice.yml:3:12: group "sessions": no fleet `video` in the config, which has `voice`
    rules/voice.yml:4:15: group "sessions": interval of 500ms is shorter than a second
    rules/voice.yml:8:17: group "sessions", regression "SessionsFailing": `failed` is not a counter selector: expected a metric name, found `sum(`
    rules/voice.yml:9:20: group "sessions", regression "SessionsFailing": tolerance 0.5x would roll back a version better than its baseline; use 1x or more
    rules/voice.yml:10:20: group "sessions", regression "SessionsFailing": `narrow_by`: a label is here twice
    rules/voice.yml:10:35: group "sessions", regression "SessionsFailing": `narrow_by`: `a-b` is not a label name: expected letters, digits and `_`
    rules/voice.yml:11:21: group "sessions", regression "SessionsFailing": `dispersion`: 0.5 is below 1, less spread than chance itself has
    rules/voice.yml:12:33: group "sessions", regression "SessionsFailing": `summary`: unknown placeholder `{{verison}}`; there are `{{version}}`, `{{ratio}}`, `{{baseline}}`, `{{baseline_ratio}}`, `{{value}}`, `{{fleet}}`, `{{slice}}`
    rules/voice.yml:12:57: group "sessions", regression "SessionsFailing": `runbook`: expected text, found a number; put it in quotes
    rules/voice.yml:13:9: group "sessions", regression "SessionsFailing": `failed` is missing
    rules/voice.yml:13:9: group "sessions", regression "SessionsFailing": neither `ceiling` nor `tolerance` is given; use either or both
    rules/voice.yml:13:15: group "sessions", regression "SessionsFailing": a regression of this name is already in the group
    rules/voice.yml:15:15: group "sessions", regression "SessionsFailing": `live` is not a gauge selector: expected no range; rollbackd writes it itself
    rules/voice.yml:19:18: group "sessions", regression "Ceiling": `ceiling`: expected a share above 0 and below 1, such as `5%` or `0.05`
    rules/voice.yml:20:20: group "sessions", regression "Ceiling": `tolerance`: expected a factor such as `1.5x`
    rules/voice.yml:21:9: group "sessions", regression "Ceiling": unknown key `celing`; there are `name`, `started`, `failed`, `live`, `ceiling`, `tolerance`, `dispersion`, `narrow_by`, `annotations`
    rules/voice.yml:22:11: group "sessions": a group of this name is already in this file
    rules/voice.yml:24:15: group "sessions": interval of 2h is longer than the fleet's observe_for of 1h
    rules/voice.yml:25:18: group "sessions": `regressions`: expected at least one regression
    rules/voice.yml:31:16: group "values", regression "Slow": `value`: not PromQL: unclosed left parenthesis
    rules/voice.yml:33:25: group "values", regression "Slow": rollback_above 1.5 is below escalate_above 6
    rules/voice.yml:34:14: group "values", regression "Slow": `for`: 15s is shorter than the group's interval of 30s
    rules/voice.yml:35:9: group "values", regression "Scalar": neither `escalate_above` nor `rollback_above` is given; use either or both
    rules/voice.yml:36:16: group "values", regression "Scalar": `value`: expected an instant vector, found a scalar
    rules/voice.yml:37:9: group "values", regression "Scalar": unknown key `started`; there are `name`, `value`, `escalate_above`, `rollback_above`, `for`, `annotations`
    rules/voice.yml:38:9: group "values", regression "Nothing": expected `started` and `failed` counters, or a `value`
    rules/voice.yml:39:9: group "values": `name` is missing
    rules/voice.yml:41:5: group "empty": `regressions` is missing
    "###);
}

#[test]
fn a_file_without_groups_is_none() {
    insta::assert_snapshot!(problems("{}"), @r#"rules/voice.yml:1:1: `groups` is missing"#);
    insta::assert_snapshot!(problems("groups: []"), @r#"rules/voice.yml:1:9: `groups`: expected at least one group"#);
    insta::assert_snapshot!(problems("groups: 5"), @r#"rules/voice.yml:1:9: `groups`: expected a list, found a number"#);
    insta::assert_snapshot!(problems("- a"), @r#"rules/voice.yml:1:1: expected a map, found a list"#);
    insta::assert_snapshot!(problems(SYNTAX), @r#"rules/voice.yml:3:18: not YAML: unclosed bracket '['"#);
}

#[test]
fn a_digest_tells_rules_apart_by_what_decides() {
    let digest = |text: &str| {
        let (groups, problems) = parse(text, "x", None);
        assert_eq!(problems, []);
        groups[0].sessions[0].digest.clone()
    };
    let good = digest(GOOD);
    assert_eq!(good.len(), 64);
    assert_eq!(good, digest(&GOOD.replace("fails {{ratio}}", "is bad")));
    assert_eq!(good, digest(&GOOD.replace("5%", "0.05")));
    for (from, to) in
        [("5%", "4%"), ("1.5x", "2x"), ("[agent]", "[tenant]"), ("live: live", "live: l")]
    {
        assert_ne!(good, digest(&GOOD.replace(from, to)), "{from} to {to}");
    }
}

#[test]
fn files_are_read_once_in_order_and_share_one_space_of_group_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("a.yml"), GOOD).unwrap();
    std::fs::write(path("b.yml"), GOOD).unwrap();
    let rules = load(&[path("a.*"), path("a.yml")], &fleets()).unwrap();
    assert_eq!(rules.groups.len(), 1);
    let problems = load(&[path("*.yml"), path("c*.yml")], &fleets()).unwrap_err();
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let text = lines.join("\n").replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @r###"
    DIR/b.yml:2:11: group "sessions": a group of this name is already in `DIR/a.yml`
    DIR/c*.yml: no rule file matches this pattern
    "###);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let (groups, problems) = parse(&text, "x.yml", None);
        prop_assert!(!groups.is_empty() || !problems.is_empty());
    }

    #[test]
    fn no_broken_rule_makes_it_panic(
        cut in 0..GOOD.len(),
        put in "[\\[\\]{}()%@+:&*!|>'\"#a-z0-9 \n-]{0,6}",
        skip in 0..9usize,
    ) {
        let end = (cut + skip).min(GOOD.len());
        let (groups, problems) = parse(&format!("{}{put}{}", &GOOD[..cut], &GOOD[end..]), "x.yml", None);
        prop_assert!(!groups.is_empty() || !problems.is_empty());
    }
}

#[test]
fn an_interval_is_in_whole_seconds() {
    let text =
        "groups:\n  - name: g\n    fleet: voice\n    interval: 1500ms\n    regressions: []\n";
    let (_, problems) = parse(text, "rules.yml", None);
    let said = problems.iter().map(ToString::to_string).collect::<String>();
    assert!(said.contains("rules.yml:4:15") && said.contains("not in whole seconds"), "{said}");
}

/// The problems of a file with one rule, for a fleet that is told apart by `region`.
fn problems_of(rule: &str) -> Vec<String> {
    let traits = FleetTraits {
        observe_for: Duration::from_mins(1),
        version_label: "v".to_owned(),
        by: vec!["region".to_owned()],
        false_rollback_rate: Share::PER_MILLE,
    };
    let fleets = Fleets::from([("voice".parse().unwrap(), traits)]);
    let text = format!(
        "groups:\n  - name: g\n    fleet: voice\n    regressions:\n      - {{ name: R, {rule} }}\n"
    );
    let (_, problems) = parse(&text, "r.yml", Some(&fleets));
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_rule_that_cannot_work_for_its_fleet_is_told_with_what_to_write() {
    #[rustfmt::skip]
    let cases: &[(&str, &[&str])] = &[
        ("value: 'sum by (v, region) (x)', escalate_above: 1", &[]),
        ("value: 'sum by (region) (x)', escalate_above: 1",
         &["r.yml:5:27: group \"g\", regression \"R\": `value`: the result has no label `v`: `sum` drops it; write `sum by (region, v) (…)`"]),
        ("value: 'x / on (v) y', escalate_above: 1",
         &["r.yml:5:27: group \"g\", regression \"R\": `value`: the result has no label `region`: `/ on (…)` drops it; write it into `on`"]),
        ("started: 'x{v=\"v1\"}', failed: y, ceiling: 5%",
         &["r.yml:5:29: group \"g\", regression \"R\": `started`: `v=\"v1\"` selects one version only; leave it out, versions are told apart by it"]),
        ("started: x, failed: y, tolerance: 1000000x",
         &["r.yml:5:54: group \"g\", regression \"R\": `tolerance`: no traffic can convict: if 10,000 sessions a second failed for all of observe_for (1m), the evidence would not reach a false_rollback_rate of 0.1%; use a smaller `tolerance`, or a higher rate"]),
        ("started: x, failed: y, dispersion: 900000, ceiling: 99%",
         &["r.yml:5:72: group \"g\", regression \"R\": `ceiling`: no traffic can convict: if 10,000 sessions a second failed for all of observe_for (1m), the evidence would not reach a false_rollback_rate of 0.1%; use a lower `ceiling`, or a higher rate"]),
        ("started: x, failed: y, tolerance: 1.5x, ceiling: 5%", &[]),
    ];
    for (rule, want) in cases {
        assert_eq!(problems_of(rule), *want, "{rule}");
    }
}
