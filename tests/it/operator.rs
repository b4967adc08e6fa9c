//! What operators say, through the real command line: it is done, recorded with who and why, and
//! survives a restart.

use super::support::fleet::{Fleet, Setup, rollbackd};

fn say(fleet: &Fleet, words: &[&str]) -> (Option<i32>, String) {
    let url = format!("http://{}", fleet.address);
    let mut all = words.to_vec();
    all.extend(["--url", &url]);
    let output = rollbackd(&fleet.path(""), &all);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_fleet_is_rolled_back_once_an_operator_resumes_it() {
    let (mut fleet, _calls) = Fleet::serving_on_v1(Setup::default()).await;
    let because = ["--reason", "a noisy night", "--actor", "ada"];
    let (code, said) = say(&fleet, &[&["pause", "voice"], &because[..]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "voice: paused until resumed\n"));
    let (code, said) = say(&fleet, &[&["pause", "voice"], &because[..]].concat());
    assert_eq!(
        (code, said.starts_with("refused: it is paused already")),
        (Some(1), true),
        "{said}"
    );
    let (code, said) = say(&fleet, &[&["pause", "chat"], &because[..]].concat());
    assert_eq!((code, said.as_str()), (Some(1), "refused: there is no fleet `chat`\n"));

    fleet.kill_controller();
    fleet.start_controller().await;
    fleet.cut_over_to_v2().await;
    let held = fleet.until_recorded("rollout.held").await;
    assert!(held["reason"].as_str().unwrap().contains("an operator has paused it"), "{held}");
    assert_eq!(fleet.steps(), [""; 0], "nothing by itself while paused");
    let (code, said) = say(&fleet, &["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("voice  mode automatic, paused until resumed, last good v1"),
        "{said}"
    );
    assert!(said.contains("observing v2 until"), "{said}");
    let (code, said) = say(&fleet, &["explain", "voice"]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "An operator has paused it until it is resumed",
        "Nothing is done about v2: would roll back; an operator has paused it.",
        "sessions of v2 failed",
        "2,000 to 1 convicts",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let (code, said) = say(&fleet, &[&["resume", "voice"], &because[..]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "voice: resumed\n"));
    fleet.until_recorded("rollback.clean").await;
    let facts = fleet.check("v2", "v1");
    assert_eq!(facts["clean"], true, "{facts:#}");
    let words: Vec<_> = fleet
        .records()
        .into_iter()
        .filter(|record| record["event"].as_str().unwrap().starts_with("operator."))
        .collect();
    assert_eq!(words.len(), 2, "{words:?}");
    for word in words {
        assert_eq!((&word["actor"], &word["reason"]), (&"ada".into(), &"a noisy night".into()));
    }
    let (code, said) =
        say(&fleet, &[&["allow", "voice", "--version", "v2"], &because[..]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "voice: v2 is allowed again\n"));
    let (code, said) = say(&fleet, &["explain", "voice", "v2"]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["v2 was rolled back to v1 at", "nothing of v2 was left", " then: ", "Against v1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("v2 is denied"), "{said}");
    let (code, said) = say(&fleet, &["explain", "voice", "v1"]);
    assert!(code == Some(0) && said.contains("taken as good without being judged"), "{said}");
    let (code, said) = say(&fleet, &["explain", "voice", "v7"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no version `v7`; there are `v1`, `v2`"), "{said}");
    assert!(fleet.audit().status.success());
}
