//! From the API's JSON to series.

use std::collections::BTreeMap;

use prometheus_http_query::response::{Data, PromqlResult, RangeVector};
use serde::Deserialize;

use crate::domain::time::Timestamp;
use crate::ports::metrics::Series;

/// How much of an error page is repeated, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// What Prometheus says of the query rather than of the data begins so (since 2.48).
const REMARK: &str = "PromQL ";

/// Why a body with a good status is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not what the API promises.
    Malformed(String),
    /// Some store did not answer: series may be missing.
    Incomplete(String),
}

/// The client's own envelope drops the warnings, which is where Thanos admits to a partial answer.
#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Option<PromqlResult>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    /// `VictoriaMetrics` has its own way to say the same.
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

/// A whole and good matrix: what nearly every answer is, read without a detour.
#[derive(Deserialize)]
struct Good<'a> {
    status: String,
    #[serde(borrow)]
    data: Matrix<'a>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Deserialize)]
struct Matrix<'a> {
    #[serde(rename = "resultType")]
    kind: String,
    #[serde(borrow)]
    result: Vec<Vector<'a>>,
}

#[derive(Deserialize)]
struct Vector<'a> {
    metric: BTreeMap<String, String>,
    /// A number needs no escapes.
    #[serde(borrow)]
    values: Vec<(f64, &'a str)>,
}

pub(super) fn parse(body: &[u8]) -> Result<Vec<Series>, Bad> {
    match serde_json::from_slice::<Good>(body) {
        Ok(good)
            if good.status == "success"
                && good.data.kind == "matrix"
                && good.warnings.is_empty()
                && !good.is_partial =>
        {
            good.data.result.into_iter().map(plain_series).collect()
        }
        // The client's own types know what else there can be, and why it is no answer.
        Ok(_) | Err(_) => parse_any(body),
    }
}

pub(super) fn parse_any(body: &[u8]) -> Result<Vec<Series>, Bad> {
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| Bad::Malformed(error.to_string()))?;
    if envelope.status != "success" {
        let text = error_text(body);
        return Err(Bad::Malformed(format!("status is `{}`: {text}", envelope.status)));
    }
    let (remarks, missing): (Vec<_>, Vec<_>) =
        envelope.warnings.unwrap_or_default().into_iter().partition(|w| w.starts_with(REMARK));
    for remark in remarks {
        tracing::debug!(remark, "the metrics server remarks on a query");
    }
    if envelope.is_partial || !missing.is_empty() {
        return Err(Bad::Incomplete(format!("the answer is partial: {}", missing.join("; "))));
    }
    let Some(result) = envelope.data else {
        return Err(Bad::Malformed("there is no `data`".into()));
    };
    match result.into_inner().0 {
        Data::Matrix(vectors) => vectors.into_iter().map(series).collect(),
        Data::Vector(_) => Err(Bad::Malformed("it is a vector".into())),
        Data::Scalar(_) => Err(Bad::Malformed("it is a scalar".into())),
    }
}

/// What the server said, or the beginning of whatever it sent instead.
pub(super) fn error_text(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(said) => said.error,
        Err(_not_json) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    if text.is_empty() {
        return "it said nothing".into();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
}

fn series(vector: RangeVector) -> Result<Series, Bad> {
    let (metric, samples) = vector.into_inner();
    let points = samples.iter().map(|sample| Ok((sample.timestamp(), sample.value())));
    collect(metric.into_iter().collect(), points)
}

fn plain_series(vector: Vector<'_>) -> Result<Series, Bad> {
    let points = vector.values.into_iter().map(|(at, value)| match value.parse() {
        Ok(value) => Ok((at, value)),
        Err(_) => Err(Bad::Malformed(format!("`{value}` is not a number"))),
    });
    collect(vector.metric, points)
}

fn collect(
    mut labels: BTreeMap<String, String>,
    samples: impl Iterator<Item = Result<(f64, f64), Bad>>,
) -> Result<Series, Bad> {
    labels.remove("__name__");
    let mut points = Vec::with_capacity(samples.size_hint().0);
    for sample in samples {
        let (seconds, value) = sample?;
        if !value.is_finite() {
            continue;
        }
        let at = timestamp(seconds)?;
        if points.last().is_some_and(|&(before, _)| before >= at) {
            return Err(Bad::Malformed("its points are not in time order".into()));
        }
        points.push((at, value));
    }
    Ok(Series { labels, points })
}

fn timestamp(seconds: f64) -> Result<Timestamp, Bad> {
    let millis = (seconds * 1000.0).round();
    // Every whole number below 2^53 has a float of its own.
    if !(0.0..9.0e15).contains(&millis) {
        return Err(Bad::Malformed(format!("{seconds} is not a time")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    Ok(Timestamp::from_millis(millis as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &str, tail: &str) -> String {
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":
            {{"__name__":"x","deployment_version":"v2"}},"values":{values}}}]}}{tail}}}"#
        )
    }

    #[test]
    fn not_a_number_and_infinities_are_left_out_and_so_is_the_name() {
        let body = matrix(r#"[[1,"1"],[2,"NaN"],[3,"+Inf"],[4,"-Inf"],[5.5,"2"]]"#, "");
        let series = parse(body.as_bytes()).unwrap();
        let at = Timestamp::from_millis;
        assert_eq!(series[0].points, [(at(1_000), 1.0), (at(5_500), 2.0)]);
        assert_eq!(series[0].labels.keys().collect::<Vec<_>>(), ["deployment_version"]);
    }

    #[test]
    fn only_a_remark_on_the_query_leaves_an_answer_complete() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, bool)] = &[
            ("none",           "",                                              true),
            ("null",           r#","warnings":null"#,                           true),
            ("empty",          r#","warnings":[]"#,                             true),
            ("remark",         r#","warnings":["PromQL warning: quantile"]"#,   true),
            ("info",           r#","infos":["PromQL info: not a counter"]"#,    true),
            ("partial, Thanos", r#","warnings":["no store for sidecar-1"]"#,    false),
            ("partial, VM",    r#","isPartial":true"#,                          false),
        ];
        for (name, tail, complete) in cases {
            let answer = parse(matrix(r#"[[1,"1"]]"#, tail).as_bytes());
            assert_eq!(answer.is_ok(), *complete, "{name}: {answer:?}");
            assert_eq!(matches!(answer, Err(Bad::Incomplete(_))), !complete, "{name}");
        }
    }

    #[test]
    fn what_is_not_a_matrix_is_malformed() {
        #[rustfmt::skip]
        let cases: &[(&str, String)] = &[
            ("a page",        "<html>".into()),
            ("half",          r#"{"status":"success","data":{"resultType":"mat"#.into()),
            ("nothing",       String::new()),
            ("no data",       r#"{"status":"success"}"#.into()),
            ("an error",      r#"{"status":"error","errorType":"internal","error":"x"}"#.into()),
            ("a vector",      r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.into()),
            ("out of order",  matrix(r#"[[2,"1"],[1,"1"]]"#, "")),
            ("no time",       matrix(r#"[[1e300,"1"]]"#, "")),
            ("no value",      matrix(r#"[[1,"many"]]"#, "")),
        ];
        for (name, body) in cases {
            assert!(matches!(parse(body.as_bytes()), Err(Bad::Malformed(_))), "{name}");
        }
    }

    #[test]
    fn an_error_page_is_cut_and_an_api_error_is_quoted() {
        assert_eq!(error_text(br#"{"status":"error","error":"bad\nexpr"}"#), "bad expr");
        assert_eq!(error_text(b""), "it said nothing");
        assert_eq!(error_text("ü".repeat(900).as_bytes()).chars().count(), ERROR_CHARS_MAX);
    }
}
