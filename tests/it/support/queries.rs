//! The questions a session rule asks.

/// What a session rule asks of one tick.
pub(crate) struct SessionQueries {
    pub(crate) started: String,
    pub(crate) failed: String,
    /// Sessions live on workers that died.
    pub(crate) dropped: String,
    /// Workers that died with sessions on them.
    pub(crate) died: String,
}

/// `window` is the tick in PromQL's notation.
pub(crate) fn session_queries(
    started: &str,
    failed: &str,
    live: &str,
    by: &[&str],
    version: &str,
    window: &str,
) -> SessionQueries {
    let labels = [by, &[version]].concat().join(", ");
    let dropped = dropped(started, live, version, window);
    SessionQueries {
        started: counted(started, &labels, window),
        failed: counted(failed, &labels, window),
        died: format!("count by ({labels}) (sum by ({labels}, job, instance) ({dropped}) > 0)"),
        dropped: format!("sum by ({labels}) ({dropped})"),
    }
}

/// Windows of length `w` tile time: nothing is counted twice. A series that fell began again: what
/// it reached before it fell counts too. One without a past counts whole.
fn counted(x: &str, labels: &str, w: &str) -> String {
    let last = format!("last_over_time({x}[{w}])");
    let before = format!("last_over_time({x}[10m] offset {w})");
    let peak = format!("max_over_time({x}[{w}])");
    format!(
        "sum by ({labels}) (({last} - {before}) >= 0 \
         or {last} + clamp_min({peak} - {before}, 0) or {last})"
    )
}

/// The live series of workers that died in the tick, each in one tick only.
///
/// - restarted: a `started` counter of the target and version fell. Not if the target was gone when
///   the tick began: then its calls were counted when it went.
/// - replaced: another version appeared on the target, which no longer shows this one.
/// - vanished: the target was scraped of late, and is a target no more. That is seen by `up` alone,
///   since scrapes may fail for any time before discovery lets go of a dead worker; and `up` that
///   merely grew old (after 5 minutes), because Prometheus itself was away, accuses nobody.
fn dropped(s: &str, l: &str, version: &str, w: &str) -> String {
    let target = "on (job, instance)";
    let of_version = format!("on (job, instance, {version})");
    let was_target = format!("and {target} (up offset {w})");
    let restarted = format!(
        "(last_over_time({l}[10m] offset {w}) \
         and {of_version} (last_over_time({s}[{w}]) < last_over_time({s}[10m] offset {w})) \
         {was_target})"
    );
    let replaced = format!(
        "((last_over_time({l}[10m]) unless {l}) \
         and {target} (last_over_time({s}[{w}]) unless {of_version} last_over_time({s}[10m] offset {w})) \
         and {target} (up == 1) {was_target})"
    );
    let vanished = format!(
        "(last_over_time({l}[10m]) \
         and {target} (last_over_time(up[{w}]) or (last_over_time(up[{w}] offset {w}) and up offset {w})) \
         unless {target} up \
         and on () group(last_over_time(up[2m])))"
    );
    format!("({restarted} or {replaced} or {vanished})")
}
