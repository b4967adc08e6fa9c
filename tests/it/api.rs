//! The API against its own description, by schemathesis.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::fleet::python;
use crate::support::synthetic::{Setup, Synthetic};

/// Generated requests to each operation.
const EXAMPLES: &str = "25";

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says() {
    let fleet = Synthetic::serving_on_v1(Setup::default()).await;
    let report = fleet.path("schemathesis");
    let schemathesis = PathBuf::from(python()).with_file_name("schemathesis");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemathesis.toml");
    let done = Command::new(schemathesis)
        .arg("--config-file")
        .arg(config)
        .args(["run", &fleet.url("/api/v1/openapi.json")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args(["--seed", "1", "--workers", "1", "--no-color"])
        .args(["--generation-database", "none", "--report-dir"])
        .arg(&report)
        .current_dir(fleet.path(""))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    assert!(fleet.json("/api/v1/fleets").await.is_some(), "it still serves");
}
