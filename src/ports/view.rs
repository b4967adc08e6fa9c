//! What the controller shows of itself: plain data, replaced as a whole after every event.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

/// Everything the read-only API serves.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether the ledger was replayed and the first evaluation was tried.
    pub ready: bool,
    /// By the fleet's name.
    pub fleets: BTreeMap<String, FleetView>,
    /// Whether many fleets regress at once.
    pub breaker: BreakerView,
    /// In the order they were recorded, newest last.
    pub rollbacks: Vec<RollbackView>,
    /// The rules in force.
    pub rules: Arc<[RuleView]>,
    /// The last record's `seq`.
    pub last_seq: u64,
    /// The last records, newest last: what event streams tell.
    pub recent: Vec<Arc<RecordView>>,
    /// The last rollouts, newest last, over or not.
    pub rollouts: Vec<Arc<PassageView>>,
}

/// What a record says in short.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RecordView {
    /// The record's number.
    pub seq: u64,
    /// RFC 3339.
    pub timestamp: String,
    /// Such as `deployment.started`.
    pub event: String,
    /// Who did it.
    pub actor: String,
    /// How it went.
    pub result: String,
    /// The fleet, where it is about one.
    pub fleet: Option<String>,
    /// The version, where it is about one.
    pub version: Option<String>,
    /// The version before, or the one taken back.
    pub from_version: Option<String>,
    /// The rollback, where it is a step of one.
    pub rollback_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// One rollout from its beginning to its end.
#[derive(Clone, Debug, Default)]
pub struct PassageView {
    /// The fleet.
    pub fleet: String,
    /// The version under observation.
    pub candidate: String,
    /// The version it was judged against.
    pub baseline: Option<String>,
    /// RFC 3339.
    pub started_at: String,
    /// The record of that.
    pub started_seq: u64,
    /// `observed`, `promoted`, `left` or `rolled_back`.
    pub outcome: String,
    /// RFC 3339.
    pub ended_at: Option<String>,
    /// The record of that.
    pub ended_seq: Option<u64>,
}

/// The breaker: whether so many fleets regress at once that none is rolled back by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct BreakerView {
    /// It holds.
    pub open: bool,
    /// Fleets that regressed of late.
    pub regressed: usize,
    /// All fleets watched.
    pub fleets: usize,
    /// Which fleets regressed of late.
    pub regressed_fleets: Vec<String>,
}

/// One fleet.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct FleetView {
    /// The fleet's name.
    pub fleet: String,
    /// `automatic`, `approve` or `observe`.
    pub mode: String,
    /// The newest promoted version that is not denied.
    pub last_good: Option<String>,
    /// Versions a rollback can go back to, the newest first; the first of them is `last_good`.
    pub good: Vec<String>,
    /// Whether a rollback would find workers of it to go back to, or get some.
    pub last_good_ready: bool,
    /// The same in words: whether it runs, and what the check of `start` says.
    pub last_good_state: String,
    /// Versions seen or remembered.
    pub versions: Vec<VersionView>,
    /// Candidates under observation.
    pub rollouts: Vec<RolloutView>,
    /// An operator has paused it: nothing is promoted or rolled back by itself.
    pub paused: bool,
    /// When the pause ends, RFC 3339; none: when an operator resumes.
    pub paused_until: Option<String>,
    /// The id of the rollback under way.
    pub rollback: Option<String>,
    /// Why nothing can be decided at the moment, if so.
    pub holding: Option<String>,
    /// RFC 3339.
    pub last_evaluation: Option<String>,
    /// `rollback` or `hold`: what is done with a candidate still suspect when observation ends.
    pub when_unsure: String,
    /// Versions that the manifest denies, seen or not.
    pub denied: Vec<String>,
    /// What became of each version that is known, last.
    pub past: Vec<PastView>,
    /// The candidate judged last, as it was when that was decided; none before the first one
    /// since the start.
    #[serde(skip)]
    pub judged: Option<Arc<RolloutView>>,
}

/// What became of a version.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct PastView {
    /// The version.
    pub version: String,
    /// `adopted`, `promoted`, `left` or `rolled_back`.
    pub outcome: String,
    /// RFC 3339.
    pub at: String,
    /// The record that says so.
    pub seq: u64,
}

/// One version of a fleet.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct VersionView {
    /// The version.
    pub version: String,
    /// Workers alive.
    pub workers: u32,
    /// Sessions in progress.
    pub live: f64,
    /// Whether the manifest denies it.
    pub denied: bool,
    /// It is denied and runs again, and why it is not drained.
    pub returned: Option<String>,
}

/// One candidate.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RolloutView {
    /// The version under observation.
    pub candidate: String,
    /// The version it is judged against.
    pub baseline: Option<String>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub observe_until: String,
    /// What was last decided instead of waiting, promoting or rolling back: why it is held, or
    /// what a person must do. None while it is watched.
    pub held: Option<String>,
    /// The rule that `held` rests on, `group/rule`; none where it is not one rule's word.
    pub held_rule: Option<String>,
    /// Up to when every rule has counted, RFC 3339; none before the first tick.
    pub counted_until: Option<String>,
    /// `escalate` or `hold` where it is held; else `wait`.
    pub decision: String,
    /// Each session rule's verdict.
    pub verdicts: Vec<VerdictView>,
    /// Each value rule's verdict.
    pub values: Vec<ValueView>,
    /// The slice that a regression sits in; people are told, and nothing is rolled back.
    pub narrow: Option<NarrowView>,
}

/// The slice that a regression sits in.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct NarrowView {
    /// One of the rule's `narrow_by`.
    pub label: String,
    /// Its value.
    pub value: String,
    /// Its part of the failures beyond what was expected.
    pub excess_share: f64,
    /// Its part of the candidate's sessions.
    pub traffic_share: f64,
    /// What the same rule says of the sessions without it.
    pub rest: VerdictView,
}

/// What one value rule says of one candidate.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ValueView {
    /// `group/rule`.
    pub rule: String,
    /// `healthy`, `pending`, `over`, `regressed` or `no_data`.
    pub verdict: String,
    /// As of the last tick; none where there was none.
    pub value: Option<f64>,
    /// People are told above this.
    pub escalate_above: Option<f64>,
    /// It is rolled back when above this for `for_seconds`.
    pub rollback_above: Option<f64>,
    /// The rule's `for`.
    pub for_seconds: f64,
    /// Since when it has been above `rollback_above` without a gap, RFC 3339.
    pub over_since: Option<String>,
}

/// What one session rule says of one candidate.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct VerdictView {
    /// `group/rule`.
    pub rule: String,
    /// `healthy`, `suspect`, `regressed`, `outage` or `no_data`.
    pub verdict: String,
    /// log10 of the evidence against the baseline's share; none without a tolerance.
    pub baseline_log10: Option<f64>,
    /// log10 of the evidence against the ceiling; none without one.
    pub ceiling_log10: Option<f64>,
    /// log10 of the evidence at which a test convicts.
    pub threshold_log10: f64,
    /// `concurrent`, `history` or `none`.
    pub control: String,
    /// The overdispersion taken into account.
    pub dispersion: f64,
    /// Sessions the candidate started under observation.
    pub started: u64,
    /// Sessions of the candidate that failed or dropped under observation.
    pub failed: u64,
    /// Sessions the control started in the same ticks.
    pub control_started: u64,
    /// Sessions of the control that failed in the same ticks.
    pub control_failed: u64,
    /// Sessions that dead workers of the candidate took with them.
    pub dropped: u64,
    /// How many times the baseline's share is allowed; none: no such test.
    pub tolerance: Option<f64>,
    /// The share that is allowed; none: no such test.
    pub ceiling: Option<f64>,
    /// Length of a tick.
    pub interval_seconds: f64,
    /// Ticks counted.
    pub ticks: u64,
    /// Successive last ticks without a sample of the candidate.
    pub silent_ticks: u32,
    /// The last ticks, to judge by how things go at present.
    pub recent: RecentView,
    /// How it came to this, tick by tick, for a plot.
    #[serde(skip)]
    pub course: Arc<Vec<PointView>>,
}

/// What one session rule had counted at the end of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PointView {
    /// The tick's end, Unix time.
    pub at_seconds: f64,
    /// Sessions the candidate had started until then.
    pub started: u64,
    /// Sessions of the candidate that had failed.
    pub failed: u64,
    /// Sessions the control had started.
    pub control_started: u64,
    /// Sessions of the control that had failed.
    pub control_failed: u64,
    /// log10 of the evidence against the baseline's share.
    pub baseline_log10: Option<f64>,
    /// log10 of the evidence against the ceiling.
    pub ceiling_log10: Option<f64>,
}

/// The last ticks with a hundred sessions of the candidate, or all of them.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct RecentView {
    /// How many.
    pub ticks: u64,
    /// Sessions the candidate started in them.
    pub started: u64,
    /// Sessions of the candidate that failed.
    pub failed: u64,
    /// Sessions the control started.
    pub control_started: u64,
    /// Sessions of the control that failed.
    pub control_failed: u64,
    /// log10 of what each further session of the candidate adds to the evidence against the
    /// baseline's share, if things go on like this.
    pub baseline_growth_log10: Option<f64>,
    /// The same for the evidence against the ceiling.
    pub ceiling_growth_log10: Option<f64>,
}

/// One rollback.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RollbackView {
    /// Unique.
    pub id: String,
    /// The fleet.
    pub fleet: String,
    /// The bad version.
    pub from_version: String,
    /// The good version.
    pub version: String,
    /// `chosen`, `gated`, `starting`, `capable`, `draining`, `recorded`, `confirming`, `clean`,
    /// `stuck` or `abandoned`.
    pub state: String,
    /// Why it began.
    pub reason: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// Workers of the bad version still alive.
    pub bad_workers: u32,
    /// Sessions still live on the bad version.
    pub bad_live: f64,
    /// Workers of the good version alive.
    pub good_workers: u32,
    /// Workers of the good version that can carry the load.
    pub workers_needed: u32,
    /// Since when it is in its state, RFC 3339.
    pub state_since: String,
    /// What a stuck one waits for: `capacity` or `emptiness`.
    pub awaiting: Option<String>,
    /// The steps it has taken, as far as they are kept.
    pub steps: Vec<StepView>,
    /// Sessions live on the bad version since it began, for a plot.
    #[serde(skip)]
    pub live: Arc<Vec<LiveView>>,
}

/// Sessions live at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveView {
    /// Unix time.
    pub at_seconds: f64,
    /// How many.
    pub live: f64,
}

/// One step of a rollback.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct StepView {
    /// The state it came to.
    pub state: String,
    /// RFC 3339.
    pub at: String,
    /// The record of that.
    pub seq: u64,
}

/// One rule in force.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RuleView {
    /// The group's name.
    pub group: String,
    /// The rule's name.
    pub name: String,
    /// The fleet entry it judges.
    pub fleet: String,
    /// What people are told beside the rule's own words, with placeholders.
    pub annotations: BTreeMap<String, String>,
    /// The file it stands in.
    pub file: String,
    /// `sessions` or `value`.
    pub kind: String,
    /// Which rule exactly: SHA-256, hex.
    pub digest: String,
    /// The queries it asks, by what they count.
    pub queries: BTreeMap<String, String>,
}
