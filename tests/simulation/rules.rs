//! What a seed stands for, and the config all runs share.

use std::path::Path;
use std::time::Duration;

use rollbackd::config::FleetConfig;
use rollbackd::rules::{self, RuleSet};

use crate::random::Random;

/// What a seed stands for.
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// v2 fails most of its sessions.
    pub(crate) bad: bool,
    /// v1 leaves when v2 comes.
    pub(crate) cutover: bool,
    pub(crate) good_workers: u64,
    pub(crate) bad_workers: u64,
    pub(crate) faults_from: i64,
    pub(crate) faults_until: i64,
    /// 0: no faults but crashes.
    pub(crate) intensity: u64,
    /// Deaths of the process; one is always between two particular points.
    pub(crate) crashes: u64,
    /// Workers of v2 that never do what they are asked.
    pub(crate) deaf: bool,
    pub(crate) heartbeats: bool,
}

impl Scenario {
    pub(crate) fn of(random: &mut Random) -> Self {
        let faults_from = i64::try_from(20 + random.below(60)).unwrap();
        Self {
            bad: random.in_1000(700),
            cutover: random.in_1000(500),
            good_workers: 2 + random.below(3),
            bad_workers: 2 + random.below(3),
            faults_from,
            faults_until: faults_from + i64::try_from(60 + random.below(150)).unwrap(),
            intensity: random.below(4),
            crashes: 1 + random.below(5),
            deaf: random.in_1000(50),
            heartbeats: random.in_1000(500),
        }
    }
}

const CONFIG: &str = r#"
listen: 127.0.0.1:0
prometheus: { url: "http://127.0.0.1:9090" }
rule_files: [unused.yml]
ledger: sqlite:unused.db
signing_key_file: unused.key
fleets:
  - name: voice
    version_label: version
    observe_for: 2m
    history: 2m
    false_rollback_rate: 0.0000001
    workers: info
    draining: draining
    live: live
    start: { command: [start, "{{version}}", "{{count}}"] }
    start_timeout: 1m
    drain: { manifest: {} }
    drain_deadline: 2m
"#;

const RULES: &str = "
groups:
  - name: sessions
    fleet: voice
    interval: 10s
    regressions:
      - name: SessionsFailing
        started: started
        failed: failed
        live: live
        ceiling: 5%
        tolerance: 1.5x
";

pub(crate) fn config() -> Vec<FleetConfig> {
    let parsed = rollbackd::config::parse::parse(CONFIG, Path::new("simulated.yml"));
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems)).fleets
}

pub(crate) fn rules() -> RuleSet {
    let fleets = config().into_iter().map(|f| (f.name, Duration::from_mins(2))).collect();
    let (groups, problems) = rules::parse::parse(RULES, "rules.yml", Some(&fleets));
    assert!(problems.is_empty(), "{problems:?}");
    RuleSet { groups }
}
