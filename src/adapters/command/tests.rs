use std::path::Path;
use std::time::Instant;

use super::*;
use crate::domain::fleet::FleetId;

/// As a config would have it.
#[expect(clippy::unnecessary_wraps, reason = "every command is optional")]
fn argv(parts: &[&str]) -> Option<Vec<String>> {
    Some(parts.iter().map(ToString::to_string).collect())
}

fn platform(start: Option<Vec<String>>, drain: Option<Vec<String>>) -> CommandPlatform {
    let commands = Commands { start, drain, check: None, timeout: Duration::from_secs(5) };
    CommandPlatform::new(BTreeMap::from([("voice".parse().unwrap(), commands)])).unwrap()
}

fn fleet() -> FleetId {
    FleetId { name: "voice".parse().unwrap(), by: vec!["eu".into()] }
}

fn start_of(version: &str) -> StartRequest {
    StartRequest {
        effect: "r1/start".into(),
        fleet: fleet(),
        version: version.parse().unwrap(),
        count: 3,
    }
}

fn drain_of(workers: &[&str]) -> DrainRequest {
    DrainRequest {
        effect: "r1/drain".into(),
        fleet: fleet(),
        version: "v2".parse().unwrap(),
        workers: workers.iter().map(ToString::to_string).collect(),
    }
}

/// A command that appends its arguments, one a line, and the environment to a file.
fn recorder(file: &Path, arguments: &[&str]) -> Option<Vec<String>> {
    let script = r#"f=$1; shift; { printf '[%s]' "$@"; echo " $ROLLBACKD_EFFECT $ROLLBACKD_FLEET $ROLLBACKD_VERSION"; } >> "$f""#;
    argv(&[&["sh", "-c", script, "sh", file.to_str().unwrap()], arguments].concat())
}

#[tokio::test]
async fn placeholders_are_replaced_once_inside_their_argument() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let start = recorder(file.path(), &["{{version}}", "n={{count}}", "{{fleet}}/{{effect}}"]);
    let platform = platform(start, None);
    for version in ["v1", "$(touch /tmp/x); 'a b'", "{{count}}"] {
        platform.start(start_of(version)).await.unwrap();
    }
    let seen = std::fs::read_to_string(file.path()).unwrap();
    let want = "[v1][n=3][voice:eu/r1/start] r1/start voice:eu v1\n\
        [$(touch /tmp/x); 'a b'][n=3][voice:eu/r1/start] r1/start voice:eu $(touch /tmp/x); 'a b'\n\
        [{{count}}][n=3][voice:eu/r1/start] r1/start voice:eu {{count}}\n";
    assert_eq!(seen, want);
}

#[tokio::test]
async fn a_value_is_never_an_option() {
    let refused = platform(argv(&["true", "{{version}}"]), None).start(start_of("-rf")).await;
    let text = refused.unwrap_err().to_string();
    assert_eq!(text, "r1/start: version `-rf` could be taken for an option");
    let inside = platform(argv(&["true", "--version={{version}}"]), None);
    assert_eq!(inside.start(start_of("-rf")).await, Ok(()));
    let drain = platform(None, argv(&["true", "{{worker}}.service"]));
    assert!(drain.drain(drain_of(&["--all"])).await.is_err());
    assert!(drain.drain(drain_of(&[""])).await.is_err());
}

#[tokio::test]
async fn without_a_command_a_start_fails_and_a_drain_is_the_manifests() {
    let platform = platform(None, None);
    let text = platform.start(start_of("v1")).await.unwrap_err().to_string();
    assert_eq!(text, "r1/start: no start command is configured for fleet voice");
    assert_eq!(platform.drain(drain_of(&["a"])).await, Ok(()));
}

#[tokio::test]
async fn a_check_says_by_its_exit_code_whether_a_start_would_work() {
    let script = r#"echo "no image $0"; [ "$0" = v1 ]"#;
    let check = argv(&["sh", "-c", script, "{{version}}"]).unwrap();
    let commands = Commands {
        start: None,
        drain: None,
        check: Some((check, Duration::from_secs(5))),
        timeout: Duration::from_millis(1),
    };
    let fleets = BTreeMap::from([("voice".parse().unwrap(), commands)]);
    let platform_with_check = CommandPlatform::new(fleets).unwrap();
    let could_start = |version: &str| CheckRequest {
        effect: "voice/check".into(),
        fleet: fleet(),
        version: version.parse().unwrap(),
        count: 2,
    };
    assert_eq!(platform_with_check.check(could_start("v1")).await, Ok(()));
    let text = platform_with_check.check(could_start("v9")).await.unwrap_err().to_string();
    assert_eq!(text, "voice/check: `sh` failed: exit status: 1: no image v9");
    let text = platform(None, None).check(could_start("v1")).await.unwrap_err().to_string();
    assert_eq!(text, "voice/check: no check is configured for fleet voice");
}

#[tokio::test]
async fn a_drain_runs_once_a_worker_or_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines = || std::fs::read_to_string(file.path()).unwrap().lines().count();
    let each = platform(None, recorder(file.path(), &["{{worker}}"]));
    each.drain(drain_of(&["a", "b", "c"])).await.unwrap();
    assert_eq!(lines(), 3);
    each.drain(drain_of(&[])).await.unwrap();
    assert_eq!(lines(), 3);
    platform(None, recorder(file.path(), &["all"])).drain(drain_of(&["a", "b"])).await.unwrap();
    assert_eq!(lines(), 4);
}

#[tokio::test]
async fn one_failed_drain_does_not_keep_the_others_from_running() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = r#"echo "$2" >> "$1"; [ "$2" != a ] || { echo no such worker >&2; exit 4; }"#;
    let drain = argv(&["sh", "-c", script, "sh", file.path().to_str().unwrap(), "{{worker}}"]);
    let text = platform(None, drain).drain(drain_of(&["a", "b"])).await.unwrap_err().to_string();
    assert_eq!(text, "r1/drain: `sh` failed: exit status: 4: no such worker");
    assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_failure_says_what_was_said_last() {
    let loud = r#"i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; exit 1"#;
    let text = platform(argv(&["sh", "-c", loud]), None).start(start_of("v1")).await;
    let text = text.unwrap_err().to_string();
    assert!(text.ends_with("line 2999"), "{text}");
    assert!(text.len() < 9000, "{}", text.len());
    let text = platform(argv(&["/nonexistent/start"]), None).start(start_of("v1")).await;
    assert!(text.unwrap_err().to_string().contains("`/nonexistent/start` could not be run"));
}

#[tokio::test]
async fn a_command_that_does_not_end_is_ended() {
    let commands = Commands {
        start: argv(&["sh", "-c", "echo working; exec sleep 60"]),
        drain: None,
        check: None,
        timeout: Duration::from_millis(300),
    };
    let platform =
        CommandPlatform::new(BTreeMap::from([("voice".parse().unwrap(), commands)])).unwrap();
    let began = Instant::now();
    let text = platform.start(start_of("v1")).await.unwrap_err().to_string();
    assert_eq!(text, "r1/start: `sh` was not done after 300ms and was ended: working");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_worker_left_behind_keeps_nobody_waiting() {
    let began = Instant::now();
    let leave = platform(argv(&["sh", "-c", "sleep 30 & exit 0"]), None);
    leave.start(start_of("v1")).await.unwrap();
    let leave = platform(argv(&["sh", "-c", "sleep 30 & exit 1"]), None);
    leave.start(start_of("v1")).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn commands_that_cannot_work_are_refused_before_the_first_run() {
    #[rustfmt::skip]
    let cases: Vec<(Option<Vec<String>>, &str)> = vec![
        (argv(&[]),                    "fleet voice, start command: it is empty"),
        (argv(&[""]),                  "fleet voice, start command: it is empty"),
        (argv(&["{{version}}"]),       "the program `{{version}}` must not have a placeholder"),
        (argv(&["a", "{{verison}}"]),  "`{{verison}}` is not one of version, fleet, effect, count"),
        (argv(&["a", "{{worker}}"]),   "`{{worker}}` is not one of"),
        (argv(&["a", "{{version"]),    "`{{version` has a `{{` without a `}}`"),
    ];
    for (start, text) in cases {
        let commands =
            Commands { start, drain: None, check: None, timeout: Duration::from_secs(1) };
        let fleets = BTreeMap::from([("voice".parse().unwrap(), commands)]);
        let error = CommandPlatform::new(fleets).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
