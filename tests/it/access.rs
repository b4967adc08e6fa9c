//! Who may do what, through the real binary on both sides.

use std::time::Duration;

use serde_json::json;

use super::support::fleet::{Fleet, Setup, rollbackd};
use super::support::{client, signal, wait_for};

/// A command's exit code, and all it said.
fn say(fleet: &Fleet, words: &[&str]) -> (Option<i32>, String) {
    let url = format!("http://{}", fleet.address);
    let output = rollbackd(&fleet.path(""), &[words, &["--url", &url]].concat());
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

const PAUSE: &[&str] = &["pause", "voice", "--reason", "a test"];
const STATUS: &[&str] = &["status"];
const OLD: &str = "an-old-token-that-operates";
const NEW: &str = "a-new-token-that-operates";
const READ: &str = "a-token-that-reads-only";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_operates_is_needed_taken_from_a_file_and_rotated_without_a_restart() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    fleet.log_level = "trace";
    let directory = fleet.path("");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("operate.token", OLD);
    write("read.token", READ);
    write("new.token", NEW);
    fleet.configure(|config| {
        config["auth"] = json!({
            "read": { "token_files": ["read.token"] },
            "operate": { "token_files": ["operate.token"] },
        });
    });
    fleet.start_controller().await;
    assert!(fleet.log().contains("without_credentials=nothing"), "{}", fleet.log());

    let with = |words: &[&'static str], file: &'static str| {
        say(&fleet, &[words, &["--token-file", file]].concat())
    };
    let (code, said) = say(&fleet, STATUS);
    assert_eq!((code, said.as_str()), (Some(1), "the role `read` needs credentials\n"));
    assert_eq!(with(STATUS, "read.token").0, Some(0));
    let (code, said) = with(PAUSE, "read.token");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("have not the role `operate`"), "{said}");
    // Nothing was seen of the fleet yet: the controller itself says so, so it was heard.
    let (code, said) = with(PAUSE, "operate.token");
    assert_eq!((code, said.as_str()), (Some(1), "refused: there is no fleet `voice`\n"));

    write("operate.token", NEW);
    signal(fleet.controller_pid(), "HUP");
    wait_for("the new token", Duration::from_secs(30), || async {
        with(PAUSE, "new.token").1.contains("there is no fleet").then_some(())
    })
    .await;
    write("old.token", OLD);
    let (code, said) = with(PAUSE, "old.token");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not known here"), "{said}");

    // A bad file is told, and leaves what was in force.
    write("operate.token", "");
    let reload = client().post(format!("http://{}/-/reload", fleet.address)).bearer_auth(NEW);
    let refused = reload.send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("operate.token"));
    assert!(with(PAUSE, "new.token").1.contains("there is no fleet"));

    let page = client().get(format!("http://{}/metrics", fleet.address)).bearer_auth(READ);
    let page = page.send().await.unwrap().text().await.unwrap();
    for reason in ["no_credentials", "bad_credentials", "role"] {
        let zero = format!("requests_refused_total{{reason=\"{reason}\"}} 0");
        assert!(page.contains(reason) && !page.contains(&zero), "{page}");
    }
    let rules = client().get(format!("http://{}/api/v1/rules", fleet.address)).bearer_auth(READ);
    let shown = rules.send().await.unwrap().text().await.unwrap() + &fleet.log();
    for secret in [OLD, NEW, READ] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
