//! What rollbackd does not do: run on bad input, decide on a broken ledger, share one.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use super::support::fleet::{Fleet, Setup, rollbackd};
use super::support::wait_for;

#[test]
fn a_bad_config_is_reported_place_by_place_and_not_run() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let checked = rollbackd(&directory, &["check", "--config", "bad.yml"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = String::from_utf8(checked.stdout).unwrap();
    let problems: Vec<&str> = said.lines().collect();
    assert!(problems.len() > 20, "{said}");
    for problem in &problems {
        let mut parts = problem.splitn(4, ':');
        assert_eq!(parts.next(), Some("bad.yml"), "{problem}");
        let places = [parts.next(), parts.next()].map(|part| part.unwrap().parse::<u32>());
        assert!(places.iter().all(Result::is_ok), "{problem}");
    }

    let run = rollbackd(&directory, &["run", "--log.format", "json", "--config", "bad.yml"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    let said = String::from_utf8(run.stderr).unwrap();
    let events: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let messages: Vec<&str> = events.iter().filter_map(|event| event["message"].as_str()).collect();
    assert_eq!(messages, problems, "`run` says the same, an event each");
    assert!(events.iter().all(|event| event["level"] == "ERROR"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_with_a_flipped_byte_is_served_but_not_decided_on() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    fleet.start_controller().await;
    assert_eq!(fleet.stop_controller(), Some(0), "{}", fleet.log());
    assert!(fleet.audit().status.success());
    let path = fleet.path("rollbackd.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let event = b"controller.stopped";
    let place = bytes.windows(event.len()).position(|window| window == event).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let mut refused = fleet.spawn_controller("rollbackd.yml", &[]);
    assert_eq!(ended(&mut refused).await, Some(2));
    let log = fleet.log();
    let named =
        |line: &str| line.contains("failed to verify the ledger") && line.contains("record 2:");
    assert!(log.lines().any(named), "{log}");
    assert_eq!(fleet.audit().status.code(), Some(1));

    let mut reading = fleet.spawn_controller("rollbackd.yml", &["--read-only"]);
    let limit = Duration::from_secs(30);
    let records = wait_for("the records", limit, || fleet.get("api/v1/ledger")).await;
    assert_eq!(records.lines().count(), 2, "{records}");
    reading.kill().unwrap();
    reading.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_is_refused() {
    let fleet = Fleet::prepare(Setup::default()).await;
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(fleet.path("rollbackd.key"), readable).unwrap();
    let mut refused = fleet.spawn_controller("rollbackd.yml", &[]);
    assert_eq!(ended(&mut refused).await, Some(2));
    assert!(fleet.log().contains("mode 0644"), "{}", fleet.log());
    assert_eq!(fleet.records(), [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_controller_on_the_same_ledger_is_refused() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    let mut first = fleet.spawn_controller("rollbackd.yml", &[]);
    wait_for("the first", Duration::from_secs(30), || fleet.get("-/ready")).await;
    fleet.move_to_another_address();
    let mut second = fleet.spawn_controller("rollbackd.yml", &[]);
    assert_eq!(ended(&mut second).await, Some(2), "{}", fleet.log());
    assert!(fleet.log().contains("another rollbackd runs on the ledger"), "{}", fleet.log());
    assert_eq!(first.try_wait().unwrap(), None, "the first goes on");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(fleet.audit().status.success());
}

/// The exit code of a process that ends by itself.
async fn ended(child: &mut Child) -> Option<i32> {
    let child = RefCell::new(child);
    let ended = || async { child.borrow_mut().try_wait().unwrap() };
    wait_for("the process to end", Duration::from_secs(30), ended).await.code()
}
