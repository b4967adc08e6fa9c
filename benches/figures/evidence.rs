//! One evidence update.

use std::hint::black_box;
use std::time::Instant;

use rollbackd::domain::counts::{Counts, Tick};
use rollbackd::domain::evidence::{Detector, DetectorSettings, POOL_SESSIONS};
use rollbackd::domain::share::{Share, Tolerance};

use super::Figure;

const UPDATES: u32 = 200_000;

/// What is `Copy` holds nothing that was allocated, so a copy and an update of it allocate nothing.
fn holds_no_allocation<T: Copy>(value: T) -> T {
    value
}

pub(super) fn figures() -> Vec<Figure> {
    let settings = |ceiling| DetectorSettings {
        observation_ticks: 240,
        tolerance: Some(Tolerance::new(1.5).unwrap()),
        ceiling,
        dispersion: 1.3,
        pool_sessions: POOL_SESSIONS,
    };
    let ticks: Vec<Tick> = (0..64_u64)
        .map(|n| Tick {
            candidate: Counts { started: 15 + n % 7, failed: n % 3, live: 40.0 + n as f64 },
            control: Counts { started: 14 + n % 5, failed: n % 2, live: 45.0 },
        })
        .collect();
    let nanos = |ceiling| {
        let batch = |_| {
            let mut detector = holds_no_allocation(Detector::new(settings(ceiling)));
            let began = Instant::now();
            for tick in ticks.iter().cycle().take(UPDATES as usize) {
                black_box(detector.observe(black_box(tick)));
            }
            began.elapsed()
        };
        let best = (0..9).map(batch).min().unwrap_or_default();
        format!("{:.0} ns", best.as_secs_f64() * 1e9 / f64::from(UPDATES))
    };
    vec![
        Figure {
            what: "one evidence update (one test, 5 alternatives), no allocation",
            measured: nanos(None),
            goal: "200 ns",
        },
        Figure {
            what: "the same with both tests of a rule, against baseline and ceiling",
            measured: nanos(Some(Share::new(0.05).unwrap())),
            goal: "",
        },
    ]
}
