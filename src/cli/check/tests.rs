use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};

async fn check_as(config: &str, format: Format) -> (u8, String) {
    let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(config);
    let mut out = Vec::new();
    let args = Args { config, online: false, format };
    let code = run(&args, nobody, Timestamp::default(), &mut out).await.unwrap();
    (code, String::from_utf8(out).unwrap().replace(env!("CARGO_MANIFEST_DIR"), ""))
}

async fn check(config: &str) -> (u8, String) {
    check_as(config, Format::Text).await
}

/// No server: nothing here asks.
struct Nobody;

impl Server for Nobody {
    async fn metric_type(&self, _: &str) -> Option<String> {
        None
    }
}

impl MetricSource for Nobody {
    async fn range(&self, _: RangeQuery) -> Result<Vec<Series>, MetricError> {
        Ok(Vec::new())
    }
}

fn nobody(_: &ServerConfig) -> Result<Nobody, String> {
    Err("not asked for".to_owned())
}

#[tokio::test]
async fn the_example_and_the_shipped_rules_are_good() {
    let (code, out) = check("rollbackd.example.yml").await;
    assert_eq!((code, out.as_str()), (0, "ok: 1 fleet, 1 rule in 1 file\n"));
}

#[tokio::test]
async fn problems_of_the_config_do_not_hide_those_of_the_rules() {
    let (code, out) = check("tests/fixtures/config/bad_with_rules.yml").await;
    assert_eq!(code, 1);
    insta::assert_snapshot!(out, @r###"
    /tests/fixtures/config/bad_with_rules.yml:6:9: fleets: expected at least one fleet
    /tests/fixtures/config/../rules/bad.yml:4:15: group "sessions": interval of 500ms is shorter than a second
    /tests/fixtures/config/../rules/bad.yml:8:17: group "sessions", regression "SessionsFailing": `failed` is not a counter selector: expected a metric name, found `sum(`
    /tests/fixtures/config/../rules/bad.yml:9:20: group "sessions", regression "SessionsFailing": tolerance 0.5x would roll back a version better than its baseline; use 1x or more
    /tests/fixtures/config/../rules/bad.yml:10:20: group "sessions", regression "SessionsFailing": `narrow_by`: a label is here twice
    /tests/fixtures/config/../rules/bad.yml:10:35: group "sessions", regression "SessionsFailing": `narrow_by`: `a-b` is not a label name: expected letters, digits and `_`
    /tests/fixtures/config/../rules/bad.yml:11:21: group "sessions", regression "SessionsFailing": `dispersion`: 0.5 is below 1, less spread than chance itself has
    /tests/fixtures/config/../rules/bad.yml:12:33: group "sessions", regression "SessionsFailing": `summary`: unknown placeholder `{{verison}}`; there are `{{version}}`, `{{ratio}}`, `{{baseline}}`, `{{baseline_ratio}}`, `{{value}}`, `{{fleet}}`, `{{slice}}`
    /tests/fixtures/config/../rules/bad.yml:12:57: group "sessions", regression "SessionsFailing": `runbook`: expected text, found a number; put it in quotes
    /tests/fixtures/config/../rules/bad.yml:13:9: group "sessions", regression "SessionsFailing": `failed` is missing
    /tests/fixtures/config/../rules/bad.yml:13:9: group "sessions", regression "SessionsFailing": neither `ceiling` nor `tolerance` is given; use either or both
    /tests/fixtures/config/../rules/bad.yml:13:15: group "sessions", regression "SessionsFailing": a regression of this name is already in the group
    /tests/fixtures/config/../rules/bad.yml:15:15: group "sessions", regression "SessionsFailing": `live` is not a gauge selector: expected no range; rollbackd writes it itself
    /tests/fixtures/config/../rules/bad.yml:19:18: group "sessions", regression "Ceiling": `ceiling`: expected a share above 0 and below 1, such as `5%` or `0.05`
    /tests/fixtures/config/../rules/bad.yml:20:20: group "sessions", regression "Ceiling": `tolerance`: expected a factor such as `1.5x`
    /tests/fixtures/config/../rules/bad.yml:21:9: group "sessions", regression "Ceiling": unknown key `celing`; there are `name`, `started`, `failed`, `live`, `ceiling`, `tolerance`, `dispersion`, `narrow_by`, `annotations`
    /tests/fixtures/config/../rules/bad.yml:22:11: group "sessions": a group of this name is already in this file
    /tests/fixtures/config/../rules/bad.yml:25:18: group "sessions": `regressions`: expected at least one regression
    /tests/fixtures/config/../rules/bad.yml:31:16: group "values", regression "Slow": `value`: not PromQL: unclosed left parenthesis
    /tests/fixtures/config/../rules/bad.yml:33:25: group "values", regression "Slow": rollback_above 1.5 is below escalate_above 6
    /tests/fixtures/config/../rules/bad.yml:34:14: group "values", regression "Slow": `for`: 15s is shorter than the group's interval of 30s
    /tests/fixtures/config/../rules/bad.yml:35:9: group "values", regression "Scalar": neither `escalate_above` nor `rollback_above` is given; use either or both
    /tests/fixtures/config/../rules/bad.yml:36:16: group "values", regression "Scalar": `value`: expected an instant vector, found a scalar
    /tests/fixtures/config/../rules/bad.yml:37:9: group "values", regression "Scalar": unknown key `started`; there are `name`, `value`, `escalate_above`, `rollback_above`, `for`, `annotations`
    /tests/fixtures/config/../rules/bad.yml:38:9: group "values", regression "Nothing": expected `started` and `failed` counters, or a `value`
    /tests/fixtures/config/../rules/bad.yml:39:9: group "values": `name` is missing
    /tests/fixtures/config/../rules/bad.yml:41:5: group "empty": `regressions` is missing
    /tests/fixtures/config/../rules/none*.yml: no rule file matches this pattern
    "###);
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let (code, out) = check("nowhere.yml").await;
    assert_eq!(code, 1);
    assert!(out.starts_with("/nowhere.yml: failed to read: "), "{out}");
}

#[tokio::test]
async fn problems_are_annotations_and_objects_too() {
    let (code, out) = check_as("tests/fixtures/config/bad_with_rules.yml", Format::Github).await;
    assert_eq!(code, 1);
    let first = out.lines().next().unwrap();
    let want = "::error file=/tests/fixtures/config/bad_with_rules.yml,line=6,col=9::\
                fleets: expected at least one fleet";
    assert_eq!(first, want);
    assert!(out.lines().all(|line| line.starts_with("::error file=/tests/")), "{out}");

    let (code, out) = check_as("tests/fixtures/config/bad_with_rules.yml", Format::Json).await;
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["findings"][0]["line"], 6);
    assert_eq!(json["findings"][0]["message"], "expected at least one fleet");
    let (code, out) = check_as("rollbackd.example.yml", Format::Json).await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let good = serde_json::json!({ "ok": true, "partial": false, "findings": [] });
    assert_eq!((code, &json), (0, &good));
}

/// Knows no series, and answers no more after so many questions.
struct Dying {
    left: AtomicUsize,
}

impl Server for Dying {
    async fn metric_type(&self, _: &str) -> Option<String> {
        None
    }
}

impl MetricSource for Dying {
    async fn range(&self, _: RangeQuery) -> Result<Vec<Series>, MetricError> {
        let left = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        let gone =
            |_| MetricError::Unreachable { url: "http://gone".into(), reason: "away".into() };
        left.map(|_| Vec::new()).map_err(gone)
    }
}

#[tokio::test]
async fn what_was_found_before_prometheus_died_is_printed_and_not_called_the_whole() {
    let check = async |questions, format| {
        let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("rollbackd.example.yml");
        let args = Args { config, online: true, format };
        let dying = |_: &ServerConfig| Ok(Dying { left: AtomicUsize::new(questions) });
        let mut out = Vec::new();
        let error = run(&args, dying, Timestamp::default(), &mut out).await.unwrap_err();
        assert_eq!(error.to_string(), "http://gone did not answer: away");
        String::from_utf8(out).unwrap()
    };
    let out = check(1, Format::Text).await;
    assert!(out.contains("`workers`: no series of "), "{out}");
    assert_eq!(out.lines().count(), 1, "no verdict on the whole: {out}");
    let json = |out: &str| serde_json::from_str::<serde_json::Value>(out).unwrap();
    let none = serde_json::json!({ "ok": false, "partial": true, "findings": [] });
    assert_eq!(json(&check(0, Format::Json).await), none);
    let one = json(&check(1, Format::Json).await);
    assert_eq!((&one["partial"], one["findings"].as_array().unwrap().len()), (&true.into(), 1));
    assert!(check(1, Format::Github).await.starts_with("::error file="));
}

#[test]
fn what_github_would_read_as_syntax_is_escaped() {
    let problem = crate::yaml::Problem::of_file("a,b:c.yml", "50%\nof it");
    let mut out = Vec::new();
    finding::github(&[Finding::error(problem)], &mut out).unwrap();
    let want = "::error file=a%2Cb%3Ac.yml::50%25%0Aof it\n";
    assert_eq!(String::from_utf8(out).unwrap(), want);
}
