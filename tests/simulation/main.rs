//! The whole controller in a simulated world that lies, stalls and breaks.
//!
//! ```text
//! seed ─► world (workers, sessions, scrapes, clock) ◄─► ports that fail ◄─► Controller::run
//!              └──────── rules, checked at every record, effect and second ────────┘
//! ```
//!
//! `ROLLBACKD_RUNS` says how many seeds, `ROLLBACKD_SEED` replays a single one with a trace:
//! `ROLLBACKD_SEED=42 cargo test --release --test simulation -- --nocapture`
//!
//! **Invariant:** nothing in a run depends on anything but its seed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, and its trace"
)]

mod book;
mod ports;
mod random;
mod rules;
mod run;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use run::{Outcome, run};

/// Without optimisation, some seconds.
const RUNS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn no_fault_breaks_a_promise() {
    if let Some(seed) = number("ROLLBACKD_SEED") {
        let outcome = run(seed, true);
        assert!(outcome.broken.is_empty(), "seed {seed}: {:#?}", outcome.broken);
        return;
    }
    let runs = number("ROLLBACKD_RUNS").unwrap_or(RUNS);
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut sum = Outcome::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= runs || sum.broken.len() > 5 {
                return sum;
            }
            sum.add(run(seed, false));
        }
    };
    let mut sum = Outcome::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            sum.add(thread.join().unwrap());
        }
    });
    println!("{runs} runs in {:.0} s: {}", began.elapsed().as_secs_f64(), sum.summary());
    if number("ROLLBACKD_RUNS").is_some() {
        println!("{}", sum.row(runs));
    }
    for (seed, broken) in &sum.broken {
        println!("{broken}");
        println!("  ROLLBACKD_SEED={seed} cargo test --release --test simulation -- --nocapture");
    }
    assert!(sum.broken.is_empty(), "{} runs broke a promise", sum.broken.len());
    // A simulation in which nothing happens proves nothing.
    assert!(sum.crashes > runs && sum.clean * 4 > runs && sum.without_fault_of_version > 0);
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 14, 15] {
        assert_eq!(run(seed, false).heads, run(seed, false).heads, "seed {seed}");
    }
}
