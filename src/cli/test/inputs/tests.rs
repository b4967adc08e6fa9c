//! Whether promtool, which evaluates the real queries, counts the same series alike.

use std::process::Command;

use serde_json::{Value, json};

use super::super::series;
use super::*;
use crate::rules::query::SessionQueries;

const INTERVAL: Duration = Duration::from_secs(15);

/// Counters that grow, fall, are missed, end, and begin late or with a past.
const SERIES: [(&str, &str); 10] = [
    (r#"started{v="steady"}"#, "7+3x60"),
    (r#"failed{v="steady"}"#, "_x8 4 4 5+0x50"),
    (r#"started{v="restarts", i="a"}"#, "0+5x9 61 2+4x20 1+2x29"),
    (r#"started{v="restarts", i="b"}"#, "9+1x60"),
    (r#"failed{v="restarts"}"#, "0x9 8 1 1 1 0 3 3x40"),
    (r#"started{v="missed"}"#, "1+2x9 _x5 60+2x9 _x6 3+1x28"),
    (r#"live{v="missed"}"#, "4 7 _x4 1+1x20"),
    (r#"started{v="ends"}"#, "5+5x20 stale"),
    (r#"started{v="late"}"#, "_x20 40+6x39"),
    (r#"live{v="late"}"#, "_x20 2 9 4 4x30 stale"),
];

#[test]
fn promtool_counts_the_same() {
    let rule = SessionRule {
        name: "Failing".to_owned(),
        started: "started".to_owned(),
        failed: "failed".to_owned(),
        live: Some("live".to_owned()),
        ceiling: None,
        tolerance: None,
        dispersion: None,
        narrow_by: Vec::new(),
        annotations: BTreeMap::new(),
        digest: String::new(),
    };
    let input = |(labels, values): (&str, &str)| Input {
        samples: series::samples(values).unwrap(),
        ..series::labels(labels).unwrap()
    };
    let inputs =
        Inputs { interval: INTERVAL, series: SERIES.map(input).to_vec(), values: Vec::new() };
    let mut asked = Vec::new();
    for window in [INTERVAL, 3 * INTERVAL] {
        // A second after the samples: Prometheus 2 counts one at a window's beginning in, 3 does
        // not.
        let first = Timestamp::from_millis(1000) + INTERVAL;
        let span = Span { first, last: first + 60 * INTERVAL, window: INTERVAL };
        for end in span.ends() {
            let answer = inputs.answer(&rule, Span { first: end, last: end, window });
            let queries = SessionQueries::new(&rule, &[], "v", window);
            asked.push(expected(&queries.started, end, &answer.started));
            asked.push(expected(&queries.failed, end, &answer.failed));
            asked.push(expected(&queries.live.unwrap(), end, &answer.live));
        }
    }
    let series = SERIES.map(|(series, values)| json!({ "series": series, "values": values }));
    let file = json!({
        "evaluation_interval": "15s",
        "tests": [{ "interval": "15s", "input_series": series, "promql_expr_test": asked }],
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    let said = Command::new("promtool").args(["test", "rules"]).arg(&path).output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{errors}");
}

/// What promtool is to find: the sum by version, without those that show nothing.
fn expected(query: &str, end: Timestamp, answer: &[Series]) -> Value {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for series in answer {
        if let Some((_, value)) = series.points.first() {
            *sums.entry(&series.labels["v"]).or_default() += value;
        }
    }
    let samples = sums.iter().map(
        |(version, value)| json!({ "labels": format!("{{v=\"{version}\"}}"), "value": value }),
    );
    json!({
        "expr": query,
        "eval_time": format!("{}ms", end.as_millis()),
        "exp_samples": samples.collect::<Vec<_>>(),
    })
}
