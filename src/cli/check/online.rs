//! Do the rules fit what Prometheus has?

use std::future::Future;
use std::time::Duration;

use super::finding::{Finding, Level};
use super::traffic;
use crate::adapters::prometheus::PrometheusSource;
use crate::config::{Config, FleetConfig};
use crate::domain::time::Timestamp;
use crate::evaluate::judge::{rule_name, threshold_log10};
use crate::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};
use crate::rules::{Group, RuleSet, SessionRule, ValueRule, selector};
use crate::yaml::Problem;

/// How far back series are looked for.
const PAST: &str = "1h";

/// A server that also knows what type a metric has.
pub trait Server: MetricSource {
    /// The type in the metadata, as `counter` or `gauge`; `None` where it is not known.
    fn metric_type(&self, metric: &str) -> impl Future<Output = Option<String>> + Send;
}

impl Server for PrometheusSource {
    async fn metric_type(&self, metric: &str) -> Option<String> {
        PrometheusSource::metric_type(self, metric).await
    }
}

/// Asks about every fleet and every rule.
///
/// # Errors
/// When Prometheus gives no answer: then nothing is known.
pub(super) async fn examine(
    server: &impl Server,
    config: &Config,
    rules: &RuleSet,
    now: Timestamp,
) -> Result<Vec<Finding>, MetricError> {
    let mut findings = Vec::new();
    for fleet in &config.fleets {
        let groups: Vec<Group> =
            rules.groups.iter().filter(|group| group.fleet == fleet.name).cloned().collect();
        let at = now.align_down(Duration::from_secs(1));
        let mut desk = Desk { server, fleet, at, findings: Vec::new() };
        for group in &groups {
            for rule in &group.sessions {
                desk.session_rule(group, rule, &groups).await?;
            }
            for rule in &group.values {
                desk.value_rule(group, rule).await?;
            }
        }
        findings.append(&mut desk.findings);
    }
    Ok(findings)
}

/// One fleet's questions and what came of them.
struct Desk<'c, S> {
    server: &'c S,
    fleet: &'c FleetConfig,
    at: Timestamp,
    findings: Vec<Finding>,
}

/// What a selector is to be.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    /// Not there before the first failure, perhaps.
    RareCounter,
    Gauge,
}

impl<S: Server> Desk<'_, S> {
    async fn session_rule(
        &mut self,
        group: &Group,
        rule: &SessionRule,
        groups: &[Group],
    ) -> Result<(), MetricError> {
        let named = Named { file: &group.file, rule: rule_name(group, &rule.name) };
        let there = self.selector(&named, "started", &rule.started, Kind::Counter).await?;
        self.selector(&named, "failed", &rule.failed, Kind::RareCounter).await?;
        if let Some(live) = &rule.live {
            self.selector(&named, "live", live, Kind::Gauge).await?;
        }
        if there {
            let threshold = threshold_log10(self.fleet.false_rollback_rate, groups);
            self.traffic(&named, group, rule, threshold).await?;
        }
        Ok(())
    }

    async fn value_rule(&mut self, group: &Group, rule: &ValueRule) -> Result<(), MetricError> {
        let named = Named { file: &group.file, rule: rule_name(group, &rule.name) };
        // On lines of its own: it may end in a comment.
        let series = self.ask(format!("count by ({}) (\n{}\n)", self.labels(), rule.value)).await?;
        if series.is_empty() {
            self.tell(Level::Warning, &named, "`value` gives nothing now".to_owned());
        }
        self.labels_carried(&named, "value", &series);
        Ok(())
    }

    /// Whether a selector selects what it is to; `false`: it selects nothing.
    async fn selector(
        &mut self,
        named: &Named<'_>,
        key: &str,
        selector: &str,
        kind: Kind,
    ) -> Result<bool, MetricError> {
        let labels = self.labels();
        let series =
            self.ask(format!("count by ({labels}) (last_over_time({selector}[{PAST}]))")).await?;
        if series.is_empty() {
            let nothing = format!("`{key}`: no series of `{selector}` in the last {PAST}");
            let (level, why) = match kind {
                Kind::RareCounter => (
                    Level::Warning,
                    "; good only if workers export it from the first failure on, better from 0",
                ),
                Kind::Counter | Kind::Gauge => (
                    Level::Error,
                    "; check its name and matchers, and that the workers are scraped",
                ),
            };
            self.tell(level, named, nothing + why);
            return Ok(false);
        }
        self.labels_carried(named, key, &series);
        self.type_fits(named, key, selector, kind).await?;
        if kind != Kind::Gauge {
            self.begins_at_zero(named, key, selector).await?;
        }
        Ok(true)
    }

    /// Each label that tells versions and fleets apart must be on every series.
    fn labels_carried(&mut self, named: &Named<'_>, key: &str, series: &[Series]) {
        let labels: Vec<String> =
            self.fleet.by.iter().chain([&self.fleet.version_label]).cloned().collect();
        for label in labels {
            let bare = series.iter().filter(|series| !series.labels.contains_key(&label));
            let bare: f64 = bare.map(value).sum();
            if bare > 0.0 {
                self.tell(
                    Level::Error,
                    named,
                    format!(
                        "`{key}`: {bare} of its series have no label `{label}`; add it in the \
                         exporter or by relabelling, or name another in the config"
                    ),
                );
            }
        }
    }

    async fn type_fits(
        &mut self,
        named: &Named<'_>,
        key: &str,
        selector: &str,
        kind: Kind,
    ) -> Result<(), MetricError> {
        let known = match selector::metric(selector) {
            Some(metric) => self.server.metric_type(&metric).await,
            None => None,
        };
        match (kind, known.as_deref()) {
            (Kind::Gauge, Some("counter")) => self.tell(
                Level::Error,
                named,
                format!(
                    "`{key}`: `{selector}` is a counter; give the gauge of sessions in progress"
                ),
            ),
            (Kind::Counter | Kind::RareCounter, Some("gauge")) => self.tell(
                Level::Error,
                named,
                format!("`{key}`: `{selector}` is a gauge; give a counter, which only grows"),
            ),
            (Kind::Counter | Kind::RareCounter, _) => {
                let falls = self.number(format!("sum(resets({selector}[{PAST}]))")).await?;
                let moves = self.number(format!("sum(changes({selector}[{PAST}]))")).await?;
                if let (Some(falls), Some(moves)) = (falls, moves)
                    && falls >= 3.0
                    && falls > moves * 0.2
                {
                    self.tell(
                        Level::Error,
                        named,
                        format!(
                            "`{key}`: `{selector}` fell in {falls} of its {moves} changes in the \
                             last {PAST}; give a counter, which only grows"
                        ),
                    );
                }
            }
            (Kind::Gauge, _) => {}
        }
        Ok(())
    }

    /// A counter's first value counts whole: one that brings a past along would be all failures
    /// at once.
    async fn begins_at_zero(
        &mut self,
        named: &Named<'_>,
        key: &str,
        selector: &str,
    ) -> Result<(), MetricError> {
        let young = format!("(min_over_time({selector}[{PAST}]) unless {selector} offset {PAST})");
        let grown =
            format!("(max_over_time({selector}[{PAST}]) - min_over_time({selector}[{PAST}]))");
        let high = format!("count({young} > 10 and {young} > {grown})");
        if let Some(count) = self.number(high).await?.filter(|count| *count > 0.0) {
            self.tell(
                Level::Warning,
                named,
                format!(
                    "`{key}`: {count} series of `{selector}` that appeared in the last {PAST} began \
                     above 0, higher than they have grown since; what a counter shows first counts \
                     as having just happened, so it must begin at 0 with its worker"
                ),
            );
        }
        Ok(())
    }

    async fn traffic(
        &mut self,
        named: &Named<'_>,
        group: &Group,
        rule: &SessionRule,
        threshold_log10: f64,
    ) -> Result<(), MetricError> {
        let past = humantime::format_duration(self.fleet.history).to_string().replace(' ', "");
        let seconds = self.fleet.history.as_secs();
        let grown = |selector: &str| {
            format!("sum by ({}) (increase({selector}[{seconds}s]))", self.labels())
        };
        let started = self.ask(grown(&rule.started)).await?;
        let failed = self.ask(grown(&rule.failed)).await?;
        // The one that carries the fleet.
        let busiest = started.iter().max_by(|a, b| value(a).total_cmp(&value(b)));
        let Some(busiest) = busiest.filter(|busiest| value(busiest) > 0.0) else {
            let nothing = format!("no session was started in the last {past}");
            self.tell(Level::Warning, named, nothing);
            return Ok(());
        };
        let version = busiest.labels.get(&self.fleet.version_label).cloned().unwrap_or_default();
        let of_busiest = failed.iter().find(|series| series.labels == busiest.labels);
        let facts = traffic::Facts {
            started: value(busiest),
            failed: of_busiest.map_or(0.0, value),
            seconds: self.fleet.history.as_secs_f64(),
        };
        let share = 100.0 * facts.failed / facts.started;
        if let Some(ceiling) = rule.ceiling {
            let of = format!("{version} failed {share:.2}% of its sessions in the last {past}");
            if facts.failed / facts.started >= ceiling.get() {
                self.tell(
                    Level::Error,
                    named,
                    format!(
                        "{of}, above the ceiling of {ceiling}: every version would be rolled back; \
                         raise `ceiling`, or leave it out and use `tolerance`"
                    ),
                );
                return Ok(());
            }
            if facts.failed / facts.started > ceiling.get() / 1.5 {
                let close = format!("{of}, close to the ceiling of {ceiling}");
                self.tell(Level::Warning, named, close);
            }
        }
        for (level, text) in traffic::told(self.fleet, group, rule, &facts, threshold_log10) {
            self.tell(level, named, format!("{version}: {text}"));
        }
        Ok(())
    }

    fn labels(&self) -> String {
        let labels = self.fleet.by.iter().chain([&self.fleet.version_label]);
        labels.map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    async fn ask(&self, expr: String) -> Result<Vec<Series>, MetricError> {
        let step = Duration::from_secs(1);
        self.server.range(RangeQuery { expr, start: self.at, end: self.at, step }).await
    }

    /// The value of an answer with one series; `None` for one without.
    async fn number(&self, expr: String) -> Result<Option<f64>, MetricError> {
        Ok(self.ask(expr).await?.first().map(value))
    }

    fn tell(&mut self, level: Level, named: &Named<'_>, message: String) {
        let context = format!("fleet {}, {}", self.fleet.name, named.rule);
        let problem = Problem { file: named.file.to_owned(), place: None, context, message };
        self.findings.push(Finding { level, problem });
    }
}

/// Which rule.
struct Named<'r> {
    file: &'r str,
    /// `group/rule`.
    rule: String,
}

fn value(series: &Series) -> f64 {
    series.points.last().map_or(0.0, |(_, value)| *value)
}
