//! What rollbackd does not do: run on bad input, decide on a broken ledger, share one.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::fleet::{Fleet, Setup, rollbackd};
use super::support::{client, now, wait_for};

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

    let run = rollbackd(&directory, &["run", "--config", "bad.yml"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    let said = String::from_utf8(run.stderr).unwrap();
    for problem in &problems {
        assert!(said.contains(problem), "not said by `run`: {problem}\n{said}");
    }
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
async fn of_two_controllers_on_one_ledger_only_one_goes_on() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    let first = fleet.spawn_controller("rollbackd.yml", &[]);
    wait_for("the first", Duration::from_secs(30), || fleet.get("-/ready")).await;
    let first_address = fleet.address;
    fleet.move_to_another_address();
    let second = fleet.spawn_controller("rollbackd.yml", &[]);
    let both = RefCell::new([first, second]);

    let limit = Duration::from_secs(30);
    // Whatever has to be recorded shows the one that was overtaken that it was.
    let stopped = wait_for("one of them to stop", limit, || async {
        // One worker is not reported twice in a while.
        let worker_id = format!("w-{}", now().as_millis());
        let heartbeat = json!({
            "fleet": "voice", "worker_id": worker_id, "version": "v1", "draining": false,
            "active_sessions": 0, "timestamp": 0.0, "token": "0".repeat(64),
        });
        for address in [first_address, fleet.address] {
            let url = format!("http://{address}/api/v1/heartbeat");
            drop(client().post(url).json(&heartbeat).send().await);
        }
        both.borrow_mut().iter_mut().find_map(|child| child.try_wait().unwrap())
    })
    .await;
    assert_eq!(stopped.code(), Some(2));
    let mut both = both.into_inner();
    let alive =
        both.iter_mut().map(|child| child.try_wait().unwrap()).filter(Option::is_none).count();
    assert_eq!(alive, 1, "{}", fleet.log());
    assert!(fleet.audit().status.success());
    for mut child in both {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The exit code of a process that ends by itself.
async fn ended(child: &mut Child) -> Option<i32> {
    let child = RefCell::new(child);
    let ended = || async { child.borrow_mut().try_wait().unwrap() };
    wait_for("the process to end", Duration::from_secs(30), ended).await.code()
}
