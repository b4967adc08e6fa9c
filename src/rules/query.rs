//! Writing PromQL: from selectors to counts per fleet and version.
//!
//! The windows tile time: evaluated at times aligned to the window, every increment falls into
//! exactly one of them, so the sums are whole numbers of sessions.
//!
//! **Invariant:** a selector is taken as it is, with a range put right after it;
//! [`super::selector::check`] has seen to it that this gives PromQL.

use std::time::Duration;

use super::SessionRule;

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
        let labels = labels(by, version_label, &[]);
        let workers = labels_with_worker(by, version_label);
        let delta = duration(window);
        let dropped = rule.live.as_deref().map(|live| dropped(live, &rule.started, &delta));
        Self {
            started: format!("sum by ({labels}) ({})", increase(&rule.started, &delta)),
            failed: format!("sum by ({labels}) ({})", increase(&rule.failed, &delta)),
            live: rule
                .live
                .as_deref()
                .map(|live| format!("sum by ({labels}) (avg_over_time({live}[{delta}]))")),
            died: dropped
                .as_deref()
                .map(|dropped| format!("count by ({labels}) (sum by ({workers}) ({dropped}) > 0)")),
            dropped: dropped.map(|dropped| format!("sum by ({labels}) ({dropped})")),
        }
    }
}

/// The queries of one fleet entry, for the time of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetQueries {
    /// Workers alive.
    pub workers: String,
    /// Sessions in progress.
    pub live: Option<String>,
}

impl FleetQueries {
    /// Writes the queries for the selectors of a fleet entry.
    #[must_use]
    pub fn new(workers: &str, live: Option<&str>, by: &[String], version_label: &str) -> Self {
        let labels = labels(by, version_label, &[]);
        Self {
            workers: format!("count by ({labels}) ({workers})"),
            live: live.map(|live| format!("sum by ({labels}) ({live})")),
        }
    }
}

/// What the counter `x` grew by in the window: against its last value before, or, if it is new
/// or has restarted, against zero.
fn increase(x: &str, delta: &str) -> String {
    let lookback = duration(LOOKBACK);
    format!(
        "(last_over_time({x}[{delta}]) - last_over_time({x}[{lookback}] offset {delta})) >= 0 \
         or last_over_time({x}[{delta}])"
    )
}

/// The live sessions of workers that restarted (`started` fell) or vanished (no series any more,
/// and no target that is up). `and` and `unless` match on all labels but the name, which the
/// gauge and the counter of a worker share.
fn dropped(live: &str, started: &str, delta: &str) -> String {
    let lookback = duration(LOOKBACK);
    format!(
        "(last_over_time({live}[{lookback}] offset {delta}) \
         and (last_over_time({started}[{delta}]) \
         < last_over_time({started}[{lookback}] offset {delta}))) \
         or (last_over_time({live}[{delta}] offset {delta}) \
         unless last_over_time({live}[{delta}]) \
         unless on (job, instance) up)"
    )
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
        insta::assert_snapshot!(queries.started, @r#"sum by (region, v) ((last_over_time(started_total{job="voice"}[15s]) - last_over_time(started_total{job="voice"}[600s] offset 15s)) >= 0 or last_over_time(started_total{job="voice"}[15s]))"#);
        insta::assert_snapshot!(queries.failed, @r#"sum by (region, v) ((last_over_time(failed_total[15s]) - last_over_time(failed_total[600s] offset 15s)) >= 0 or last_over_time(failed_total[15s]))"#);
        assert_eq!((queries.live, queries.dropped, queries.died), (None, None, None));
    }

    #[test]
    fn a_live_gauge_adds_what_dead_workers_dropped() {
        let queries =
            SessionQueries::new(&rule(Some("live")), &[], "v", Duration::from_millis(1500));
        insta::assert_snapshot!(queries.live.unwrap(), @r#"sum by (v) (avg_over_time(live[1500ms]))"#);
        insta::assert_snapshot!(queries.dropped.unwrap(), @r#"sum by (v) ((last_over_time(live[600s] offset 1500ms) and (last_over_time(started_total{job="voice"}[1500ms]) < last_over_time(started_total{job="voice"}[600s] offset 1500ms))) or (last_over_time(live[1500ms] offset 1500ms) unless last_over_time(live[1500ms]) unless on (job, instance) up))"#);
        insta::assert_snapshot!(queries.died.unwrap(), @r#"count by (v) (sum by (v, job, instance) ((last_over_time(live[600s] offset 1500ms) and (last_over_time(started_total{job="voice"}[1500ms]) < last_over_time(started_total{job="voice"}[600s] offset 1500ms))) or (last_over_time(live[1500ms] offset 1500ms) unless last_over_time(live[1500ms]) unless on (job, instance) up)) > 0)"#);
    }

    #[test]
    fn every_query_parses_and_groups_each_label_once() {
        let by = ["job".to_owned(), "region".to_owned()];
        let window = Duration::from_secs(15);
        let session = SessionQueries::new(&rule(Some(r#"live{a="b"}"#)), &by, "v", window);
        let fleet = FleetQueries::new("w{a!=\"\"}", Some("live"), &by, "v");
        assert_eq!(fleet.workers, "count by (job, region, v) (w{a!=\"\"})");
        assert_eq!(fleet.live.as_deref(), Some("sum by (job, region, v) (live)"));
        assert!(session.died.as_ref().unwrap().contains("sum by (job, region, v, instance)"));
        let queries = [Some(session.started), Some(session.failed), session.live, session.dropped];
        let queries = queries.into_iter().chain([session.died, Some(fleet.workers), fleet.live]);
        for query in queries.flatten() {
            assert!(promql_parser::parser::parse(&query).is_ok(), "{query}");
        }
    }
}
