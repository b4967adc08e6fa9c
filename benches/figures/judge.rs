//! `judge` on a long file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Figure;
use super::scripted::BINARY;

const TICKS: u64 = 1_000_000;

/// Both versions at every tick, alike, so that it is never decided.
fn write(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "time,version,started,failed,live")?;
    for tick in 0..TICKS {
        let (at, failed) = (tick * 15, u64::from(tick % 10 == 0));
        writeln!(file, "{at},v1,20,{failed},40\n{at},v2,20,{failed},40")?;
    }
    file.flush()
}

pub(super) fn figures() -> Vec<Figure> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts.csv");
    write(&path).unwrap();
    let began = Instant::now();
    let status = Command::new(BINARY)
        .args(["judge", "--baseline", "v1", "--candidate", "v2", "--ceiling", "5%"])
        .args(["--tolerance", "1.5x", "--format", "csv"])
        .arg(&path)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let took = began.elapsed();
    assert!(status.success(), "{status}");
    vec![Figure {
        what: "`judge` on a CSV file of a million ticks, two versions each",
        measured: format!("{:.1} s", took.as_secs_f64()),
        goal: "2 s",
    }]
}
