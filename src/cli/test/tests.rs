//! Test files as people write them, right and wrong.

use std::fs;

use super::*;

const RULES: &str = r#"
groups:
  - name: sessions
    fleet: voice
    interval: 15s
    regressions:
      - { name: Failing, started: 'started_total{job="voice"}', failed: failed_total, ceiling: 5%, tolerance: 1x }
      - { name: Slow, value: 'max by (deployment_version) (latency)', escalate_above: 1, rollback_above: 6, for: 1m }
"#;

/// The exit code and what is said of a test file beside `RULES`.
fn said(text: &str) -> (u8, String) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("rules.yml"), RULES).unwrap();
    let (narrow, _) = RULES.rsplit_once("      - { name: Slow").unwrap();
    let narrow = narrow.replace("ceiling: 5%", "narrow_by: [agent, tenant], ceiling: 5%");
    fs::write(directory.path().join("narrow.yml"), narrow).unwrap();
    let path = directory.path().join("x.test.yml");
    fs::write(&path, text).unwrap();
    let mut out = Vec::new();
    let code = run(&TestArgs { files: vec![path] }, &mut out).unwrap();
    let place = directory.path().display().to_string() + "/";
    (code, String::from_utf8(out).unwrap().replace(&place, ""))
}

/// A test of a version that fails a quarter of its sessions from 5m on.
fn test(expected: &str) -> String {
    format!(
        r#"
rule_files: [rules.yml]
evaluation_interval: 15s
tests:
  - name: bad
    input_series:
      - {{ series: 'started_total{{job="voice", deployment_version="v1"}}', values: 0+20x60 }}
      - {{ series: 'started_total{{job="voice", deployment_version="v2"}}', values: _x20 0+20x40 }}
      - {{ series: 'started_total{{job="chat", deployment_version="v2"}}', values: 0+900x40 }}
      - {{ series: 'failed_total{{deployment_version="v1"}}', values: "0x60" }}
      - {{ series: 'failed_total{{deployment_version="v2"}}', values: _x20 0+5x40 }}
    input_values:
      - {{ rule: Slow, version: v1, values: 0.5x60 }}
      - {{ rule: Slow, version: v2, values: _x20 0.5x40 }}
{expected}"#
    )
}

#[test]
fn a_test_that_holds_passes() {
    let expected = "
    verdict_test:
      - { eval_time: 0, rule: Failing, version: v2, exp_verdict: none }
      - { eval_time: 5m, rule: sessions/Failing, version: v2, exp_verdict: healthy }
      - { eval_time: 10m, rule: Failing, version: v2, exp_verdict: regressed }
      - { eval_time: 6m, rule: Slow, version: v2, exp_verdict: healthy }
    decision_test:
      - { eval_time: 5m, version: v2, exp_decision: wait }
      - { eval_time: 10m, version: v2, fleet: voice, exp_decision: roll_back }
      - { eval_time: 10m, version: v1, exp_decision: none }";
    assert_eq!(said(&test(expected)), (EXIT_OK, "ok: 1 test in 1 file\n".to_owned()));
}

#[test]
fn a_test_that_fails_shows_the_evidence_around_the_point() {
    let expected = "
    decision_test:
      - { eval_time: 6m, version: v2, exp_decision: wait }
      - { eval_time: 6m, version: v3, exp_decision: wait }";
    let (code, out) = said(&test(expected));
    assert_eq!(code, EXIT_FAILED);
    insta::assert_snapshot!(out, @r#"
    x.test.yml:17:9: "bad": decision on v2 at 6m: expected wait, got roll_back
        time      decision    verdict    baseline   ceiling  candidate failed  control failed    control    rule
        5m        wait        healthy       -0.30     -0.30  0 of 0            0 of 20           concurrent sessions/Failing
        5m        wait        healthy         0.5                                                           sessions/Slow
        5m15s     wait        suspect        1.54      1.16  5 of 20           0 of 20           concurrent sessions/Failing
        5m15s     wait        healthy         0.5                                                           sessions/Slow
        5m30s     wait        suspect        3.00      2.89  5 of 20           0 of 20           concurrent sessions/Failing
        5m30s     wait        healthy         0.5                                                           sessions/Slow
      > 5m45s     roll_back   regressed      4.41      4.67  5 of 20           0 of 20           concurrent sessions/Failing
      > 5m45s     roll_back   healthy         0.5                                                           sessions/Slow
    x.test.yml:18:9: "bad": decision on v3 at 6m: expected wait, got none
        v3 of voice was never under observation; v2 of voice was (fleets: voice)
    failed: 1 of 1 test
    "#);
}

/// A test of a version that fails most of one tenant's sessions, and from 10m on of all.
fn narrow(expected: &str) -> String {
    let started = "started_total{job=\"voice\", deployment_version=";
    let failed = "failed_total{deployment_version=";
    format!(
        r#"
rule_files: [narrow.yml]
evaluation_interval: 15s
tests:
  - name: narrow
    input_series:
      - {{ series: '{started}"v1", tenant="a"}}', values: 0+80x60 }}
      - {{ series: '{started}"v1", tenant="b"}}', values: 0+20x60 }}
      - {{ series: '{started}"v2", tenant="a"}}', values: _x20 0+80x40 }}
      - {{ series: '{started}"v2", tenant="b"}}', values: _x20 0+20x40 }}
      - {{ series: '{failed}"v1", tenant="a"}}', values: "0x60" }}
      - {{ series: '{failed}"v2", tenant="a"}}', values: _x20 0x20 40+40x19 }}
      - {{ series: '{failed}"v2", tenant="b"}}', values: _x20 0+15x40 }}
    decision_test:
{expected}"#
    )
}

#[test]
fn a_regression_of_one_slice_is_mended_forward_until_the_rest_regresses() {
    let expected = "
      - { eval_time: 5m, version: v2, exp_decision: wait }
      - { eval_time: 7m, version: v2, exp_decision: fix_forward }
      - { eval_time: 10m, version: v2, exp_decision: fix_forward, exp_slice: { tenant: b } }
      - { eval_time: 12m, version: v2, exp_decision: roll_back }";
    assert_eq!(said(&narrow(expected)), (EXIT_OK, "ok: 1 test in 1 file\n".to_owned()));
}

#[test]
fn a_test_of_another_slice_fails_and_shows_the_rest() {
    let expected = "
      - { eval_time: 6m, version: v2, exp_decision: fix_forward, exp_slice: { tenant: a } }";
    let (code, out) = said(&narrow(expected));
    assert_eq!(code, EXIT_FAILED);
    insta::assert_snapshot!(out, @r#"
    x.test.yml:16:9: "narrow": decision on v2 at 6m: expected fix_forward of tenant a, got fix_forward of tenant b
        time      decision    verdict    baseline   ceiling  candidate failed  control failed    control    rule
        5m        wait        healthy       -0.30     -0.30  0 of 0            0 of 100          concurrent sessions/Failing
        5m15s     fix_forward regressed      3.53      2.13  15 of 100         0 of 100          concurrent sessions/Failing
        5m15s     fix_forward healthy       -0.30     -1.83  0 of 80           0 of 80           concurrent sessions/Failing without tenant b
        5m30s     fix_forward regressed      7.82      5.00  15 of 100         0 of 100          concurrent sessions/Failing
        5m30s     fix_forward healthy       -0.30     -2.71  0 of 80           0 of 80           concurrent sessions/Failing without tenant b
        5m45s     fix_forward regressed     12.18      7.92  15 of 100         0 of 100          concurrent sessions/Failing
        5m45s     fix_forward healthy       -0.30     -3.48  0 of 80           0 of 80           concurrent sessions/Failing without tenant b
      > 6m        fix_forward regressed     16.55     10.86  15 of 100         0 of 100          concurrent sessions/Failing
      > 6m        fix_forward healthy       -0.29     -4.27  0 of 80           0 of 80           concurrent sessions/Failing without tenant b
        6m15s     fix_forward regressed     20.94     13.81  15 of 100         0 of 100          concurrent sessions/Failing
        6m15s     fix_forward healthy       -0.29     -4.16  0 of 80           0 of 80           concurrent sessions/Failing without tenant b
        6m30s     fix_forward regressed     25.32     16.77  15 of 100         0 of 100          concurrent sessions/Failing
        6m30s     fix_forward healthy       -0.29     -4.76  0 of 80           0 of 80           concurrent sessions/Failing without tenant b
    failed: 1 of 1 test
    "#);
}

#[test]
fn a_slice_that_is_none_is_told_with_its_place() {
    let expected = "
      - { eval_time: 6m, version: v2, exp_decision: fix_forward, exp_slice: b }
      - { eval_time: 6m, version: v2, exp_decision: fix_forward, exp_slice: {} }
      - { eval_time: 6m, version: v2, exp_decision: fix_forward, exp_slice: { tenant: a, agent: x } }
      - { eval_time: 6m, version: v2, exp_decision: roll_back, exp_slice: { tenant: a } }";
    let (code, out) = said(&narrow(expected));
    assert_eq!(code, 2);
    insta::assert_snapshot!(out, @r"
    x.test.yml:16:77: tests[0].decision_test[0].exp_slice: expected a map, found text
    x.test.yml:17:77: tests[0].decision_test[1].exp_slice: expected one label and its value, such as `{ tenant: a }`
    x.test.yml:18:77: tests[0].decision_test[2].exp_slice: expected one label and its value, such as `{ tenant: a }`
    x.test.yml:19:75: tests[0].decision_test[3].exp_slice: only `fix_forward` is about one slice
    not read: 1 file; 0 of 0 tests in the others failed
    ");
}

#[test]
fn a_value_over_its_limit_for_long_enough_is_decided_on() {
    let text = r#"
rule_files: [rules.yml]
evaluation_interval: 15s
tests:
  - name: slow
    baseline: v1
    input_series:
      - { series: 'started_total{job="voice", deployment_version="v2"}', values: 0+2x60 }
    input_values:
      - { rule: Slow, version: v2, values: 0.5x8 2x8 7x20 }
    verdict_test:
      - { eval_time: 3m, rule: Slow, version: v2, exp_verdict: over }
      - { eval_time: 5m, rule: Slow, version: v2, exp_verdict: over }
    decision_test:
      - { eval_time: 1m, version: v2, exp_decision: wait }
      - { eval_time: 3m, version: v2, exp_decision: escalate }
      - { eval_time: 6m, version: v2, exp_decision: roll_back }
"#;
    assert_eq!(said(text), (EXIT_OK, "ok: 1 test in 1 file\n".to_owned()));
}

#[test]
fn everything_wrong_with_a_file_is_told_at_once_with_its_place() {
    let (code, out) = said(
        r#"
rule_files: [rules.yml]
tset: []
tests:
  - name: bad
    interval: 15
    input_series:
      - { series: 'rate(x[5m])', values: 0+10x40 }
      - { series: x, values: 0+10x }
      - { values: 1 }
    input_values:
      - { rule: Fast, version: v1, values: "1" }
    verdict_test:
      - { eval_time: soon, rule: Failing, version: v2, exp_verdict: bad }
      - { rule: Nothing, version: v2, exp_verdict: healthy }
    decision_test:
      - { eval_time: 1m, version: "", exp_decision: rollback, because: x }
  - input_series: []
"#,
    );
    assert_eq!(code, 2);
    insta::assert_snapshot!(out, @r#"
    x.test.yml:3:1: unknown key `tset`; there are `rule_files`, `config_file`, `evaluation_interval`, `tests`
    x.test.yml:6:15: tests[0].interval: expected a duration with a unit, such as `15s`, found `15`
    x.test.yml:8:19: tests[0].input_series[0].series: expected a series such as `x{a="b"}`, found `rate(x[5m])`
    x.test.yml:9:30: tests[0].input_series[1].values: `0+10x`: expected a whole number after `x`
    x.test.yml:10:9: tests[0].input_series[2].series: missing
    x.test.yml:10:19: tests[0].input_series[2].values: expected text, found a number; put it in quotes
    x.test.yml:12:17: tests[0].input_values[0].rule: no such rule; there are `sessions/Slow`
    x.test.yml:14:22: tests[0].verdict_test[0].eval_time: expected a duration such as `15s` or `1h30m`, found `soon`
    x.test.yml:14:69: tests[0].verdict_test[0].exp_verdict: expected one of `none`, `healthy`, `suspect`, `regressed`, `no_data`, `outage`, `pending`, `over`, found `bad`
    x.test.yml:15:9: tests[0].verdict_test[1].eval_time: missing
    x.test.yml:15:17: tests[0].verdict_test[1].rule: no such rule; there are `sessions/Failing`, `sessions/Slow`
    x.test.yml:17:35: tests[0].decision_test[0].version: expected text, found none
    x.test.yml:17:53: tests[0].decision_test[0].exp_decision: expected one of `none`, `wait`, `promote`, `roll_back`, `fix_forward`, `escalate`, `hold`, found `rollback`
    x.test.yml:17:63: tests[0].decision_test[0]: unknown key `because`; there are `eval_time`, `version`, `fleet`, `exp_decision`, `exp_slice`
    x.test.yml:18:5: tests[1]: neither `verdict_test` nor `decision_test` is given; use either or both
    x.test.yml:18:19: tests[1].input_series: expected at least one series
    not read: 1 file; 0 of 0 tests in the others failed
    "#);
}

#[test]
fn files_that_are_not_there_are_told() {
    let (code, out) = said("rule_files: [none.yml]\nconfig_file: none.cfg\ntests: []\n");
    assert_eq!(code, 2);
    insta::assert_snapshot!(out, @r"
    x.test.yml:3:8: tests: expected at least one test
    none.cfg: failed to read: No such file or directory (os error 2)
    not read: 1 file; 0 of 0 tests in the others failed
    ");
    let mut out = Vec::new();
    let args = TestArgs { files: vec![PathBuf::from("/nowhere/x.test.yml")] };
    assert_eq!(run(&args, &mut out).unwrap(), 2);
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("/nowhere/x.test.yml: failed to read: "), "{out}");
}

#[test]
fn the_shipped_rules_decide_as_their_tests_say() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("rules/openrtc.test.yml");
    let mut out = Vec::new();
    let code = run(&TestArgs { files: vec![path] }, &mut out).unwrap();
    assert_eq!(code, EXIT_OK, "{}", String::from_utf8(out).unwrap());
}
