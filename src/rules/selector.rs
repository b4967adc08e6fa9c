//! Selectors: what may stand where rollbackd adds the range and the functions itself.

use promql_parser::label::{METRIC_NAME, MatchOp};
use promql_parser::parser::{Expr, VectorSelector};

use super::promql;

/// Checks that `text` selects series by a metric name, so that a range may be put right after it.
///
/// # Errors
/// Says what was expected and what was found.
pub fn check(text: &str) -> Result<String, String> {
    let text = text.trim();
    match promql::parse(text) {
        Ok(Expr::VectorSelector(selector)) => {
            check_plain(text, &selector).map(|()| text.to_owned())
        }
        Ok(Expr::MatrixSelector(_)) => {
            Err("expected no range; rollbackd writes it itself".to_owned())
        }
        Ok(Expr::Subquery(_)) => Err("expected a metric name, found a subquery".to_owned()),
        Ok(Expr::Binary(binary)) => {
            Err(format!("expected one selector, found the operator `{}`", binary.op))
        }
        Ok(
            Expr::Aggregate(_)
            | Expr::Unary(_)
            | Expr::Paren(_)
            | Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::Call(_)
            | Expr::Extension(_),
        ) => Err(format!("expected a metric name, found `{}`", opening(text))),
        Err(_) if starts_otherwise(text) => {
            Err(format!("expected a metric name, found `{}`", opening(text)))
        }
        Err(error) => Err(error),
    }
}

/// The metric that a selector names.
#[must_use]
pub fn metric(selector: &str) -> Option<String> {
    let Ok(Expr::VectorSelector(selector)) = promql_parser::parser::parse(selector) else {
        return None;
    };
    let named = || selector.matchers.find_matchers(METRIC_NAME).into_iter().next();
    selector.name.clone().or_else(|| named().map(|matcher| matcher.value))
}

fn check_plain(text: &str, selector: &VectorSelector) -> Result<(), String> {
    if selector.offset.is_some() {
        return Err("expected no `offset`; rollbackd writes it itself".to_owned());
    }
    if selector.at.is_some() {
        return Err("expected no `@`; rollbackd says when itself".to_owned());
    }
    let by_name = selector.name.is_some()
        || selector.matchers.find_matchers(METRIC_NAME).iter().any(|m| m.op == MatchOp::Equal);
    if !by_name {
        return Err("expected a metric name, found only matchers".to_owned());
    }
    // A comment at the end would swallow what is written after it.
    match promql::parse(&format!("{text}[1s]")) {
        Ok(Expr::MatrixSelector(_)) => Ok(()),
        _ => Err("expected nothing after the selector".to_owned()),
    }
}

fn starts_otherwise(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' || c == '{')
        || opening(text).ends_with('(')
}

/// The text up to its first bracket, for a reader to recognize.
fn opening(text: &str) -> String {
    let end = text.find('(').map_or(text.len(), |at| at + 1);
    text[..end].chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_selector_by_name_is_a_selector() {
        for good in
            ["x", " x ", "ns:x_total{job=\"a\", v!~\"b|c\"}", "{__name__=\"x\"}", "x{l=\"#[5m]\"}"]
        {
            assert_eq!(check(good), Ok(good.trim().to_owned()), "{good}");
        }
        #[rustfmt::skip]
        let cases = [
            ("sum(rate(x[5m]))",   "expected a metric name, found `sum(`"),
            ("sum by (a) (x)",     "expected a metric name, found `sum by (`"),
            ("rate(x[5m])",        "expected a metric name, found `rate(`"),
            ("sum(x",              "expected a metric name, found `sum(`"),
            ("(x)",                "expected a metric name, found `(`"),
            ("5",                  "expected a metric name, found `5`"),
            ("-x",                 "expected a metric name, found `-x`"),
            ("x[5m]",              "expected no range; rollbackd writes it itself"),
            ("x offset 5m",        "expected no `offset`; rollbackd writes it itself"),
            ("x @ 5",              "expected no `@`; rollbackd says when itself"),
            ("x + y",              "expected one selector, found the operator `+`"),
            ("{job=\"a\"}",        "expected a metric name, found only matchers"),
            ("x # why",            "expected nothing after the selector"),
            ("x[5m:1m]",           "expected a metric name, found a subquery"),
            ("é",                  "expected a metric name, found `é`"),
        ];
        for (text, message) in cases {
            assert_eq!(check(text), Err(message.to_owned()), "{text}");
        }
    }
}
