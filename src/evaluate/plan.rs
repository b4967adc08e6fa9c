//! What one look asks: the queries of a fleet entry, for the ticks that are due.
//!
//! **Invariant:** the number of queries depends on the rules alone, never on how many fleets,
//! versions or workers there are, nor on how many ticks were missed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::FleetConfig;
use tracing::warn;

use crate::domain::time::Timestamp;
use crate::ports::metrics::{MetricError, MetricSource, RangeQuery, Series};
use crate::rules::Group;
use crate::rules::SessionRule;
use crate::rules::query::{self, FleetQueries, SessionQueries};

/// Ticks a single look may catch up on; older ones are lost to the evidence, which only delays it.
const TICKS_PER_LOOK_MAX: u32 = 10_000;

/// Prometheus is asked for whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// Times at which windows end: `first`, `first + window`, … `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) window: Duration,
}

impl Span {
    /// The aligned ticks after `cursor` up to `until`; none is due when there is none.
    pub(crate) fn due(cursor: Timestamp, until: Timestamp, window: Duration) -> Option<Self> {
        let last = until.align_down(window);
        let oldest = last - window * TICKS_PER_LOOK_MAX;
        let first = cursor.max(oldest).align_down(window) + window;
        (first <= last).then_some(Self { first, last, window })
    }

    /// The one window after `cursor` that is not over, or whose last scrapes may still arrive.
    pub(crate) fn unfinished(cursor: Timestamp, now: Timestamp) -> Option<Self> {
        let last = now.align_down(SECOND);
        let window = last.since(cursor);
        (window >= SECOND).then_some(Self { first: last, last, window })
    }

    /// `history` before `start`, cut into `chunks` equal windows.
    pub(crate) fn history(start: Timestamp, history: Duration, chunks: u32) -> Self {
        let window = Duration::from_secs((history / chunks.max(1)).as_secs().max(1));
        Self { first: start - window * (chunks.max(1) - 1), last: start, window }
    }

    /// Both halves; `None` of a single window.
    pub(crate) fn halves(self) -> Option<[Self; 2]> {
        let windows = u32::try_from(self.ends().count()).unwrap_or(u32::MAX);
        let middle = self.first + self.window * (windows / 2);
        (windows > 1)
            .then(|| [Self { last: middle - self.window, ..self }, Self { first: middle, ..self }])
    }

    /// The time `at` alone.
    pub(crate) fn instant(at: Timestamp) -> Self {
        Self { first: at, last: at, window: SECOND }
    }

    /// The ends of the windows.
    pub(crate) fn ends(self) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(Some(self.first), move |end| Some(*end + self.window))
            .take_while(move |end| *end <= self.last)
    }

    fn query(self, expr: String) -> RangeQuery {
        RangeQuery { expr, start: self.first, end: self.last, step: self.window }
    }
}

/// One group's part of a look.
#[derive(Clone, Debug)]
pub(crate) struct GroupPlan {
    /// Which of the entry's groups.
    pub(crate) group: usize,
    /// Ticks that are over.
    pub(crate) due: Option<Span>,
    /// The time since the last tick that is over.
    pub(crate) unfinished: Option<Span>,
    /// The past of rollouts not yet compared with it, by when they began.
    pub(crate) histories: Vec<Span>,
    /// Ticks of the value rules. They end when they end: a value is asked for as of a time, and
    /// what arrives later does not change how often it is counted.
    pub(crate) values: Option<Span>,
    /// What to ask by slice.
    pub(crate) slices: Option<SlicePlan>,
}

/// What to ask by slice, where a candidate is convicted.
#[derive(Clone, Debug)]
pub(crate) struct SlicePlan {
    /// All ticks that are over since its rollout began.
    pub(crate) ticks: Option<Span>,
    /// The past of such rollouts, by when they began.
    pub(crate) histories: Vec<Span>,
}

/// One look at a fleet entry.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which entry of the config.
    pub(crate) entry: usize,
    /// When it was made.
    pub(crate) at: Timestamp,
    /// When the fleet is looked at: at that time alone, but for a backtest.
    pub(crate) seen: Span,
    /// Workers at these times before now, where a fleet has no last good version yet.
    pub(crate) lineage: Option<Span>,
    /// By group.
    pub(crate) groups: Vec<GroupPlan>,
}

/// What the fleet queries gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetAnswer {
    pub(crate) workers: Vec<Series>,
    pub(crate) unreachable: Vec<Series>,
    pub(crate) draining: Vec<Series>,
    pub(crate) live: Vec<Series>,
    pub(crate) lineage: Vec<Series>,
}

/// What one rule's queries gave over one span.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleAnswer {
    pub(crate) started: Vec<Series>,
    pub(crate) failed: Vec<Series>,
    pub(crate) live: Vec<Series>,
    pub(crate) dropped: Vec<Series>,
    pub(crate) died: Vec<Series>,
}

impl RuleAnswer {
    /// Adds what the same queries gave over another span.
    pub(crate) fn extend(&mut self, other: Self) {
        self.started.extend(other.started);
        self.failed.extend(other.failed);
        self.live.extend(other.live);
        self.dropped.extend(other.dropped);
        self.died.extend(other.died);
    }
}

/// What one rule's queries by slice gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct SliceAnswer {
    pub(crate) ticks: RuleAnswer,
    pub(crate) unfinished: RuleAnswer,
    pub(crate) histories: Vec<RuleAnswer>,
}

/// What one group's queries gave: for each span the answers of its rules, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupAnswer {
    pub(crate) due: Vec<RuleAnswer>,
    pub(crate) unfinished: Vec<RuleAnswer>,
    pub(crate) histories: Vec<Vec<RuleAnswer>>,
    pub(crate) values: Vec<Vec<Series>>,
    /// By place of the session rule in its group; none where it was not asked or did not answer.
    pub(crate) slices: BTreeMap<usize, SliceAnswer>,
}

/// Everything a look saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) fleet: FleetAnswer,
    pub(crate) groups: Vec<GroupAnswer>,
}

/// Asks all of a plan's queries. One failure fails the look: half an answer is none. Only what is
/// asked by slice may fail by itself, since a regression of which no slice is known is wide.
pub(crate) async fn look(
    source: &impl MetricSource,
    config: &FleetConfig,
    groups: &[Group],
    plan: &Plan,
) -> Result<Answer, MetricError> {
    let fleet = look_at_fleet(source, config, plan);
    let groups = plan.groups.iter().map(|group| async move {
        match groups.get(group.group) {
            Some(rules) => look_at_group(source, config, rules, group).await,
            None => Ok(GroupAnswer::default()),
        }
    });
    let (fleet, groups) = futures::try_join!(fleet, futures::future::try_join_all(groups))?;
    Ok(Answer { fleet, groups })
}

async fn look_at_fleet(
    source: &impl MetricSource,
    config: &FleetConfig,
    plan: &Plan,
) -> Result<FleetAnswer, MetricError> {
    let queries = FleetQueries::new(
        &config.workers,
        config.draining.as_deref(),
        config.live.as_deref(),
        &config.by,
        &config.version_label,
    );
    let seen = plan.seen;
    let (workers, unreachable, draining, live, lineage) = futures::try_join!(
        answer_over(source, seen, queries.workers.clone()),
        answer_over(source, seen, queries.unreachable),
        ask(source, seen, queries.draining),
        ask(source, seen, queries.live),
        async {
            match plan.lineage {
                Some(span) => answer_over(source, span, queries.workers).await,
                None => Ok(Vec::new()),
            }
        },
    )?;
    Ok(FleetAnswer { workers, unreachable, draining, live, lineage })
}

/// Asks one group's queries.
pub(crate) async fn look_at_group(
    source: &impl MetricSource,
    config: &FleetConfig,
    group: &Group,
    plan: &GroupPlan,
) -> Result<GroupAnswer, MetricError> {
    let rules = &group.sessions;
    let over = |span: Option<Span>| async move {
        match span {
            Some(span) => look_over(source, config, rules, span).await,
            None => Ok(Vec::new()),
        }
    };
    let histories = plan.histories.iter().map(|span| look_over(source, config, rules, *span));
    let slices = async { Ok(look_at_slices(source, config, group, plan).await) };
    let (due, unfinished, histories, values, slices) = futures::try_join!(
        over(plan.due),
        async { of_unfinished(over(plan.unfinished).await) },
        futures::future::try_join_all(histories),
        look_at_values(source, config, group, plan.values),
        slices,
    )?;
    Ok(GroupAnswer { due, unfinished, histories, values, slices })
}

async fn look_at_slices(
    source: &impl MetricSource,
    config: &FleetConfig,
    group: &Group,
    plan: &GroupPlan,
) -> BTreeMap<usize, SliceAnswer> {
    let Some(slices) = &plan.slices else { return BTreeMap::new() };
    let rules = group.sessions.iter().enumerate().filter(|(_, rule)| !rule.narrow_by.is_empty());
    let each = rules.map(|(place, rule)| async move {
        match look_at_rule_by_slice(source, config, rule, slices, plan.unfinished).await {
            Ok(answer) => Some((place, answer)),
            Err(error) => {
                warn!(fleet = %config.name, rule = rule.name, %error, "no slices: what is convicted counts as wide");
                None
            }
        }
    });
    futures::future::join_all(each).await.into_iter().flatten().collect()
}

async fn look_at_rule_by_slice(
    source: &impl MetricSource,
    config: &FleetConfig,
    rule: &SessionRule,
    plan: &SlicePlan,
    unfinished: Option<Span>,
) -> Result<SliceAnswer, MetricError> {
    let over = |span: Span| count_by_slice(source, config, rule, span);
    let if_any = |span: Option<Span>| async move {
        match span {
            Some(span) => over(span).await,
            None => Ok(RuleAnswer::default()),
        }
    };
    let histories = futures::future::try_join_all(plan.histories.iter().map(|span| over(*span)));
    let (ticks, unfinished, histories) = futures::try_join!(
        if_any(plan.ticks),
        async { of_unfinished(if_any(unfinished).await) },
        histories,
    )?;
    Ok(SliceAnswer { ticks, unfinished, histories })
}

/// Asks one rule's counts by slice.
pub(crate) async fn count_by_slice(
    source: &impl MetricSource,
    config: &FleetConfig,
    rule: &SessionRule,
    span: Span,
) -> Result<RuleAnswer, MetricError> {
    let FleetConfig { by, version_label, .. } = config;
    let queries = SessionQueries::by_slice(rule, by, version_label, span.window);
    count_over(source, queries, span).await
}

async fn look_at_values(
    source: &impl MetricSource,
    config: &FleetConfig,
    group: &Group,
    span: Option<Span>,
) -> Result<Vec<Vec<Series>>, MetricError> {
    let Some(span) = span else { return Ok(Vec::new()) };
    let each = group.values.iter().map(|rule| {
        let FleetConfig { workers, by, version_label, .. } = config;
        answer_over(source, span, query::value(rule, workers, by, version_label, group.interval))
    });
    futures::future::try_join_all(each).await
}

async fn look_over(
    source: &impl MetricSource,
    config: &FleetConfig,
    rules: &[SessionRule],
    span: Span,
) -> Result<Vec<RuleAnswer>, MetricError> {
    let each = rules.iter().map(|rule| {
        let queries = SessionQueries::new(rule, &config.by, &config.version_label, span.window);
        count_over(source, queries, span)
    });
    futures::future::try_join_all(each).await
}

async fn count_over(
    source: &impl MetricSource,
    queries: SessionQueries,
    span: Span,
) -> Result<RuleAnswer, MetricError> {
    let (started, failed, live, dropped, died) = futures::try_join!(
        answer_over(source, span, queries.started),
        answer_over(source, span, queries.failed),
        ask(source, span, queries.live),
        ask(source, span, queries.dropped),
        ask(source, span, queries.died),
    )?;
    Ok(RuleAnswer { started, failed, live, dropped, died })
}

async fn ask(
    source: &impl MetricSource,
    span: Span,
    expr: Option<String>,
) -> Result<Vec<Series>, MetricError> {
    match expr {
        Some(expr) => answer_over(source, span, expr).await,
        None => Ok(Vec::new()),
    }
}

/// Asks for a span, and takes no answer about another time: a counter of which nothing is there
/// would count as 0.
async fn answer_over(
    source: &impl MetricSource,
    span: Span,
    expr: String,
) -> Result<Vec<Series>, MetricError> {
    let series = source.range(span.query(expr)).await?;
    let asked = |at: &Timestamp| (span.first..=span.last).contains(at);
    if series.iter().flat_map(|series| &series.points).all(|(at, _)| asked(at)) {
        Ok(series)
    } else {
        Err(MetricError::OtherTime)
    }
}

/// What was answered of a tick that is not over; nothing where the answer is about another time.
/// Some servers move every time to a multiple of the step, as such a tick's end seldom is.
fn of_unfinished<T: Default>(answer: Result<T, MetricError>) -> Result<T, MetricError> {
    match answer {
        Err(MetricError::OtherTime) => Ok(T::default()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn due_ticks_follow_the_cursor_and_end_before_now() {
        let window = Duration::from_secs(15);
        let span = |cursor, until| Span::due(at(cursor), at(until), window);
        assert_eq!(span(30, 44), None);
        assert_eq!(span(30, 45), Some(Span { first: at(45), last: at(45), window }));
        assert_eq!(span(30, 100), Some(Span { first: at(45), last: at(90), window }));
        assert_eq!(span(90, 30), None, "a clock that jumped back brings no tick");
        assert_eq!(span(30, 100).unwrap().ends().count(), 4);
    }

    #[test]
    fn the_history_is_cut_into_as_many_windows_as_the_observation_has_ticks() {
        let span = Span::history(at(100_000), Duration::from_hours(6), 240);
        assert_eq!(span.window, Duration::from_secs(90));
        assert_eq!(span.ends().count(), 240);
        assert_eq!(span.last, at(100_000));
    }

    #[test]
    fn the_halves_of_a_span_have_its_windows_and_each_of_them_once() {
        let window = Duration::from_secs(15);
        for last in [15, 30, 45, 60, 75] {
            let whole = Span { first: at(15), last: at(last), window };
            let ends: Vec<Timestamp> = whole.ends().collect();
            let Some([early, late]) = whole.halves() else {
                assert_eq!(ends.len(), 1);
                continue;
            };
            assert_eq!(early.ends().chain(late.ends()).collect::<Vec<_>>(), ends);
            assert!(early.ends().count().abs_diff(late.ends().count()) <= 1);
        }
    }

    /// Answers with what it was asked a minute before.
    struct Cache;

    impl MetricSource for Cache {
        async fn range(&self, query: RangeQuery) -> Result<Vec<Series>, MetricError> {
            let points = vec![(query.start - Duration::from_mins(1), 1.0)];
            Ok(vec![Series { labels: BTreeMap::new(), points }])
        }
    }

    #[tokio::test]
    async fn an_answer_about_another_time_is_none() {
        let span = Span::instant(at(600));
        let answer = answer_over(&Cache, span, "failed".to_owned()).await;
        assert_eq!(answer, Err(MetricError::OtherTime));
        assert_eq!(of_unfinished(answer), Ok(Vec::new()), "of a tick that is not over");
    }
}
