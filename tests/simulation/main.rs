//! The whole controller in a simulated world that lies, stalls and breaks.
//!
//! ```text
//! seed ─► worlds (workers, sessions, scrapes, clock) ◄─► ports that fail ◄─► Controller::run
//!              └──────── rules, checked at every record, effect and second ────────┘
//! ```
//!
//! `ROLLBACKD_RUNS` says how many seeds, `ROLLBACKD_SEED` replays a single one with a trace; a
//! failure prints the command that does.
//!
//! **Invariant:** nothing in a run depends on anything but its seed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, and its trace"
)]

mod book;
mod end;
mod memory;
mod people;
mod ports;
mod random;
mod rules;
mod rules_of_rollbacks;
mod run;
mod scenario;
mod sim;
mod weather;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use end::Outcome;
use run::run;
use scenario::Kind;

/// As in the binary: a run allocates more than anything else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Without optimisation, some seconds.
const RUNS: u64 = 200;

/// Broken runs after which a thread gives up.
const BROKEN_MAX: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs every seed, or the one asked for; fails if one of them broke a rule.
fn run_all(kind: Kind, test: &str) -> (u64, Outcome) {
    if let Some(seed) = number("ROLLBACKD_SEED") {
        let outcome = run(kind, seed, true);
        assert!(outcome.broken.is_empty(), "seed {seed}: {:#?}", outcome.broken);
        return (1, outcome);
    }
    let runs = number("ROLLBACKD_RUNS").unwrap_or(RUNS);
    let first = number("ROLLBACKD_FIRST_SEED").unwrap_or(0);
    let (began, next) = (Instant::now(), AtomicU64::new(first));
    let worker = || {
        let mut sum = Outcome::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs || sum.broken.len() > BROKEN_MAX {
                return sum;
            }
            sum.add(run(kind, seed, false));
        }
    };
    let mut sum = Outcome::default();
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            sum.add(thread.join().unwrap());
        }
    });
    // Fewer than were asked for, where too many broke a rule.
    let runs = sum.runs;
    println!("{runs} runs in {:.0} s: {}", began.elapsed().as_secs_f64(), sum.summary());
    for (seed, broken) in &sum.broken {
        println!("{broken}");
        println!(
            "  ROLLBACKD_SEED={seed} cargo test --release --test simulation {test} -- --nocapture"
        );
    }
    (runs, sum)
}

/// A row of RELIABILITY.md, where it was asked for.
fn row(figure: &str, goal: &str, measured: &str) {
    if number("ROLLBACKD_RUNS").is_some() {
        println!("| {figure} | {goal} | {measured} |");
    }
}

#[test]
fn no_fault_breaks_a_promise() {
    let (runs, sum) = run_all(Kind::Storm, "no_fault");
    let measured = format!(
        "{runs}, {} broken; in them {} crashes, {} other faults, {} operators' acts, {} rollbacks",
        sum.broken.len(),
        sum.crashes,
        sum.faults,
        sum.acts,
        sum.rollbacks,
    );
    row("simulated runs, with faults, no invariant broken", "100,000", &measured);
    assert!(sum.broken.is_empty(), "{} runs broke a rule", sum.broken.len());
    // A simulation in which nothing happens proves nothing.
    assert!(runs < 100 || sum.crashes > runs && sum.clean * 3 > runs && sum.healthy > 0);
}

#[test]
fn no_missing_data_rolls_anything_back() {
    let (runs, sum) = run_all(Kind::Dark, "no_missing");
    let measured = format!("{} of {runs}; in them {} faults", sum.rollbacks, sum.faults);
    row("rollbacks decided by missing, stale or broken data", "0 of 10,000", &measured);
    assert!(sum.broken.is_empty(), "{} runs broke a rule", sum.broken.len());
    assert_eq!(sum.rollbacks, 0);
}

#[test]
#[ignore = "it measures the whole process, so it runs alone: scripts/reliability memory"]
fn memory_is_flat() {
    memory::run(number("ROLLBACKD_ROLLOUTS").unwrap_or(20));
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 14, 15] {
        let heads = |_| run(Kind::Storm, seed, false).heads;
        assert_eq!(heads(0), heads(1), "seed {seed}");
    }
}
