//! Reading answers: from series to counts per fleet and version.

use std::collections::{BTreeMap, HashMap};

use crate::config::FleetConfig;
use crate::domain::counts::Counts;
use crate::domain::fleet::FleetId;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::ports::metrics::Series;

use super::plan::{FleetAnswer, RuleAnswer};

/// How long after its last scrape a worker counts as one that can carry load. Longer than the
/// longest usual scrape interval of a minute.
pub(crate) const FRESH_SECONDS: f64 = 90.0;

/// One version of one fleet, as a look saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VersionSeen {
    /// Names of the workers alive: `worker_id`, else `instance`.
    pub(crate) workers: Vec<String>,
    /// Workers that may be cut off rather than gone.
    pub(crate) unreachable: u32,
    /// Workers alive that take no new sessions.
    pub(crate) draining: u32,
    /// Workers that were not scraped of late, and may have gone since.
    pub(crate) stale: u32,
    /// Sessions in progress.
    pub(crate) live: f64,
    /// Earliest time in the lineage at which it had a worker.
    pub(crate) first_seen: Option<Timestamp>,
}

impl VersionSeen {
    /// Workers alive that take new sessions. Not those that were not scraped of late: Prometheus
    /// shows what it saw last for minutes, and that is no evidence that a worker is still there.
    pub(crate) fn able(&self) -> u32 {
        let workers = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        workers.saturating_sub(self.stale).saturating_sub(self.draining)
    }
}

/// All versions of all fleets of one entry.
pub(crate) type Seen = BTreeMap<String, BTreeMap<Version, VersionSeen>>;

/// The fleet and version of a series; `None` where the version label is missing or malformed.
pub(crate) fn owner(config: &FleetConfig, series: &Series) -> Option<(String, Version)> {
    let label = |name: &String| series.labels.get(name).cloned().unwrap_or_default();
    let version = series.labels.get(&config.version_label)?.parse().ok()?;
    let by = config.by.iter().map(label).collect();
    Some((FleetId { name: config.name.clone(), by }.to_string(), version))
}

/// What was seen of each fleet at `at`. A value for any other time, as a cache on the way may give,
/// is no answer to what was asked.
pub(crate) fn fleets_at(config: &FleetConfig, answer: &FleetAnswer, at: Timestamp) -> Seen {
    see(config, answer, |series| {
        let point = series.points.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        series.points.get(point).map(|(_, value)| *value)
    })
}

fn see(
    config: &FleetConfig,
    answer: &FleetAnswer,
    value: impl Fn(&Series) -> Option<f64> + Copy,
) -> Seen {
    let mut seen = Seen::new();
    each((config, value), &answer.workers, &mut seen, |version, series, age| {
        version.stale += u32::from(age > FRESH_SECONDS);
        let name = ["worker_id", "instance"].iter().find_map(|label| series.labels.get(*label));
        version.workers.push(name.cloned().unwrap_or_default());
    });
    each((config, value), &answer.unreachable, &mut seen, |version, _, value| {
        version.unreachable = whole(value);
    });
    each((config, value), &answer.draining, &mut seen, |version, _, value| {
        version.draining = whole(value);
    });
    each((config, value), &answer.live, &mut seen, |version, _, value| {
        version.live = value.max(0.0);
    });
    for series in &answer.lineage {
        let (Some((fleet, version)), Some((first, _))) =
            (owner(config, series), series.points.first())
        else {
            continue;
        };
        if let Some(version) = seen.get_mut(&fleet).and_then(|fleet| fleet.get_mut(&version)) {
            let earlier = version.first_seen.map_or(*first, |known| known.min(*first));
            version.first_seen = Some(earlier);
        }
    }
    seen
}

fn each(
    (config, value): (&FleetConfig, impl Fn(&Series) -> Option<f64>),
    answer: &[Series],
    seen: &mut Seen,
    mut tell: impl FnMut(&mut VersionSeen, &Series, f64),
) {
    for series in answer {
        if let (Some(value), Some((fleet, version))) = (value(series), owner(config, series)) {
            tell(seen.entry(fleet).or_default().entry(version).or_default(), series, value);
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn whole(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(super) fn count(value: f64) -> u64 {
    value.round().clamp(0.0, 9e15) as u64
}

/// One rule's counts, by fleet, version and end of the window.
#[derive(Debug, Default)]
pub(crate) struct Table {
    cells: HashMap<(String, Version), BTreeMap<Timestamp, Cell>>,
}

/// What one window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    /// As evidence: a dead worker is one failure.
    pub(crate) counts: Counts,
    /// Sessions that workers took with them.
    pub(crate) dropped: u64,
}

impl Table {
    /// Reads one rule's answers.
    pub(crate) fn read(config: &FleetConfig, answer: &RuleAnswer) -> Self {
        let mut table = Self::default();
        let mut fill = |answer: &[Series], add: fn(&mut Cell, f64)| table.fill(config, answer, add);
        fill(&answer.started, |cell, value| cell.counts.started += count(value));
        fill(&answer.failed, |cell, value| cell.counts.failed += count(value));
        fill(&answer.died, |cell, value| cell.counts.failed += count(value));
        fill(&answer.live, |cell, value| cell.counts.live += value.max(0.0));
        fill(&answer.dropped, |cell, value| cell.dropped += count(value));
        table
    }

    fn fill(&mut self, config: &FleetConfig, answer: &[Series], add: fn(&mut Cell, f64)) {
        for series in answer {
            let Some(owner) = owner(config, series) else { continue };
            let row = self.cells.entry(owner).or_default();
            for (at, value) in &series.points {
                add(row.entry(*at).or_default(), *value);
            }
        }
    }

    /// The windows of one version; empty where it has no sample at all.
    pub(crate) fn row(&self, fleet: &str, version: &Version) -> Row<'_> {
        Row { cells: self.cells.get(&(fleet.to_owned(), version.clone())) }
    }
}

/// One value rule's values, by fleet and version.
#[derive(Debug, Default)]
pub(crate) struct Values {
    rows: HashMap<(String, Version), BTreeMap<Timestamp, f64>>,
}

impl Values {
    /// Reads one rule's answer. Of several series of a version the largest value counts.
    pub(crate) fn read(config: &FleetConfig, answer: &[Series]) -> Self {
        let mut values = Self::default();
        for series in answer {
            let Some(owner) = owner(config, series) else { continue };
            let row = values.rows.entry(owner).or_default();
            for (at, value) in &series.points {
                row.entry(*at).and_modify(|known| *known = known.max(*value)).or_insert(*value);
            }
        }
        values
    }

    /// The value as of `at`; `None` where there was none.
    pub(crate) fn at(&self, fleet: &str, version: &Version, at: Timestamp) -> Option<f64> {
        self.rows.get(&(fleet.to_owned(), version.clone()))?.get(&at).copied()
    }
}

/// One version's windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    cells: Option<&'a BTreeMap<Timestamp, Cell>>,
}

impl Row<'_> {
    /// The window that ends at `at`; `None` where there was no sample.
    pub(crate) fn at(self, at: Timestamp) -> Option<Cell> {
        self.cells?.get(&at).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse::parse;

    const CONFIG: &str = r#"
listen: 127.0.0.1:0
prometheus: { url: "http://127.0.0.1:9090" }
rule_files: [unused.yml]
ledger: sqlite:unused.db
signing_key_file: unused.key
fleets: [{ name: voice, version_label: version, workers: info, drain: { manifest: {} } }]
"#;

    pub(crate) fn config() -> FleetConfig {
        parse(CONFIG, Path::new("test.yml")).config.unwrap().fleets.remove(0)
    }

    #[test]
    fn an_answer_for_another_time_shows_no_worker() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let labels = BTreeMap::from([("version".to_owned(), "v1".to_owned())]);
        let workers = vec![Series { labels, points: vec![(at(60), 1.0)] }];
        let answer = FleetAnswer { workers, ..FleetAnswer::default() };
        assert_eq!(fleets_at(&config(), &answer, at(60)).len(), 1);
        assert_eq!(fleets_at(&config(), &answer, at(90)), Seen::new(), "a cache has kept it");
    }

    #[test]
    fn a_worker_that_was_scraped_minutes_ago_carries_no_load() {
        let at = Timestamp::from_millis(600_000);
        let worker = |name: &str, age| Series {
            labels: [("version", "v1"), ("worker_id", name)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            points: vec![(at, age)],
        };
        let workers = vec![worker("a", 3.0), worker("b", 60.0), worker("c", 91.0)];
        let answer = FleetAnswer { workers, ..FleetAnswer::default() };
        let seen = fleets_at(&config(), &answer, at).remove("voice").unwrap();
        let seen = &seen[&"v1".parse().unwrap()];
        assert_eq!((seen.workers.len(), seen.able()), (3, 2));
    }
}
