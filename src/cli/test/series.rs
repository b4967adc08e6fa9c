//! Series in promtool's notation.
//!
//! | written | means |
//! | --- | --- |
//! | `0+10x4` | 0 10 20 30 40 |
//! | `20-5x2` | 20 15 10 |
//! | `7x3` | 7 7 7 7 |
//! | `_`, `_x3` | a missing sample, three of them |
//! | `stale` | the series ends here |

use promql_parser::label::{METRIC_NAME, MatchOp};
use promql_parser::parser::Expr;

use super::inputs::{Input, Sample};

/// Samples of one series; longer ones are a slip of the keyboard.
const SAMPLES_MAX: usize = 1_000_000;

/// Reads a series' name and labels: `x{a="b"}`.
pub(super) fn labels(text: &str) -> Result<Input, String> {
    let expected = || format!("expected a series such as `x{{a=\"b\"}}`, found `{text}`");
    let Ok(Expr::VectorSelector(selector)) = promql_parser::parser::parse(text) else {
        return Err(expected());
    };
    if selector.offset.is_some() || selector.at.is_some() {
        return Err(expected());
    }
    let mut input = Input::default();
    if let Some(name) = selector.name {
        input.labels.insert(METRIC_NAME.to_owned(), name);
    }
    if !selector.matchers.or_matchers.is_empty() {
        return Err(expected());
    }
    for matcher in selector.matchers.matchers {
        if matcher.op != MatchOp::Equal {
            let (name, op) = (matcher.name, matcher.op);
            return Err(format!(
                "a series has labels, not matchers: `{name}` needs `=`, not `{op}`"
            ));
        }
        input.labels.insert(matcher.name, matcher.value);
    }
    if input.labels.contains_key(METRIC_NAME) { Ok(input) } else { Err(expected()) }
}

/// Reads a series' samples.
pub(super) fn samples(text: &str) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for item in text.split_whitespace() {
        extend(&mut samples, item).map_err(|why| format!("`{item}`: {why}"))?;
    }
    if samples.is_empty() { Err("expected at least one sample".to_owned()) } else { Ok(samples) }
}

fn extend(samples: &mut Vec<Sample>, item: &str) -> Result<(), String> {
    if item == "stale" {
        samples.push(Sample::Stale);
        return Ok(());
    }
    let (what, times) = match item.split_once('x') {
        Some((what, times)) => {
            let times: Option<usize> = times.parse().ok();
            (what, Some(times.ok_or("expected a whole number after `x`")?))
        }
        None => (item, None),
    };
    let room = SAMPLES_MAX.saturating_sub(samples.len());
    if times.unwrap_or(0) >= room {
        return Err(format!("more than {SAMPLES_MAX} samples"));
    }
    if what == "_" {
        samples.extend(std::iter::repeat_n(Sample::Missing, times.unwrap_or(1)));
        return Ok(());
    }
    let (start, step) = start_and_step(what)?;
    if step.is_some() && times.is_none() {
        return Err("expected `x` and how many steps, such as `0+10x40`".to_owned());
    }
    let (times, step) = (times.unwrap_or(0), step.unwrap_or(0.0));
    samples.extend((0..=times).map(|index| Sample::Value(start + step * index as f64)));
    Ok(())
}

/// `a`, `a+b` or `a-b`.
fn start_and_step(text: &str) -> Result<(f64, Option<f64>), String> {
    let number = |text: &str| {
        let number: Option<f64> = text.parse().ok();
        let number = number.filter(|number| number.is_finite());
        number.ok_or_else(|| "expected a number, `a+bxn`, `axn`, `_`, `_xn` or `stale`".to_owned())
    };
    let is_sign = |(at, c): &(usize, char)| {
        let exponent = text[..*at].ends_with(['e', 'E']);
        *at > 0 && (*c == '+' || *c == '-') && !exponent
    };
    match text.char_indices().find(is_sign) {
        Some((at, _)) => Ok((number(&text[..at])?, Some(number(&text[at..])?))),
        None => Ok((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let word = |sample: &Sample| match sample {
            Sample::Value(value) => value.to_string(),
            Sample::Missing => "_".to_owned(),
            Sample::Stale => "stale".to_owned(),
        };
        samples(text).unwrap().iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_notation_is_promtools() {
        let cases = [
            ("0+10x4", "0 10 20 30 40"),
            ("-2+4x3", "-2 2 6 10"),
            ("1-2x4", "1 -1 -3 -5 -7"),
            ("1x4", "1 1 1 1 1"),
            ("1 _x3 stale", "1 _ _ _ stale"),
            ("_ 1e3 1e-1+1e-1x1 .5", "_ 1000 0.1 0.2 0.5"),
            ("0x2", "0 0 0"),
        ];
        for (text, want) in cases {
            assert_eq!(said(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_series_is_told_with_the_item() {
        let number = "expected a number, `a+bxn`, `axn`, `_`, `_xn` or `stale`";
        let cases = [
            ("", "expected at least one sample".to_owned()),
            ("1 two", format!("`two`: {number}")),
            ("0+x4", format!("`0+x4`: {number}")),
            ("NaN", format!("`NaN`: {number}")),
            ("1xx", "`1xx`: expected a whole number after `x`".to_owned()),
            ("1x", "`1x`: expected a whole number after `x`".to_owned()),
            ("1x-3", "`1x-3`: expected a whole number after `x`".to_owned()),
            ("1+2", "`1+2`: expected `x` and how many steps, such as `0+10x40`".to_owned()),
            ("1x2000000", "`1x2000000`: more than 1000000 samples".to_owned()),
            ("_x600000 _x600000", "`_x600000`: more than 1000000 samples".to_owned()),
        ];
        for (text, want) in cases {
            assert_eq!(samples(text), Err(want), "{text}");
        }
        for text in ["", "{a=\"b\"}", "x{a=~\"b\"}", "x[5m]", "x offset 5m", "rate(x[5m])", "x{a"] {
            assert!(labels(text).is_err(), "{text}");
        }
        let input = labels("x{a=\"b\"}").unwrap();
        assert_eq!((input.labels["__name__"].as_str(), input.labels["a"].as_str()), ("x", "b"));
    }
}
