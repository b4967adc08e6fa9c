//! The series of a test, and what Prometheus would answer of them.
//!
//! **Invariant:** the counts of a window are those of [`crate::rules::query`]'s PromQL; a test has
//! promtool evaluate the queries on the same series.

use std::collections::BTreeMap;
use std::time::Duration;

use promql_parser::label::METRIC_NAME;
use promql_parser::parser::{Expr, VectorSelector};

use crate::config::FleetConfig;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::{Seen, owner};
use crate::evaluate::plan::{RuleAnswer, Span};
use crate::ports::metrics::Series;
use crate::rules::query::LOOKBACK;
use crate::rules::{Group, SessionRule};

/// How old a sample may be to be seen at a time.
const STALE_AFTER: Duration = Duration::from_mins(5);

/// One sample of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    /// Scraped.
    Value(f64),
    /// Not scraped.
    Missing,
    /// The series ended.
    Stale,
}

/// One series of a test, with its name among the labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Input {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) samples: Vec<Sample>,
}

/// One value rule's values of one version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ValueInput {
    /// `group/rule`.
    pub(super) rule: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) samples: Vec<Sample>,
}

/// All series of a test.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    /// The time between two samples; the first are at 0.
    pub(super) interval: Duration,
    pub(super) series: Vec<Input>,
    pub(super) values: Vec<ValueInput>,
}

impl Inputs {
    /// When the last sample is.
    pub(super) fn end(&self) -> Timestamp {
        let series = self.series.iter().map(|input| input.samples.len());
        let values = self.values.iter().map(|input| input.samples.len());
        let longest = series.chain(values).max().unwrap_or(0).saturating_sub(1);
        let steps = u32::try_from(longest).unwrap_or(u32::MAX);
        Timestamp::from_millis(0) + self.interval.saturating_mul(steps)
    }

    /// What a rule's queries give over `span`.
    pub(super) fn answer(&self, rule: &SessionRule, span: Span) -> RuleAnswer {
        let over = |selector: &str, of: &dyn Fn(&Input, Timestamp) -> Option<f64>| {
            let matching = self.matching(selector);
            matching.map(|input| series(&input.labels, span, |end| of(input, end))).collect()
        };
        let window = span.window;
        // Before anything was started, first values are those of a Prometheus without a past.
        let past = |end: Timestamp| {
            let has_past = |input: &Input| self.before(input, end, window).is_some();
            self.matching(&rule.started).any(has_past)
        };
        let increase = |input: &Input, end| {
            let grown = self.increase(input, end, window);
            grown.filter(|_| self.before(input, end, window).is_some() || past(end))
        };
        RuleAnswer {
            started: over(&rule.started, &increase),
            failed: over(&rule.failed, &increase),
            live: rule.live.as_ref().map_or_else(Vec::new, |live| {
                over(live, &|input, end| self.mean(input, end, window))
            }),
            ..RuleAnswer::default()
        }
    }

    /// The values of a rule, `group/rule` or the rule's own name, as of the ends of `span`.
    pub(super) fn values(&self, rule: &str, span: Span) -> Vec<Series> {
        let inputs = self.values.iter().filter(|input| input.rule == rule);
        inputs
            .map(|input| series(&input.labels, span, |end| self.seen(&input.samples, end)))
            .collect()
    }

    /// The versions with workers at `at`: those whose series of the `workers` selector are seen,
    /// or where the test has none of that, those whose started counters are.
    pub(super) fn workers(&self, config: &FleetConfig, groups: &[Group], at: Timestamp) -> Seen {
        let named = |selector: &str| self.matching(selector).collect::<Vec<_>>();
        let mut inputs = named(&config.workers);
        if inputs.is_empty() {
            let rules = groups.iter().flat_map(|group| &group.sessions);
            inputs = rules.flat_map(|rule| named(&rule.started)).collect();
        }
        let of_inputs = inputs.iter().map(|input| (&input.labels, &input.samples));
        let of_values = self.values.iter().map(|input| (&input.labels, &input.samples));
        let mut seen = Seen::new();
        for (labels, samples) in of_inputs.chain(of_values) {
            let series = Series { labels: labels.clone(), points: Vec::new() };
            let owner: Option<(String, Version)> = owner(config, &series);
            if let Some((fleet, version)) = owner.filter(|_| self.seen(samples, at).is_some()) {
                let version = seen.entry(fleet).or_default().entry(version).or_default();
                version.workers.push(format!("worker-{}", version.workers.len() + 1));
            }
        }
        seen
    }

    fn matching(&self, selector: &str) -> impl Iterator<Item = &Input> {
        let selector = match promql_parser::parser::parse(selector) {
            Ok(Expr::VectorSelector(selector)) => Some(selector),
            _ => None,
        };
        self.series
            .iter()
            .filter(move |input| selector.as_ref().is_some_and(|s| selects(s, &input.labels)))
    }

    /// The samples in `(end - window, end]`.
    fn window<'i>(&self, samples: &'i [Sample], end: Timestamp, window: Duration) -> &'i [Sample] {
        let step = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let index = |at: Timestamp| {
            let after = at.as_millis().div_euclid(step) + 1;
            usize::try_from(after).unwrap_or(0).min(samples.len())
        };
        samples.get(index(end - window)..index(end)).unwrap_or_default()
    }

    /// What a counter grew by in the window: a fall is a restart, and a first value counts whole.
    fn increase(&self, input: &Input, end: Timestamp, window: Duration) -> Option<f64> {
        let inside = self.window(&input.samples, end, window);
        let now = last(inside)?;
        let Some(before) = self.before(input, end, window) else { return Some(now) };
        if now >= before {
            return Some(now - before);
        }
        let peak = values(inside).fold(f64::NEG_INFINITY, f64::max);
        Some(now + (peak - before).max(0.0))
    }

    /// The last value before the window.
    fn before(&self, input: &Input, end: Timestamp, window: Duration) -> Option<f64> {
        last(self.window(&input.samples, end - window, LOOKBACK))
    }

    fn mean(&self, input: &Input, end: Timestamp, window: Duration) -> Option<f64> {
        let inside = self.window(&input.samples, end, window);
        let (count, sum) =
            values(inside).fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The value that is seen at a time.
    fn seen(&self, samples: &[Sample], at: Timestamp) -> Option<f64> {
        let newest = self.window(samples, at, STALE_AFTER).iter().rev();
        match newest.copied().find(|sample| *sample != Sample::Missing)? {
            Sample::Value(value) => Some(value),
            Sample::Missing | Sample::Stale => None,
        }
    }
}

fn values(samples: &[Sample]) -> impl DoubleEndedIterator<Item = f64> {
    samples.iter().filter_map(|sample| match sample {
        Sample::Value(value) => Some(*value),
        Sample::Missing | Sample::Stale => None,
    })
}

fn last(samples: &[Sample]) -> Option<f64> {
    values(samples).next_back()
}

fn series(
    labels: &BTreeMap<String, String>,
    span: Span,
    of: impl Fn(Timestamp) -> Option<f64>,
) -> Series {
    let points = span.ends().filter_map(|end| Some((end, of(end)?)));
    Series { labels: labels.clone(), points: points.collect() }
}

fn selects(selector: &VectorSelector, labels: &BTreeMap<String, String>) -> bool {
    let value = |name: &str| labels.get(name).map_or("", String::as_str);
    let all = |matchers: &[promql_parser::label::Matcher]| {
        matchers.iter().all(|matcher| matcher.is_match(value(&matcher.name)))
    };
    let matchers = &selector.matchers;
    selector.name.as_ref().is_none_or(|name| value(METRIC_NAME) == name)
        && all(&matchers.matchers)
        && (matchers.or_matchers.is_empty() || matchers.or_matchers.iter().any(|or| all(or)))
}

#[cfg(test)]
mod tests;
