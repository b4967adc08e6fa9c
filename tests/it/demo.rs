//! `make demo` itself, as people see it.

use std::path::Path;
use std::process::Command;

use super::support::fleet::{ROLLBACKD, python};

#[test]
fn the_demo_takes_a_bad_version_back_and_leaves_no_panel_empty() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let played = Command::new(python())
        .args(["-u", "demo/play.py"])
        .current_dir(root)
        .env("ROLLBACKD_BIN", ROLLBACKD)
        .env_remove("HEALTHY")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&played.stdout);
    assert_eq!(played.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&played.stderr));
    let points: Vec<&str> =
        said.lines().filter_map(|line| line.trim_start().strip_prefix("✓ ")).collect();
    for point in ["calls dropped: 0", "the workers' own records: clean", "dashboard queries"] {
        assert!(points.iter().any(|line| line.starts_with(point)), "{point}: {said}");
    }
}
