//! Which labels a PromQL expression can keep.

use promql_parser::label::{Labels, MatchOp};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

/// Why no series of the result of `expr` can have the label `label`, and what to write instead;
/// `None` where it may have it. What the series have is for Prometheus to say.
#[must_use]
pub fn lost(expr: &Expr, label: &str) -> Option<String> {
    match expr {
        Expr::Aggregate(aggregate) => of_aggregate(aggregate, label),
        Expr::Binary(binary) => of_binary(binary, label),
        Expr::Call(call) => of_call(call, label),
        Expr::Paren(inner) => lost(&inner.expr, label),
        Expr::Unary(inner) => lost(&inner.expr, label),
        Expr::Subquery(inner) => lost(&inner.expr, label),
        Expr::VectorSelector(selector) => of_selector(selector, label),
        Expr::MatrixSelector(selector) => of_selector(&selector.vs, label),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => None,
    }
}

fn of_aggregate(aggregate: &AggregateExpr, label: &str) -> Option<String> {
    let name = aggregate.op.to_string();
    if ["topk", "bottomk", "limitk", "limit_ratio"].contains(&name.as_str()) {
        // These choose series and leave their labels alone.
        return lost(&aggregate.expr, label);
    }
    let has = |labels: &Labels| labels.labels.iter().any(|name| name == label);
    match &aggregate.modifier {
        None => Some(format!("`{name}` drops it; write `{name} by ({label}) (…)`")),
        Some(LabelModifier::Include(labels)) if !has(labels) => {
            let all: Vec<&str> = labels.labels.iter().map(String::as_str).chain([label]).collect();
            Some(format!("`{name}` drops it; write `{name} by ({}) (…)`", all.join(", ")))
        }
        Some(LabelModifier::Exclude(labels)) if has(labels) => {
            Some(format!("`{name} without ({label})` drops it; take it out of `without`"))
        }
        Some(LabelModifier::Include(_) | LabelModifier::Exclude(_)) => lost(&aggregate.expr, label),
    }
}

fn of_binary(binary: &BinaryExpr, label: &str) -> Option<String> {
    let scalar = |expr: &Expr| expr.value_type() == ValueType::Scalar;
    if scalar(&binary.lhs) {
        return lost(&binary.rhs, label);
    }
    if scalar(&binary.rhs) {
        return lost(&binary.lhs, label);
    }
    let op = binary.op.to_string();
    if op == "or" {
        return lost(&binary.lhs, label).or_else(|| lost(&binary.rhs, label));
    }
    if binary.op.is_set_operator() {
        return lost(&binary.lhs, label);
    }
    let modifier = binary.modifier.as_ref();
    match modifier.map(|modifier| &modifier.card) {
        Some(VectorMatchCardinality::ManyToOne(_)) => return lost(&binary.lhs, label),
        Some(VectorMatchCardinality::OneToMany(_)) => return lost(&binary.rhs, label),
        Some(VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany) | None => {}
    }
    let has = |labels: &Labels| labels.labels.iter().any(|name| name == label);
    match modifier.and_then(|modifier| modifier.matching.as_ref()) {
        Some(LabelModifier::Include(on)) if !has(on) => {
            Some(format!("`{op} on (…)` drops it; write it into `on`"))
        }
        Some(LabelModifier::Exclude(ignored)) if has(ignored) => {
            Some(format!("`{op} ignoring ({label})` drops it; take it out of `ignoring`"))
        }
        Some(LabelModifier::Include(_) | LabelModifier::Exclude(_)) | None => {
            // Without a match on both sides there is no result.
            lost(&binary.lhs, label).or_else(|| lost(&binary.rhs, label))
        }
    }
}

fn of_call(call: &Call, label: &str) -> Option<String> {
    let name = call.func.name;
    match name {
        "absent" | "absent_over_time" | "vector" | "scalar" | "time" => {
            Some(format!("`{name}()` has no series of a version"))
        }
        "label_replace" | "label_join" if writes(call, label) => None,
        _ => {
            let is_vector =
                |arg: &&Expr| [ValueType::Matrix, ValueType::Vector].contains(&arg.value_type());
            let mut vectors = call.args.args.iter().map(AsRef::as_ref).filter(is_vector);
            vectors.next().and_then(|arg| lost(arg, label))
        }
    }
}

/// Whether a call writes the label itself.
fn writes(call: &Call, label: &str) -> bool {
    let target = call.args.args.get(1).map(AsRef::as_ref);
    matches!(target, Some(Expr::StringLiteral(target)) if target.val == label)
}

fn of_selector(selector: &VectorSelector, label: &str) -> Option<String> {
    let without = selector
        .matchers
        .matchers
        .iter()
        .any(|m| m.name == label && m.op == MatchOp::Equal && m.value.is_empty());
    without.then(|| format!("`{label}=\"\"` selects the series that have none"))
}

/// The value to which a selector fixes a label, if it does.
#[must_use]
pub fn fixed(selector: &str, label: &str) -> Option<String> {
    let Ok(Expr::VectorSelector(selector)) = promql_parser::parser::parse(selector) else {
        return None;
    };
    let mut matchers = selector.matchers.matchers.into_iter();
    matchers.find(|m| m.name == label && m.op == MatchOp::Equal).map(|m| m.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let expr = promql_parser::parser::parse(text).unwrap();
        lost(&expr, "v").unwrap_or_else(|| "kept".to_owned())
    }

    #[test]
    fn an_expression_keeps_a_label_or_says_where_it_is_lost() {
        let cases = [
            ("x", "kept"),
            ("rate(x[5m])", "kept"),
            ("sum by (v) (rate(x[5m]))", "kept"),
            ("sum by (le, v) (x)", "kept"),
            ("sum without (le) (x)", "kept"),
            ("histogram_quantile(0.95, sum by (le, v) (rate(x[5m])))", "kept"),
            ("topk(3, x)", "kept"),
            ("x / on (v) y", "kept"),
            ("x / ignoring (a) y", "kept"),
            ("sum by (v) (x) > 0.5", "kept"),
            ("1 - x", "kept"),
            ("sum by (v, a) (x) / on (a) group_left () sum by (a) (y)", "kept"),
            ("x and on (a) sum(y)", "kept"),
            ("label_replace(sum(x), \"v\", \"v1\", \"\", \"\")", "kept"),
            ("max_over_time(sum by (v) (x)[5m:1m])", "kept"),
            ("sum(x)", "`sum` drops it; write `sum by (v) (…)`"),
            ("sum by (le) (x)", "`sum` drops it; write `sum by (le, v) (…)`"),
            ("avg without (v) (x)", "`avg without (v)` drops it; take it out of `without`"),
            ("max by (v) (sum by (le) (x))", "`sum` drops it; write `sum by (le, v) (…)`"),
            (
                "histogram_quantile(0.9, sum by (le) (x))",
                "`sum` drops it; write `sum by (le, v) (…)`",
            ),
            ("x / on (a) y", "`/ on (…)` drops it; write it into `on`"),
            ("x / ignoring (v) y", "`/ ignoring (v)` drops it; take it out of `ignoring`"),
            ("x or sum(y)", "`sum` drops it; write `sum by (v) (…)`"),
            ("-sum(x)", "`sum` drops it; write `sum by (v) (…)`"),
            ("(sum(x))", "`sum` drops it; write `sum by (v) (…)`"),
            ("absent(x)", "`absent()` has no series of a version"),
            ("vector(1)", "`vector()` has no series of a version"),
            ("x{v=\"\"}", "`v=\"\"` selects the series that have none"),
        ];
        for (text, want) in cases {
            assert_eq!(said(text), want, "{text}");
        }
    }

    #[test]
    fn a_selector_may_fix_a_label() {
        assert_eq!(fixed("x{v=\"v1\"}", "v").as_deref(), Some("v1"));
        for free in ["x", "x{v=~\"v1|v2\"}", "x{v!=\"v1\"}", "x{a=\"v1\"}"] {
            assert_eq!(fixed(free, "v"), None, "{free}");
        }
    }
}
