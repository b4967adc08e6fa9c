//! `backtest` over a day of ten fleets that a real Prometheus holds.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use super::Figure;
use super::scripted::{BINARY, Rollbackd, memory_mb, prometheus};

use super::support::history::{self, Run};

/// Scrapes in an hour.
const HOUR: u64 = 3600 / history::SCRAPE_SECONDS;

const FLEETS: &str = "  - { name: voice, by: [fleet], workers: worker_info, live: sessions_live, \
                      drain: { manifest: {} } }\n";
const RULES: &str = r"
groups:
  - name: sessions
    fleet: voice
    interval: 15s
    regressions:
      - name: SessionsFailing
        started: sessions_started_total
        failed: sessions_failed_total
        live: sessions_live
        ceiling: 5%
        tolerance: 1.5x
";

/// Four workers; two rollouts, of which the second is bad and taken back by hand.
fn runs() -> Vec<Run> {
    let of_fleet = |number: u64| {
        let fleet = format!("f{number}");
        // Not all at once: many that regress together are no version's fault.
        let third = 12 * HOUR + number * HOUR;
        let run = |version, first, last, fails| {
            let fleet = fleet.clone();
            Run { fleet, version, tenant: "", workers: 4, first, last, rate: 4.0, fails }
        };
        [
            run("v1", 0, 9 * HOUR, 0.01),
            run("v2", 8 * HOUR, 25 * HOUR, 0.01),
            run("v3", third, third + HOUR, 0.1),
        ]
    };
    (0..10).flat_map(of_fleet).collect()
}

/// How long a backtest took, and how much memory at most, in MB.
fn backtest(directory: &Path, begin: u64) -> (Duration, f64) {
    let clock = Instant::now();
    let mut child = Command::new(BINARY)
        .current_dir(directory)
        .args(["backtest", "--from", &begin.to_string(), "--html", "backtest.html"])
        .args(["--to", &(begin + 24 * 3600).to_string()])
        .stdout(std::fs::File::create(directory.join("summary")).unwrap())
        .spawn()
        .unwrap();
    let mut peak = 0.0;
    loop {
        peak = memory_mb(child.id(), "VmHWM:").unwrap_or(peak);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return (clock.elapsed(), peak);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "the history ends about now")]
pub(super) fn figures() -> Vec<Figure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let begin = (now - 26 * 3600) / 3600 * 3600;
    let past = |file| history::write(file, begin, &runs());
    let (_prometheus, _data, port) = prometheus("global: {}\n", past);
    let at = Rollbackd::prepare(port, FLEETS, RULES);
    let (took, peak) = backtest(at.directory.path(), begin);
    let summary = std::fs::read_to_string(at.path("summary")).unwrap();
    let found = "20 rollouts: 10 would be rolled back, 10 promoted";
    assert!(summary.contains(found), "not what was to be found: {summary}");
    vec![
        Figure {
            what: "backtest: 24 h at 15 s, 10 fleets of 4 workers, Prometheus included",
            measured: format!("{:.1} s", took.as_secs_f64()),
            goal: "30 s",
        },
        Figure { what: "its memory at most", measured: format!("{peak:.0} MB"), goal: "200 MB" },
    ]
}
