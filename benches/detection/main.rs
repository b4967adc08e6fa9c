//! The detection bench: `make bench-detection`.
//!
//! rollbackd's detector and the decision rules of others on the same simulated rollouts, seeded.
//! The figures go to docs/detection.md, between its two marks, to docs/detection.svg and, cell by
//! cell, to docs/detection.csv. `cargo bench --bench detection -- 10` does a tenth of the runs and
//! only prints; `-- 50 write` does half of them and writes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench, not a service"
)]

mod cells;
mod compare;
mod curves;
mod figures;
mod one_setting;
mod peers;
mod report;

use std::time::Instant;

use cells::{Healthy, Place};
use compare::Compared;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each healthy scenario, enough for "none" to mean less than one in a thousand.
const HEALTHY_RUNS: usize = 4000;
/// Runs of each scenario with a regression.
const BAD_RUNS: usize = 4000;
/// Runs behind each figure that stands alone.
const FIGURE_RUNS: usize = 4000;

fn main() {
    let percent: Option<usize> = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let runs = |full: usize| (full * percent.unwrap_or(100) / 100).max(20);
    let began = Instant::now();
    let settings = cells::settings();
    let progress = indicatif::ProgressBar::new(cells::places().len() as u64 * 5);
    let healthy: Vec<(Place, Healthy)> = cells::places()
        .into_iter()
        .map(|place| {
            let counted = cells::healthy(place, runs(HEALTHY_RUNS), &settings);
            progress.inc(1);
            (place, counted)
        })
        .collect();
    let mut compared: Vec<Compared> = Vec::new();
    for (place, healthy) in &healthy {
        for factor in cells::SIZES {
            let bad = cells::bad(*place, factor, runs(BAD_RUNS), &settings);
            compared.push(Compared::of(*place, factor, healthy, &bad));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let mut reached = figures::false_rollbacks(&healthy);
    reached.extend(figures::wald(runs(FIGURE_RUNS)));
    reached.extend(figures::total_failure(runs(FIGURE_RUNS)));
    let outage = figures::outage(runs(FIGURE_RUNS), &settings);
    reached.push(figures::update());
    let run = report::Run {
        settings: &settings,
        healthy: &healthy,
        compared: &compared,
        reached: &reached,
        outage: &outage,
        bad_runs: runs(BAD_RUNS),
        took: began.elapsed(),
    };
    let text = report::markdown(&run);
    println!("{text}");
    if percent.is_none() || std::env::args().any(|arg| arg == "write") {
        report::write(&run, &text).unwrap();
    }
}
