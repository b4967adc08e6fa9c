//! The speed that users meet, in a table: `cargo bench`, or `make bench`.
//!
//! Nothing here fails on a slow machine; the goals stand beside the figures. `cargo bench -- tick`
//! measures what has `tick` in its name only.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench, not a service"
)]

mod backtest;
mod evidence;
mod judge;
mod page;
mod process;
mod scripted;
mod streams;
#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod support;
mod tick;
mod webhook;

use std::time::Duration;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One line of the table.
struct Figure {
    what: &'static str,
    measured: String,
    goal: &'static str,
}

/// Measures the lines of one part.
type Measure = fn() -> Vec<Figure>;

/// The middle one.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all: [(&str, Measure); 8] = [
        ("evidence", evidence::figures),
        ("tick", tick::figures),
        ("webhook", webhook::figures),
        ("process", process::figures),
        ("backtest", backtest::figures),
        ("judge", judge::figures),
        ("streams", streams::figures),
        ("page", page::figures),
    ];
    println!("| figure | measured | goal |\n| --- | --- | --- |");
    for (name, figures) in all {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            for Figure { what, measured, goal } in figures() {
                println!("| {what} | {measured} | {goal} |");
            }
        }
    }
}
