//! Writing PromQL: from selectors to counts per fleet and version.
//!
//! The windows tile time: evaluated at times aligned to the window, every increment falls into
//! exactly one of them, so the sums are whole numbers of sessions.
//!
//! **Invariant:** a selector is taken as it is, with a range put right after it;
//! [`super::selector::check`] has seen to it that this gives PromQL.

use std::time::Duration;

use super::{SessionRule, ValueRule};

/// How far back the last value before a window is looked for. Bridges gaps in the scrapes; a
/// series silent for longer counts as new.
pub const LOOKBACK: Duration = Duration::from_mins(10);

/// The queries of one session rule for one window that ends at the time of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionQueries {
    /// Sessions started in the window.
    pub started: String,
    /// Sessions failed in the window.
    pub failed: String,
    /// Sessions in progress, averaged over the window.
    pub live: Option<String>,
    /// Sessions in progress on workers that restarted or vanished in the window: calls dropped.
    pub dropped: Option<String>,
    /// Workers that took sessions with them: one failure each, as evidence.
    pub died: Option<String>,
}

impl SessionQueries {
    /// Writes the queries for fleets told apart by `by`, and versions by `version_label`.
    #[must_use]
    pub fn new(rule: &SessionRule, by: &[String], version_label: &str, window: Duration) -> Self {
        Self::told_apart(rule, by, version_label, window, &[])
    }

    /// The same counts, told apart by the rule's `narrow_by` too: summed over its labels they are
    /// those of [`Self::new`]. A worker that died is no slice's.
    #[must_use]
    pub fn by_slice(
        rule: &SessionRule,
        by: &[String],
        version_label: &str,
        window: Duration,
    ) -> Self {
        let narrow_by: Vec<&str> = rule.narrow_by.iter().map(String::as_str).collect();
        let all = Self::told_apart(rule, by, version_label, window, &narrow_by);
        Self { dropped: None, ..all }
    }

    fn told_apart(
        rule: &SessionRule,
        by: &[String],
        version_label: &str,
        window: Duration,
        narrow_by: &[&str],
    ) -> Self {
        let whole = labels(by, version_label, &[]);
        let labels = labels(by, version_label, narrow_by);
        let workers = labels_with_worker(by, version_label);
        let delta = duration(window);
        let dropped =
            rule.live.as_deref().map(|live| dropped(live, &rule.started, version_label, &delta));
        Self {
            started: format!("sum by ({labels}) ({})", increase(&rule.started, rule, &delta)),
            failed: format!("sum by ({labels}) ({})", increase(&rule.failed, rule, &delta)),
            live: rule
                .live
                .as_deref()
                .map(|live| format!("sum by ({labels}) (avg_over_time({live}[{delta}]))")),
            died: dropped
                .as_deref()
                .map(|dropped| format!("count by ({whole}) (sum by ({workers}) ({dropped}) > 0)")),
            dropped: dropped.map(|dropped| format!("sum by ({whole}) ({dropped})")),
        }
    }
}

/// The queries of one fleet entry, for the time of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetQueries {
    /// Workers alive, one series each, with the labels `worker_id` and `instance` where they have
    /// them: how many seconds ago each was scraped.
    pub workers: String,
    /// Workers that were alive within [`LOOKBACK`], are not seen now, and whose target does not
    /// answer: perhaps gone, perhaps cut off with sessions on them.
    pub unreachable: String,
    /// Workers alive that take no new sessions.
    pub draining: Option<String>,
    /// Sessions in progress.
    pub live: Option<String>,
}

impl FleetQueries {
    /// Writes the queries for the selectors of a fleet entry.
    #[must_use]
    pub fn new(
        workers: &str,
        draining: Option<&str>,
        live: Option<&str>,
        by: &[String],
        version_label: &str,
    ) -> Self {
        let fleet = labels(by, version_label, &[]);
        let worker = labels(by, version_label, &["worker_id", "instance"]);
        let lookback = duration(LOOKBACK);
        Self {
            workers: format!("min by ({worker}) (time() - timestamp({workers}))"),
            unreachable: format!(
                "count by ({fleet}) ((last_over_time({workers}[{lookback}]) unless {workers}) \
                 and on (job, instance) (up == 0))"
            ),
            draining: draining.map(|draining| format!("sum by ({fleet}) ({draining})")),
            live: live.map(|live| format!("sum by ({fleet}) ({live})")),
        }
    }
}

/// The query of one value rule, for the time of evaluation: its own, where a worker of the version
/// was scraped in the last two ticks. Prometheus shows a value for minutes after its last sample,
/// and what was not seen must not count as time above a limit.
#[must_use]
pub fn value(
    rule: &ValueRule,
    workers: &str,
    by: &[String],
    version_label: &str,
    interval: Duration,
) -> String {
    let (labels, fresh) = (labels(by, version_label, &[]), duration(interval * 2));
    // On lines of its own: it may end in a comment.
    format!("(\n{}\n) and on ({labels}) present_over_time({workers}[{fresh}])", rule.value)
}

/// What the counter `x` grew by in the window. A series that fell began again: what it reached
/// before it fell counts too. One without a past is new and counts whole, unless nothing has a
/// past: then it is Prometheus that was away or lost its disk, and it would count twice.
fn increase(x: &str, rule: &SessionRule, delta: &str) -> String {
    let lookback = duration(LOOKBACK);
    let started = &rule.started;
    let past = format!("on () group(last_over_time({started}[{lookback}] offset {delta}))");
    let last = format!("last_over_time({x}[{delta}])");
    let before = format!("last_over_time({x}[{lookback}] offset {delta})");
    let peak = format!("max_over_time({x}[{delta}])");
    format!(
        "({last} - {before}) >= 0 or {last} + clamp_min({peak} - {before}, 0) \
         or ({last} and {past})"
    )
}

/// The live series of workers that died in the window, each in one window only.
///
/// - restarted: a `started` counter of the target and version fell. Not if the target was gone
///   when the window began: then its sessions were counted when it went.
/// - replaced: another version appeared on the target, which no longer shows this one.
/// - vanished: the target was scraped of late, and is a target no more. That is seen by `up`
///   alone, since scrapes may fail for any time before discovery lets go of a dead worker; and
///   `up` that merely grew old, because Prometheus itself was away, accuses nobody.
fn dropped(live: &str, started: &str, version: &str, delta: &str) -> String {
    let lookback = duration(LOOKBACK);
    let target = "on (job, instance)";
    let of_version = format!("on (job, instance, {version})");
    let was_target = format!("and {target} (up offset {delta})");
    let restarted = format!(
        "(last_over_time({live}[{lookback}] offset {delta}) \
         and {of_version} (last_over_time({started}[{delta}]) \
         < last_over_time({started}[{lookback}] offset {delta})) {was_target})"
    );
    let replaced = format!(
        "((last_over_time({live}[{lookback}]) unless {live}) \
         and {target} (last_over_time({started}[{delta}]) \
         unless {of_version} last_over_time({started}[{lookback}] offset {delta})) \
         and {target} (up == 1) {was_target})"
    );
    let vanished = format!(
        "(last_over_time({live}[{lookback}]) \
         and {target} (last_over_time(up[{delta}]) \
         or (last_over_time(up[{delta}] offset {delta}) and up offset {delta})) \
         unless {target} up and on () group(last_over_time(up[120s])))"
    );
    format!("({restarted} or {replaced} or {vanished})")
}

fn labels(by: &[String], version_label: &str, more: &[&str]) -> String {
    let mut all: Vec<&str> = by.iter().map(String::as_str).collect();
    all.push(version_label);
    all.extend(more);
    // A fleet may itself be told apart by `job`.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|label| seen.insert(*label));
    all.join(", ")
}

fn labels_with_worker(by: &[String], version_label: &str) -> String {
    labels(by, version_label, &["job", "instance"])
}

/// A duration as PromQL writes it: whole seconds, else milliseconds.
fn duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(live: Option<&str>) -> SessionRule {
        SessionRule {
            name: "R".into(),
            started: r#"started_total{job="voice"}"#.into(),
            failed: "failed_total".into(),
            live: live.map(Into::into),
            ceiling: None,
            tolerance: None,
            dispersion: None,
            narrow_by: vec![],
            annotations: std::collections::BTreeMap::default(),
            digest: String::new(),
        }
    }

    #[test]
    fn the_windows_tile_and_the_range_stands_right_after_the_selector() {
        let by = ["region".to_owned()];
        let queries = SessionQueries::new(&rule(None), &by, "v", Duration::from_secs(15));
        let x = r#"started_total{job="voice"}"#;
        let (last, before) =
            (format!("last_over_time({x}[15s])"), format!("last_over_time({x}[600s] offset 15s)"));
        assert_eq!(
            queries.started,
            format!(
                "sum by (region, v) (({last} - {before}) >= 0 \
                 or {last} + clamp_min(max_over_time({x}[15s]) - {before}, 0) \
                 or ({last} and on () group({before})))"
            )
        );
        // A counter of failures may have no past before the first of them.
        let known = format!("group({before})");
        let failed = queries.started.replace(x, "failed_total");
        let known_of_failed = known.replace(x, "failed_total");
        assert_eq!(queries.failed, failed.replace(&known_of_failed, &known));
        assert_eq!((queries.live, queries.dropped, queries.died), (None, None, None));
    }

    #[test]
    fn a_live_gauge_adds_what_dead_workers_dropped() {
        let queries =
            SessionQueries::new(&rule(Some("live")), &[], "v", Duration::from_millis(1500));
        assert_eq!(queries.live.unwrap(), "sum by (v) (avg_over_time(live[1500ms]))");
        let dropped = queries.dropped.unwrap();
        let series = dropped.strip_prefix("sum by (v) (").unwrap().strip_suffix(")").unwrap();
        assert!(series.contains("on (job, instance, v) (last_over_time(started_total"));
        let died = format!("count by (v) (sum by (v, job, instance) ({series}) > 0)");
        assert_eq!(queries.died.unwrap(), died);
    }

    #[test]
    fn a_value_counts_while_workers_of_its_version_are_scraped() {
        let rule = ValueRule {
            name: "R".into(),
            value: "max by (v) (x) # seconds".into(),
            escalate_above: Some(1.0),
            rollback_above: None,
            hold_for: Duration::from_secs(15),
            annotations: std::collections::BTreeMap::default(),
            digest: String::new(),
        };
        let query = value(&rule, "info", &["region".into()], "v", Duration::from_secs(15));
        let fresh = "and on (region, v) present_over_time(info[30s])";
        assert_eq!(query, format!("(\nmax by (v) (x) # seconds\n) {fresh}"));
        assert!(promql_parser::parser::parse(&query).is_ok(), "{query}");
    }

    #[test]
    fn every_query_parses_and_groups_each_label_once() {
        let by = ["job".to_owned(), "region".to_owned()];
        let window = Duration::from_secs(15);
        let session = SessionQueries::new(&rule(Some(r#"live{a="b"}"#)), &by, "v", window);
        let fleet = FleetQueries::new("w{a!=\"\"}", Some("d"), Some("live"), &by, "v");
        assert_eq!(
            fleet.workers,
            "min by (job, region, v, worker_id, instance) (time() - timestamp(w{a!=\"\"}))"
        );
        assert_eq!(fleet.live.as_deref(), Some("sum by (job, region, v) (live)"));
        assert!(session.died.as_ref().unwrap().contains("sum by (job, region, v, instance)"));
        let queries = [Some(session.started), Some(session.failed), session.live, session.dropped];
        let queries = queries.into_iter().chain([session.died, Some(fleet.workers), fleet.live]);
        let queries = queries.chain([Some(fleet.unreachable), fleet.draining]);
        for query in queries.flatten() {
            assert!(promql_parser::parser::parse(&query).is_ok(), "{query}");
        }
    }
}
