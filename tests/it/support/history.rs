//! Metrics of fleets in times past, as a text for `promtool`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use rollbackd::simulate::traffic::{Sessions, Traffic, random};

/// Seconds from scrape to scrape.
pub(crate) const SCRAPE_SECONDS: u64 = 15;

/// Scrapes after the last session began, until a worker is empty and leaves.
const DRAIN_SCRAPES: u64 = 60;

/// One version of one fleet, from its first scrape on.
pub(crate) struct Run {
    pub(crate) fleet: String,
    pub(crate) version: &'static str,
    /// Whose sessions its workers take; empty where nobody tells them apart.
    pub(crate) tenant: &'static str,
    pub(crate) workers: u64,
    /// Scrapes since the beginning of the history.
    pub(crate) first: u64,
    /// The scrape after which it takes no more sessions, and drains.
    pub(crate) last: u64,
    /// Sessions a second, all its workers together.
    pub(crate) rate: f64,
    /// The share that fails.
    pub(crate) fails: f64,
}

/// What one worker showed: started, failed and live, by scrape.
type Shown = Vec<(u64, [u64; 3])>;

/// One family's value of what a worker showed.
type Value = fn(&[u64; 3]) -> u64;

/// Writes what Prometheus would have scraped since `begin` (Unix seconds), seeded.
pub(crate) fn write(out: impl Write, begin: u64, runs: &[Run]) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let mut workers: BTreeMap<String, Shown> = BTreeMap::new();
    for (seed, run) in (0..).zip(runs) {
        for worker in 0..run.workers {
            let Run { fleet, version, tenant, .. } = run;
            let of_tenant = match *tenant {
                "" => String::new(),
                tenant => format!(",tenant=\"{tenant}\""),
            };
            let labels = format!(
                "job=\"voice\",instance=\"{fleet}-{version}-{tenant}{worker}:9000\",\
                 fleet=\"{fleet}\",deployment_version=\"{version}\"{of_tenant}"
            );
            workers.insert(labels, shown(run, seed, worker));
        }
    }
    let families: [(&str, &str, Value); 5] = [
        ("up", "gauge", |_| 1),
        ("worker_info", "gauge", |_| 1),
        ("sessions_started_total", "counter", |counts| counts[0]),
        ("sessions_failed_total", "counter", |counts| counts[1]),
        ("sessions_live", "gauge", |counts| counts[2]),
    ];
    for (name, kind, value) in families {
        writeln!(out, "# TYPE {} {kind}", name.trim_end_matches("_total"))?;
        for (labels, shown) in &workers {
            for (scrape, counts) in shown {
                let at = begin + scrape * SCRAPE_SECONDS;
                writeln!(out, "{name}{{{labels}}} {} {at}", value(counts))?;
            }
        }
    }
    writeln!(out, "# EOF")?;
    out.flush()
}

fn shown(run: &Run, seed: u64, worker: u64) -> Shown {
    let rate = run.rate / run.workers as f64;
    let traffic = Traffic { rate, session_seconds: 60.0, at_set_up: 0.5 };
    let mut random = random(seed, worker, 0);
    let mut sessions = Sessions::fresh(&mut random, traffic, SCRAPE_SECONDS as f64);
    let mut shown = Vec::new();
    let (mut started, mut failed) = (0, 0);
    for scrape in run.first..=run.last + DRAIN_SCRAPES {
        let share = if scrape <= run.last { 1.0 } else { 0.0 };
        let tick = sessions.next(share, run.fails);
        started += tick.counts.started;
        failed += tick.counts.failed;
        shown.push((scrape, [started, failed, sessions.live()]));
    }
    shown
}
