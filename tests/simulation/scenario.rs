//! What a seed stands for, and the config and rules it runs with.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rollbackd::config::{FleetConfig, Limits, Mode, OnStartTimeout, WhenUnsure};
use rollbackd::rules::{self, RuleSet};

use crate::random::Random;

/// The regions, of which a scenario takes the first so many. Each is a fleet.
pub(crate) const REGIONS: [&str; 6] = ["ap", "eu", "us", "af", "me", "sa"];

/// The versions there are, in the order in which they are deployed.
pub(crate) const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

/// The agents that sessions belong to. A narrow regression is the second one's.
pub(crate) const AGENTS: [&str; 2] = ["sales", "billing"];

/// What kind of runs: the same world, with other things going wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything.
    Storm,
    /// Healthy versions, whole workers, and data that is missing, stale or broken.
    Dark,
}

/// What a version shows to the value rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Below every limit.
    Fine,
    /// Above `rollback_above` again and again, and never for as long as the rule says.
    Spikes,
    /// Above `escalate_above`.
    Poor,
    /// Above `rollback_above`.
    Broken,
}

impl Quality {
    /// The value at a second.
    pub(crate) fn at(self, second: i64) -> f64 {
        match self {
            Self::Spikes if second % 90 < 6 => 9.0,
            Self::Fine | Self::Spikes => 1.0,
            Self::Poor => 3.0,
            Self::Broken => 9.0,
        }
    }
}

/// What a seed stands for.
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// How many regions.
    pub(crate) fleets: usize,
    /// Whether v2 and v3 fail most of their sessions.
    pub(crate) bad: [bool; 2],
    /// Whether v2, where it is bad, fails the sessions of one agent only.
    pub(crate) narrow: bool,
    /// What v2 shows to the value rule.
    pub(crate) quality: Quality,
    /// The second at which v3 comes, if it does.
    pub(crate) third_at: Option<i64>,
    /// The version before leaves when a new one comes.
    pub(crate) cutover: bool,
    pub(crate) good_workers: u64,
    pub(crate) bad_workers: u64,
    pub(crate) faults_from: i64,
    pub(crate) faults_until: i64,
    /// 0: no faults but crashes.
    pub(crate) intensity: u64,
    /// Deaths of the process, at any of the points it passes.
    pub(crate) crashes: u64,
    /// Points it passes alive at most before it dies.
    pub(crate) points: u64,
    /// Looks are such points too, and most of them.
    pub(crate) dies_looking: bool,
    /// The longest it stays away, in seconds.
    pub(crate) away: u64,
    /// Workers of v2 that never do what they are asked.
    pub(crate) deaf: bool,
    /// Workers come back although they are denied: they read no manifest at their start.
    pub(crate) ungated: bool,
    pub(crate) heartbeats: bool,
    /// Operators' acts, of a thousand a second and fleet.
    pub(crate) acts: u64,
    pub(crate) mode: Mode,
    pub(crate) proceeds: bool,
    pub(crate) holds_when_unsure: bool,
    pub(crate) rollbacks_max: u32,
}

impl Scenario {
    pub(crate) fn of(kind: Kind, random: &mut Random) -> Self {
        let storm = kind == Kind::Storm;
        let faults_from = i64::try_from(20 + random.below(60)).unwrap();
        let third_at = random.in_1000(250) && storm;
        Self {
            kind,
            fleets: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 6][index(random, 20)],
            bad: [random.in_1000(700) && storm, random.in_1000(500)],
            narrow: random.in_1000(150),
            quality: quality(storm, random),
            third_at: third_at.then(|| 140 + i64::try_from(random.below(80)).unwrap()),
            cutover: random.in_1000(500),
            good_workers: 2 + random.below(3),
            bad_workers: 2 + random.below(3),
            faults_from,
            faults_until: faults_from + i64::try_from(60 + random.below(150)).unwrap(),
            intensity: if storm { random.below(4) } else { 1 + random.below(4) },
            crashes: if storm || random.in_1000(200) { 1 + random.below(5) } else { 0 },
            points: [4, 12, 30, 200][index(random, 4)],
            dies_looking: random.in_1000(250),
            away: [1, 15, 15, 240][index(random, 4)],
            deaf: random.in_1000(50) && storm,
            ungated: random.in_1000(300),
            heartbeats: random.in_1000(500),
            acts: if random.in_1000(300) && storm { 15 } else { 0 },
            mode: if storm { mode(random) } else { Mode::Automatic },
            proceeds: random.in_1000(150),
            holds_when_unsure: random.in_1000(300),
            rollbacks_max: 1 + u32::try_from(random.below(3)).unwrap(),
        }
    }

    /// The versions that fail most of their sessions.
    pub(crate) fn is_bad(&self, version: &str) -> bool {
        self.bad[0] && version == "v2" || self.bad[1] && version == "v3"
    }

    /// The versions of which one agent's sessions fail.
    pub(crate) fn is_narrow(&self, version: &str) -> bool {
        self.narrow && self.bad[0] && version == "v2"
    }

    /// What a version shows to the value rule.
    pub(crate) fn quality(&self, version: &str) -> Quality {
        if version == "v2" { self.quality } else { Quality::Fine }
    }

    /// The config entry of this scenario.
    pub(crate) fn config(&self) -> FleetConfig {
        let mut config = fixed().0.clone();
        config.mode = self.mode;
        config.limits = Limits { rollbacks: self.rollbacks_max, per: Duration::from_hours(24) };
        if self.proceeds {
            config.on_start_timeout = OnStartTimeout::Proceed;
        }
        // Ten to one against a version, when its time is over, is no proof that it is bad.
        if self.holds_when_unsure || self.kind == Kind::Dark {
            config.when_unsure = WhenUnsure::Hold;
        }
        config
    }
}

fn index(random: &mut Random, end: u64) -> usize {
    usize::try_from(random.below(end)).unwrap()
}

fn quality(storm: bool, random: &mut Random) -> Quality {
    match random.below(20) {
        0..3 => Quality::Spikes,
        3 if storm => Quality::Poor,
        4 if storm => Quality::Broken,
        _ => Quality::Fine,
    }
}

fn mode(random: &mut Random) -> Mode {
    match random.below(10) {
        0 => Mode::Approve,
        1 => Mode::Observe,
        _ => Mode::Automatic,
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
    by: [region]
    version_label: version
    observe_for: 2m
    history: 2m
    false_rollback_rate: 0.0000001
    workers: info
    draining: draining
    live: live
    start: { command: [start, "{{version}}", "{{count}}"] }
    start_timeout: 1m
    drain: { manifest: {}, command: [drain, "{{worker}}"] }
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
        narrow_by: [agent]
      - name: Slow
        value: max by (region, version) (latency)
        escalate_above: 2
        rollback_above: 6
        for: 40s
";

/// The config entry and the rules, read once.
pub(crate) fn fixed() -> &'static (FleetConfig, RuleSet) {
    static FIXED: OnceLock<(FleetConfig, RuleSet)> = OnceLock::new();
    FIXED.get_or_init(|| {
        let parsed = rollbackd::config::parse::parse(CONFIG, Path::new("simulated.yml"));
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems));
        let fleets = config.fleets.iter().map(|f| (f.name.clone(), f.traits())).collect();
        let (groups, problems) = rules::parse::parse(RULES, "rules.yml", Some(&fleets));
        assert!(problems.is_empty(), "{problems:?}");
        (config.fleets[0].clone(), RuleSet { groups })
    })
}
