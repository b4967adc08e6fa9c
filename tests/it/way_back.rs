//! A person goes back to an earlier version that was good, on the page and by command.

use std::time::Duration;

use fantoccini::Locator;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::fleet::rollbackd;
use crate::support::synthetic::{Setup, Synthetic};

/// A command's exit code, and all it said.
fn say(fleet: &Synthetic, words: &[&str]) -> (Option<i32>, String) {
    let url = fleet.url("");
    let because = ["--reason", "a caller complained", "--actor", "ada", "--url", &url];
    let output = rollbackd(&fleet.path(""), &[words, &because].concat());
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// Waits for the rollback from `bad` to end, and says what its record of the choice holds.
async fn gone_back(fleet: &Synthetic, bad: &str, good: &str) {
    fleet
        .until("the rollback's end", |view| view["rollback"].is_null() && view["last_good"] == good)
        .await;
    let records = fleet.records().await;
    let chosen = |record: &&Value| {
        record["event"] == "rollback.chosen"
            && (&record["from_version"], &record["version"]) == (&bad.into(), &good.into())
    };
    assert!(records.iter().any(|record| chosen(&record)), "{records:#?}");
    assert_eq!(records.last().unwrap()["event"], "rollback.clean", "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_goes_back_from_the_last_good_version_to_one_before_it() {
    let setup = Setup { observe_for: "10s", drains_in: Duration::from_secs(2), ..Setup::default() };
    let fleet = Synthetic::serving_on_v1(setup).await;
    for version in ["v2", "v3"] {
        fleet.add(version, 0.01).await;
        fleet.until(version, |view| view["last_good"] == version).await;
    }
    let view = fleet.json("/api/v1/fleets/voice").await.unwrap();
    assert_eq!(view["good"], json!(["v3", "v2", "v1"]));
    let back = |to| ["rollback", "voice", "--version", "v3", "--to", to];
    for unknown in ["v9", "v3"] {
        let (code, said) = say(&fleet, &back(unknown));
        let want = format!("refused: version {unknown} is not known as good\n");
        assert_eq!((code, said.as_str()), (Some(1), want.as_str()));
    }

    let browser = Browser::start().await;
    browser.look(1280, 900, "light").await;
    browser.client.goto(&fleet.url("/")).await.unwrap();
    browser.until_it_says("Roll back v3 to v1").await;
    let find = async |what| browser.client.find(Locator::Css(what)).await.unwrap();
    browser.click("button[data-to=v1]").await;
    assert!(browser.text().await.contains("v3 is denied and drained, and v1 takes over"));
    find("#act-reason").await.send_keys("since v2 calls are silent").await.unwrap();
    find("#act-actor").await.send_keys("eve").await.unwrap();
    browser.click("#act-confirm").await;
    let word = fleet.until_recorded("operator.rolled_back").await;
    assert_eq!((&word["actor"], &word["version"]), (&"eve".into(), &"v3".into()), "{word}");
    gone_back(&fleet, "v3", "v1").await;

    let (code, said) = say(&fleet, &["rollback", "voice", "--version", "v1", "--to", "v3"]);
    assert_eq!((code, said.as_str()), (Some(1), "refused: version v3 is not known as good\n"));
    let (code, said) = say(&fleet, &["rollback", "voice", "--version", "v1", "--to", "v2"]);
    assert_eq!((code, said.as_str()), (Some(0), "voice: rolling back v1\n"));
    gone_back(&fleet, "v1", "v2").await;
    let view = fleet.json("/api/v1/fleets/voice").await.unwrap();
    assert_eq!((&view["good"], &view["denied"]), (&json!(["v2"]), &json!(["v1", "v3"])));
}
