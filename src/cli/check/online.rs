//! Do the rules fit what Prometheus has?

use std::future::Future;
use std::time::Duration;

use super::finding::{Finding, Level};
use crate::adapters::prometheus::PrometheusSource;
use crate::config::{Config, FleetConfig};
use crate::domain::time::Timestamp;
use crate::evaluate::answers::FRESH_SECONDS;
use crate::evaluate::judge::{rule_name, threshold_log10};
use crate::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};
use crate::rules::{Group, RuleSet, SessionRule, ValueRule, selector};
use crate::yaml::Problem;

mod load;

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

/// What came of asking.
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    /// Whether a question was refused: what is known is partial.
    pub(super) refused: bool,
    /// Prometheus gave no answer, and what would have come after that is not known either.
    pub(super) broke_off: Option<MetricError>,
}

/// Asks about every fleet of the config, which `config_file` names, and every rule.
pub(super) async fn examine(
    server: &impl Server,
    (config_file, config): (&str, &Config),
    rules: &RuleSet,
    now: Timestamp,
) -> Examined {
    let mut examined = Examined { findings: Vec::new(), refused: false, broke_off: None };
    for fleet in &config.fleets {
        let groups: Vec<Group> =
            rules.groups.iter().filter(|group| group.fleet == fleet.name).cloned().collect();
        let at = now.align_down(Duration::from_secs(1));
        let mut desk = Desk { server, fleet, at, findings: Vec::new(), refused: false };
        let asked = desk.fleet(config_file, &groups).await;
        examined.findings.append(&mut desk.findings);
        examined.refused |= desk.refused;
        if let Err(error) = asked {
            examined.broke_off = Some(error);
            break;
        }
    }
    examined
}

/// One fleet's questions and what came of them.
struct Desk<'c, S> {
    server: &'c S,
    fleet: &'c FleetConfig,
    at: Timestamp,
    findings: Vec<Finding>,
    /// Whether a question was refused.
    refused: bool,
}

/// What a selector is to be.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    /// Not there before the first failure, perhaps.
    RareCounter,
    Gauge,
    /// There only while it is not 0, perhaps.
    RareGauge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter | Self::RareCounter => "counter",
            Self::Gauge | Self::RareGauge => "gauge",
        }
    }
}

impl<S: Server> Desk<'_, S> {
    /// All there is to ask of a fleet.
    ///
    /// # Errors
    /// When Prometheus gives no answer; what was found before that is kept.
    async fn fleet(&mut self, file: &str, groups: &[Group]) -> Result<(), MetricError> {
        self.fleet_selectors(file).await?;
        for group in groups {
            for rule in &group.sessions {
                self.session_rule(group, rule, groups).await?;
            }
            for rule in &group.values {
                self.value_rule(group, rule).await?;
            }
        }
        Ok(())
    }

    /// What came of asking about `what`. That a server refuses this is found too, and others can
    /// still be asked; that it does not answer is not.
    fn unless_refused<T>(
        &mut self,
        named: &Named<'_>,
        what: &str,
        answer: Result<T, MetricError>,
    ) -> Result<Option<T>, MetricError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error @ MetricError::Refused { .. }) => {
                self.refused = true;
                let text = format!("{what}: cannot be checked, so this check is partial: {error}");
                self.tell(Level::Error, named, text);
                Ok(None)
            }
            Err(
                error @ (MetricError::Unreachable { .. }
                | MetricError::OtherTime
                | MetricError::Malformed { .. }),
            ) => Err(error),
        }
    }

    /// What tells which versions there are, and what they still do.
    async fn fleet_selectors(&mut self, file: &str) -> Result<(), MetricError> {
        let named = Named { file, context: format!("fleet {}", self.fleet.name) };
        let fleet = self.fleet;
        let workers = Some(&fleet.workers);
        for (key, selector, kind) in [
            ("workers", workers, Kind::Gauge),
            ("draining", fleet.draining.as_ref(), Kind::RareGauge),
            ("live", fleet.live.as_ref(), Kind::Gauge),
        ] {
            if let Some(selector) = selector {
                self.selector(&named, key, selector, kind).await?;
            }
        }
        let asked = self.scraped_often(&named).await;
        self.unless_refused(&named, "`workers`: how often they are scraped", asked)?;
        Ok(())
    }

    /// Whether workers are scraped often enough to count as able to carry load.
    async fn scraped_often(&mut self, named: &Named<'_>) -> Result<(), MetricError> {
        let times = format!("timestamp({})[{PAST}:15s]", self.fleet.workers);
        let between =
            format!("min((max_over_time({times}) - min_over_time({times})) / changes({times}))");
        if let Some(seconds) = self.number(between).await?.filter(|s| *s > FRESH_SECONDS) {
            self.tell(
                Level::Error,
                named,
                format!(
                    "`workers`: scraped every {seconds:.0} s; a worker counts as able to carry \
                     load for {FRESH_SECONDS} s after a scrape, so a rollback would wait for \
                     capacity again and again; scrape at least once a minute"
                ),
            );
        }
        Ok(())
    }

    async fn session_rule(
        &mut self,
        group: &Group,
        rule: &SessionRule,
        groups: &[Group],
    ) -> Result<(), MetricError> {
        let named = self.named(group, &rule.name);
        let told = self.findings.len();
        let there = self.selector(&named, "started", &rule.started, Kind::Counter).await?;
        let fails = self.selector(&named, "failed", &rule.failed, Kind::RareCounter).await?;
        for (key, selector, there) in
            [("started", &rule.started, there), ("failed", &rule.failed, fails)]
        {
            if there {
                let asked = self.begins_at_zero(&named, (key, selector), &rule.started).await;
                self.unless_refused(&named, &format!("`{key}`: where it begins"), asked)?;
            }
        }
        if let Some(live) = &rule.live {
            self.selector(&named, "live", live, Kind::Gauge).await?;
        }
        // What is not counted right is not reckoned with.
        let wrong = self.findings[told..].iter().any(|finding| finding.level == Level::Error);
        if there && !wrong {
            let threshold = threshold_log10(self.fleet.false_rollback_rate, groups);
            let asked = self.traffic(&named, group, rule, threshold).await;
            let past = self.past();
            self.unless_refused(&named, &format!("the traffic of the last {past}"), asked)?;
        }
        Ok(())
    }

    async fn value_rule(&mut self, group: &Group, rule: &ValueRule) -> Result<(), MetricError> {
        let named = self.named(group, &rule.name);
        // On lines of its own: it may end in a comment.
        let asked = self.ask(format!("count by ({}) (\n{}\n)", self.labels(), rule.value)).await;
        let Some(series) = self.unless_refused(&named, "`value`", asked)? else { return Ok(()) };
        if series.is_empty() {
            self.tell(Level::Warning, &named, "`value` gives nothing now".to_owned());
        }
        self.labels_carried(&named, "value", &series);
        Ok(())
    }

    /// Whether a selector selects what it is to; `false`: it selects nothing, or that is not known.
    async fn selector(
        &mut self,
        named: &Named<'_>,
        key: &str,
        selector: &str,
        kind: Kind,
    ) -> Result<bool, MetricError> {
        let labels = self.labels();
        let asked =
            self.ask(format!("count by ({labels}) (last_over_time({selector}[{PAST}]))")).await;
        let Some(series) = self.unless_refused(named, &format!("`{key}`"), asked)? else {
            return Ok(false);
        };
        if series.is_empty() {
            let nothing = format!("`{key}`: no series of `{selector}` in the last {PAST}");
            let (level, why) = match kind {
                Kind::RareCounter => (
                    Level::Warning,
                    "; good only if workers export it from the first failure on, better from 0",
                ),
                Kind::RareGauge => {
                    (Level::Warning, "; good only if workers export it when they begin to drain")
                }
                Kind::Counter | Kind::Gauge => (
                    Level::Error,
                    "; check its name and matchers, and that the workers are scraped",
                ),
            };
            self.tell(level, named, nothing + why);
            return Ok(false);
        }
        self.labels_carried(named, key, &series);
        let asked = self.type_fits(named, key, selector, kind).await;
        self.unless_refused(named, &format!("`{key}`: whether it is a {}", kind.name()), asked)?;
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
            (Kind::Gauge | Kind::RareGauge, Some("counter")) => self.tell(
                Level::Error,
                named,
                format!("`{key}`: `{selector}` is a counter; give a gauge, which says what is now"),
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
            (Kind::Gauge | Kind::RareGauge, _) => {}
        }
        Ok(())
    }

    /// A counter's first value counts whole: one that brings a past along would be all failures
    /// at once. Not where nothing was started before: then it is Prometheus that is new, and the
    /// first values do not count.
    async fn begins_at_zero(
        &mut self,
        named: &Named<'_>,
        (key, selector): (&str, &str),
        started: &str,
    ) -> Result<(), MetricError> {
        let least = format!("min_over_time({selector}[{PAST}])");
        let young = format!("({least} unless {selector} offset {PAST})");
        let grown = format!("(max_over_time({selector}[{PAST}]) - {least})");
        // The first scrape finds a busy worker above 0; after a few its growth tells.
        let known = format!("count_over_time({selector}[{PAST}]) > 3");
        let past = format!("on () group({started} offset {PAST})");
        let high = format!("count({young} > 10 and {young} > {grown} and {known} and {past})");
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

    fn named<'r>(&self, group: &'r Group, rule: &str) -> Named<'r> {
        let context = format!("fleet {}, {}", self.fleet.name, rule_name(group, rule));
        Named { file: &group.file, context }
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
        let (file, context) = (named.file.to_owned(), named.context.clone());
        let problem = Problem { file, place: None, context, message };
        self.findings.push(Finding { level, problem });
    }
}

/// What a finding is about.
struct Named<'r> {
    file: &'r str,
    /// The fleet and, of a rule, `group/rule`.
    context: String,
}

fn value(series: &Series) -> f64 {
    series.points.last().map_or(0.0, |(_, value)| *value)
}
