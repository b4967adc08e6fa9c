//! Asking for a long time in parts that the server will answer.
//!
//! How much that is depends on the server: points a series, samples a query, bytes, seconds. Every
//! server says no in its own words. So a part that fails is halved as long as the server answers
//! the smallest question there is; if it does not answer that either, size is not the trouble.

use indicatif::ProgressBar;

use super::replay::{Entry, Replay, Replayed, Wanted};
use crate::domain::time::Timestamp;
use crate::evaluate::plan::{self, Answer, GroupAnswer, GroupPlan, Plan, RuleAnswer, Span};
use crate::ports::metrics::{MetricError, MetricSource, RangeQuery};

/// Looks asked for at once, to begin with. It bounds the memory that answers take.
const LOOKS_AT_ONCE: u64 = 1440;

/// How far one entry has come, for people.
pub(super) struct Progress(pub(super) ProgressBar);

impl Progress {
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Replays one entry as far as the server answers.
pub(super) async fn replay(
    source: &impl MetricSource,
    entry: &Entry,
    (from, to): (Timestamp, Timestamp),
    progress: &Progress,
) -> Replayed {
    let mut replay = Replay::new(entry);
    let interval = entry.interval;
    let mut next = from.align_down(interval);
    if next < from {
        next = next + interval;
    }
    let mut looks = LOOKS_AT_ONCE;
    while next <= to {
        let last = to.align_down(interval).min(next + interval * count(looks - 1));
        let lineage = replay.is_new().then(|| Span::history(next, entry.config.history, 240));
        let plan = part(entry, next, last, lineage);
        let taken = match plan::look(source, &entry.config, &entry.groups, &plan).await {
            Ok(answer) => take(source, &mut replay, &answer, &plan).await,
            Err(error) if looks > 1 && answers(source, next).await => {
                tracing::debug!(%error, looks, "asking for less at once");
                looks /= 2;
                continue;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            return replay.finish(Some(error));
        }
        progress.0.inc(entry.looks((next, last)));
        next = last + interval;
    }
    replay.finish(None)
}

fn count(looks: u64) -> u32 {
    u32::try_from(looks).unwrap_or(u32::MAX)
}

/// What is asked for the looks from `first` to `last`.
fn part(entry: &Entry, first: Timestamp, last: Timestamp, lineage: Option<Span>) -> Plan {
    let groups = entry.groups.iter().enumerate().map(|(group, rules)| {
        let due = Span::due(first - entry.interval, last, rules.interval);
        GroupPlan { group, due, unfinished: None, histories: Vec::new(), values: due, slices: None }
    });
    let seen = Span { first, last, window: entry.interval };
    Plan { entry: 0, at: last, seen, lineage, groups: groups.collect() }
}

/// Takes every look of a part, fetching the pasts of rollouts as they are found.
async fn take(
    source: &impl MetricSource,
    replay: &mut Replay<'_>,
    answer: &Answer,
    plan: &Plan,
) -> Result<(), MetricError> {
    let read = replay.read(answer, plan);
    for at in plan.seen.ends() {
        for (group, span) in replay.discover(&read, at) {
            let past = past(source, replay.entry(), group, span).await?;
            replay.read_past(group, span, &past);
        }
        replay.take_ticks(&read, at);
        let mut judged = replay.judge(at);
        loop {
            slices(source, replay, (at, plan.seen.last)).await?;
            // A conviction has its slices asked for; then it is known how broad it is.
            if replay.examine(&mut judged) {
                break;
            }
        }
        replay.decide(judged, at);
    }
    Ok(())
}

/// What convicted candidates need by slice at a time. That the server refuses this alone makes
/// what they fail wide, as it does for `run`.
async fn slices(
    source: &impl MetricSource,
    replay: &mut Replay<'_>,
    (at, last): (Timestamp, Timestamp),
) -> Result<(), MetricError> {
    for wanted in replay.slices_wanted(at, last) {
        let entry = replay.entry();
        let (past, ticks) = (
            by_slice(source, entry, &wanted, wanted.past).await,
            by_slice(source, entry, &wanted, wanted.ticks).await,
        );
        match past.and_then(|past| Ok((past, ticks?))) {
            Ok((past, ticks)) => replay.read_slices(&wanted, &past, &ticks),
            Err(error) if answers(source, at).await => replay.slices_refused(&wanted, &error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn by_slice(
    source: &impl MetricSource,
    entry: &Entry,
    wanted: &Wanted,
    span: Option<Span>,
) -> Result<RuleAnswer, MetricError> {
    let (group, place) = wanted.rule;
    let rule = entry.groups.get(group).and_then(|group| group.sessions.get(place));
    let mut whole = RuleAnswer::default();
    if let (Some(span), Some(rule)) = (span, rule) {
        let ask = async |span| plan::count_by_slice(source, &entry.config, rule, span).await;
        in_parts(source, span, ask, |answer| whole.extend(answer)).await?;
    }
    Ok(whole)
}

/// The past of a rollout.
async fn past(
    source: &impl MetricSource,
    entry: &Entry,
    group: usize,
    span: Span,
) -> Result<Vec<RuleAnswer>, MetricError> {
    let mut whole: Vec<RuleAnswer> = Vec::new();
    let Some(rules) = entry.groups.get(group) else { return Ok(whole) };
    let ask = async |span| {
        let histories = vec![span];
        let plan =
            GroupPlan { group, due: None, unfinished: None, histories, values: None, slices: None };
        plan::look_at_group(source, &entry.config, rules, &plan).await
    };
    let take = |GroupAnswer { histories, .. }| {
        for (number, answer) in histories.into_iter().flatten().enumerate() {
            match whole.get_mut(number) {
                Some(known) => known.extend(answer),
                None => whole.push(answer),
            }
        }
    };
    in_parts(source, span, ask, take).await?;
    Ok(whole)
}

/// Asks for a span in as many parts as it takes.
async fn in_parts<T>(
    source: &impl MetricSource,
    span: Span,
    ask: impl AsyncFn(Span) -> Result<T, MetricError>,
    mut take: impl FnMut(T),
) -> Result<(), MetricError> {
    let mut parts = vec![span];
    while let Some(span) = parts.pop() {
        match ask(span).await {
            Ok(answer) => take(answer),
            Err(error) => {
                let halves = span.halves();
                if halves.is_none() || !answers(source, span.last).await {
                    return Err(error);
                }
                parts.extend(halves.into_iter().flatten());
            }
        }
    }
    Ok(())
}

/// Whether the server answers the smallest question there is.
async fn answers(source: &impl MetricSource, at: Timestamp) -> bool {
    let at = at.align_down(std::time::Duration::from_secs(1));
    let step = std::time::Duration::from_secs(1);
    let smallest = RangeQuery { expr: "vector(1)".to_owned(), start: at, end: at, step };
    source.range(smallest).await.is_ok()
}
