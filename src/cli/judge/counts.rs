//! A CSV file of counts, read tick by tick.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use csv::{Reader, ReaderBuilder, StringRecord};

use crate::domain::counts::Counts;
use crate::domain::narrow::{Part, SlicedTick};
use crate::ledger::record::parse_rfc3339;

/// Why a file does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Malformed {
    /// File and line.
    pub(super) place: String,
    /// What is wrong there.
    pub(super) reason: String,
}

/// What happened in one tick; `None` where the file has no row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TickCounts {
    /// As the file writes it.
    pub(super) time: String,
    /// Seconds.
    pub(super) at: f64,
    pub(super) baseline: Option<Counts>,
    pub(super) candidate: Option<Counts>,
    /// The same by slice; nothing where no column tells them apart.
    pub(super) parts: SlicedTick,
}

/// Which columns' values are slices.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Labels {
    /// All but those that every file has.
    Further,
    /// These, which must be there.
    Named(Vec<String>),
    /// Those of these that are there.
    Known(Vec<String>),
    /// Just these; what is not there has no value.
    Same(Vec<String>),
}

impl Labels {
    /// The labels, by a file's columns.
    fn of(&self, head: &StringRecord) -> Result<Vec<String>, String> {
        let has = |name: &String| head.iter().any(|column| column == name);
        match self {
            Self::Further => {
                let further = head.iter().filter(|column| !COLUMNS.contains(column));
                Ok(further.map(ToOwned::to_owned).collect())
            }
            Self::Named(names) => match names.iter().find(|name| !has(name)) {
                Some(missing) => Err(format!("the column `{missing}` is missing")),
                None => Ok(names.clone()),
            },
            Self::Known(names) => Ok(names.iter().filter(|name| has(name)).cloned().collect()),
            Self::Same(names) => Ok(names.clone()),
        }
    }
}

/// What every file has, or may have.
const COLUMNS: [&str; 5] = ["time", "version", "started", "failed", "live"];

impl TickCounts {
    fn side(&mut self, is_candidate: bool) -> &mut Option<Counts> {
        if is_candidate { &mut self.candidate } else { &mut self.baseline }
    }
}

/// Where each column is.
struct Columns {
    count: usize,
    time: usize,
    version: usize,
    started: usize,
    failed: usize,
    live: Option<usize>,
    /// Of each label.
    slices: Vec<Option<usize>>,
}

/// Names listed at most where one is not found.
const VERSIONS_LISTED: usize = 20;

/// A file being read; holds one tick at a time.
pub(super) struct CountsFile<R> {
    path: String,
    labels: Vec<String>,
    /// The values of each slice that was read, by all of them together.
    values: HashMap<String, Arc<[String]>>,
    reader: Reader<R>,
    columns: Columns,
    versions: [String; 2],
    /// Whether a row of each was read.
    has_row: [bool; 2],
    /// Other versions that were read, no more than are listed and one.
    others: BTreeSet<String>,
    /// The last counters of each series, where the file has counters.
    counters: Option<HashMap<String, (u64, u64)>>,
    is_first_time: bool,
    open: Option<TickCounts>,
    record: StringRecord,
}

impl<R: Read> CountsFile<R> {
    /// Reads the head. `versions`: baseline and candidate; rows of others are left out.
    ///
    /// # Errors
    /// When a column is missing or the file cannot be read.
    pub(super) fn new(
        path: &Path,
        from: R,
        versions: [&String; 2],
        cumulative: bool,
        labels: &Labels,
    ) -> Result<Self, Malformed> {
        let path = path.display().to_string();
        let bad = |reason: String| Malformed { place: format!("{path}:1"), reason };
        let mut reader = ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(from);
        let head = reader.headers().map_err(|error| bad(error.to_string()))?.clone();
        let find = |name: &str| head.iter().position(|column| column == name);
        let need =
            |name: &str| find(name).ok_or_else(|| bad(format!("the column `{name}` is missing")));
        let labels = labels.of(&head).map_err(bad)?;
        let columns = Columns {
            slices: labels.iter().map(|label| find(label)).collect(),
            count: head.len(),
            time: need("time")?,
            version: need("version")?,
            started: need("started")?,
            failed: need("failed")?,
            live: find("live"),
        };
        Ok(Self {
            path,
            labels,
            values: HashMap::new(),
            reader,
            columns,
            versions: versions.map(Clone::clone),
            has_row: [false; 2],
            others: BTreeSet::new(),
            counters: cumulative.then(HashMap::new),
            is_first_time: true,
            open: None,
            record: StringRecord::new(),
        })
    }

    /// The labels that tell slices apart.
    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether a row of the baseline was read.
    pub(super) fn has_baseline(&self) -> bool {
        self.has_row[0]
    }

    /// A name that no row has is mistyped, and nothing may be concluded from it.
    ///
    /// # Errors
    /// When no row of the candidate was read, or none of a baseline that is `needed`.
    pub(super) fn names_found(&self, needed: bool) -> Result<(), Malformed> {
        let [baseline, candidate] = &self.versions;
        let reason = match self.has_row {
            _ if baseline == candidate => {
                format!("`{candidate}` cannot be both the baseline and the candidate")
            }
            [_, false] => format!("no row of the candidate `{candidate}`{}", self.there_are()),
            [false, true] if needed => {
                format!("no row of the baseline `{baseline}`{}", self.there_are())
            }
            [_, true] => return Ok(()),
        };
        Err(Malformed { place: self.path.clone(), reason })
    }

    /// The versions that were read.
    fn there_are(&self) -> String {
        let found = self.versions.iter().zip(self.has_row).filter(|(_, has_row)| *has_row);
        let all: BTreeSet<&String> = found.map(|(name, _)| name).chain(&self.others).collect();
        let names: Vec<&str> = all.iter().take(VERSIONS_LISTED).map(|name| name.as_str()).collect();
        let more = if all.len() > names.len() { " and more" } else { "" };
        match names.as_slice() {
            [] => "; it has no rows".to_owned(),
            names => format!("; its versions are {}{more}", names.join(", ")),
        }
    }

    /// The next tick, once the row after it is read or the file is over.
    ///
    /// # Errors
    /// The first row that does not read; ticks before it have been given.
    pub(super) fn next_tick(&mut self) -> Result<Option<TickCounts>, Malformed> {
        loop {
            let more = self.reader.read_record(&mut self.record);
            let line = self.record.position().map_or(0, csv::Position::line);
            let place =
                |reason: String| Malformed { place: format!("{}:{line}", self.path), reason };
            if !more.map_err(|error| place(error.to_string()))? {
                return Ok(self.open.take().filter(|_| !self.starts_counters()));
            }
            let read = self.read_row().map_err(place)?;
            if let Some(done) = self.take_row(&read) {
                return Ok(Some(done));
            }
        }
    }

    /// The first time of a file of counters is where they begin, not a tick.
    fn starts_counters(&self) -> bool {
        self.counters.is_some() && self.is_first_time
    }

    fn read_row(&self) -> Result<Row, String> {
        let (record, columns) = (&self.record, &self.columns);
        if record.len() != columns.count {
            return Err(format!("expected {} fields, found {}", columns.count, record.len()));
        }
        let field = |column: usize| record.get(column).unwrap_or_default();
        let whole = |name: &str, column: usize| {
            let text = field(column);
            text.parse::<u64>().map_err(|_| format!("`{name}`: `{text}` is no whole number"))
        };
        let time = field(columns.time);
        let at = seconds(time)
            .ok_or_else(|| format!("`time`: `{time}` is neither RFC 3339 nor seconds"))?;
        if self.open.as_ref().is_some_and(|open| at < open.at) {
            return Err(format!("`time`: `{time}` is before the row above"));
        }
        let live = match columns.live.map(field) {
            None | Some("") => 0.0,
            Some(text) => text
                .parse()
                .ok()
                .filter(|live: &f64| live.is_finite() && *live >= 0.0)
                .ok_or_else(|| format!("`live`: `{text}` is no number of at least 0"))?,
        };
        Ok(Row {
            at,
            side: self.versions.iter().position(|version| version == field(columns.version)),
            started: whole("started", columns.started)?,
            failed: whole("failed", columns.failed)?,
            live,
        })
    }

    fn take_row(&mut self, row: &Row) -> Option<TickCounts> {
        let mut done = None;
        if self.open.as_ref().is_none_or(|open| row.at > open.at) {
            let time = self.record.get(self.columns.time).unwrap_or_default().to_owned();
            let parts = SlicedTick::default();
            let tick = TickCounts { time, at: row.at, baseline: None, candidate: None, parts };
            let before = self.open.replace(tick);
            if before.is_some() {
                done = before.filter(|_| !self.starts_counters());
                self.is_first_time = false;
            }
        }
        let (started, failed) = self.count(row);
        let counts = Counts { started, failed, live: row.live };
        let part = self.part(counts);
        self.note_version(row.side);
        if let (Some(side), Some(open)) = (row.side, &mut self.open) {
            let sum = open.side(side == 1);
            *sum = Some(sum.unwrap_or_default() + counts);
            let parts = &mut open.parts;
            let parts = if side == 1 { &mut parts.candidate } else { &mut parts.baseline };
            parts.extend(part);
        }
        done
    }

    /// Keeps in mind which versions there are.
    fn note_version(&mut self, side: Option<usize>) {
        if let Some(side) = side {
            self.has_row[side] = true;
        } else if self.others.len() <= VERSIONS_LISTED {
            let version = self.record.get(self.columns.version).unwrap_or_default();
            if !self.others.contains(version) {
                self.others.insert(version.to_owned());
            }
        }
    }

    /// The counts with the values of the row's labels; none where there are no labels.
    fn part(&mut self, counts: Counts) -> Option<Part> {
        let slices = &self.columns.slices;
        if slices.is_empty() {
            return None;
        }
        let value = |column: &Option<usize>| {
            column.and_then(|column| self.record.get(column)).unwrap_or_default()
        };
        let all: Vec<&str> = slices.iter().map(value).collect();
        let joined = all.join("\u{1f}");
        let known = self.values.get(&joined).cloned();
        let values = known.unwrap_or_else(|| {
            let values: Arc<[String]> = all.into_iter().map(ToOwned::to_owned).collect();
            self.values.insert(joined, Arc::clone(&values));
            values
        });
        Some(Part { values, counts })
    }

    /// What a row adds: its counts, or by how much its counters have grown. A counter that fell
    /// began again, and one not seen before counts whole, but for those at the file's first time.
    fn count(&mut self, row: &Row) -> (u64, u64) {
        let Some(counters) = &mut self.counters else { return (row.started, row.failed) };
        let columns = &self.columns;
        let value = [Some(columns.time), Some(columns.started), Some(columns.failed), columns.live];
        let labels = self.record.iter().enumerate().filter(|(n, _)| !value.contains(&Some(*n)));
        let series: Vec<&str> = labels.map(|(_, label)| label).collect();
        let before = counters.insert(series.join("\u{1f}"), (row.started, row.failed));
        match before {
            _ if self.is_first_time => (0, 0),
            None => (row.started, row.failed),
            Some((started, failed)) => {
                let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
                (grown(row.started, started), grown(row.failed, failed))
            }
        }
    }
}

struct Row {
    at: f64,
    /// 0: baseline, 1: candidate; none: another version.
    side: Option<usize>,
    started: u64,
    failed: u64,
    live: f64,
}

fn seconds(text: &str) -> Option<f64> {
    let plain = text.parse().ok().filter(|seconds: &f64| seconds.is_finite());
    plain.or_else(|| Some(parse_rfc3339(text)?.as_seconds()))
}
