//! What an auditor asks of the ledger: that it is whole, whoever signs it by now, and that a
//! release reads what another has written.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::fleet::{ROLLBACKD, rollbackd};
use super::support::{client, free_address, signal, wait_for};

/// Runs a command in a directory: exit code, and all it said.
fn say(directory: &Path, words: &str) -> (Option<i32>, String) {
    let words: Vec<_> = words.split(' ').collect();
    let output = rollbackd(directory, &words);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A directory with a rollbackd that watches nothing there is.
struct House {
    directory: tempfile::TempDir,
    url: String,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let house = Self { directory, url: format!("http://{address}") };
        let rule = json!({ "name": "Failing", "started": "a_total", "failed": "b_total", "ceiling": "5%" });
        let group =
            json!({ "name": "g", "fleet": "voice", "interval": "5s", "regressions": [rule] });
        fs::write(house.path().join("rules.yml"), json!({ "groups": [group] }).to_string())
            .unwrap();
        fs::write(house.path().join("listen"), address.to_string()).unwrap();
        house.configure("rollbackd.key");
        assert_eq!(say(house.path(), "keygen rollbackd.key").0, Some(0));
        house
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn configure(&self, key: &str) {
        let config = json!({
            "listen": fs::read_to_string(self.path().join("listen")).unwrap(),
            "prometheus": { "url": "http://127.0.0.1:1", "retries": 0 },
            "rule_files": ["rules.yml"],
            "ledger": "sqlite:rollbackd.db",
            "signing_key_file": key,
            "checkpoint": { "file": "checkpoint", "every": "100ms" },
            "fleets": [{ "name": "voice", "workers": "up", "drain": { "manifest": {} } }],
        });
        fs::write(self.path().join("rollbackd.yml"), config.to_string()).unwrap();
    }

    fn spawn(&self) -> Running {
        let child = Command::new(ROLLBACKD)
            .current_dir(self.path())
            .arg("run")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(fs::File::create(self.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Running(RefCell::new(child))
    }

    /// Starts it, waits for a checkpoint of so many records, and lets it stop in good order.
    async fn run(&self, records: u64) -> String {
        let running = self.spawn();
        let note = self.until_checkpoint(records).await;
        running.stop();
        assert_eq!(running.ended().await, Some(0), "{}", self.log());
        note
    }

    async fn until_checkpoint(&self, records: u64) -> String {
        wait_for("a checkpoint", Duration::from_mins(1), || self.checkpoint(records)).await
    }

    /// Starts one that must refuse, and gives its log.
    async fn refused(&self) -> String {
        assert_eq!(self.spawn().ended().await, Some(2), "{}", self.log());
        self.log()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap()
    }

    /// A checkpoint of at least so many records, from the running one.
    async fn checkpoint(&self, records: u64) -> Option<String> {
        let answer = client().get(format!("{}/api/v1/ledger/checkpoint", self.url)).send().await;
        let note = answer.ok()?.error_for_status().ok()?.text().await.ok()?;
        let size: u64 = note.lines().nth(1)?.parse().ok()?;
        let kept = fs::read_to_string(self.path().join("checkpoint")).ok()?;
        (size >= records && kept == note).then_some(note)
    }
}

/// A process that does not outlive the test.
struct Running(RefCell<Child>);

impl Running {
    fn stop(&self) {
        signal(self.0.borrow().id(), "TERM");
    }

    /// Its exit code, once it has ended.
    async fn ended(&self) -> Option<i32> {
        let ended = || async { self.0.borrow_mut().try_wait().unwrap() };
        wait_for("the process to end", Duration::from_mins(1), ended).await.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.borrow_mut().kill());
        drop(self.0.borrow_mut().wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_whose_end_was_cut_off_is_found_by_its_checkpoint() {
    let house = House::new();
    let path = house.path();
    let note = house.run(1).await;
    fs::write(path.join("kept"), &note).unwrap();
    let verify = "audit verify --key rollbackd.key.pub --checkpoint kept";
    let (code, said) = say(path, verify);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("goes on from 1 checkpoint"), "{said}");

    // A ledger of today, which somebody may put back in a year.
    assert_eq!(say(path, "audit copy old.db").0, Some(0));
    house.run(3).await;

    // On demand, and for other tools.
    let (code, note) = say(path, "audit checkpoint");
    assert_eq!(code, Some(0), "{note}");
    fs::write(path.join("last"), &note).unwrap();
    assert_eq!(say(path, "audit verify --checkpoint last --checkpoint kept").0, Some(0));
    let (_, key) = say(path, "audit checkpoint --verifier-key");
    let origin = note.lines().next().unwrap();
    assert!(key.starts_with(&format!("{origin}+")), "{key}");

    // What is no checkpoint of this ledger.
    let other = House::new();
    other.run(1).await;
    fs::copy(other.path().join("checkpoint"), path.join("other")).unwrap();
    fs::write(path.join("forged"), note.replacen("\n4\n", "\n3\n", 1)).unwrap();
    for (file, code, why) in [
        ("other", 1, "not signed by a key that may"),
        ("forged", 1, "not signed by a key that may"),
        ("rules.yml", 2, "is no checkpoint"),
        ("nowhere", 2, "No such file"),
    ] {
        let (got, said) = say(path, &format!("audit verify --checkpoint {file}"));
        assert_eq!(got, Some(code), "{file}: {said}");
        assert!(said.contains(why), "{file}: {said}");
    }

    // The chain holds without its end; the checkpoints say that it was longer.
    fs::write(path.join("checkpoint"), &note).unwrap();
    fs::rename(path.join("old.db"), path.join("rollbackd.db")).unwrap();
    let (code, said) = say(path, "audit verify --key rollbackd.key.pub");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = say(path, "audit verify --key rollbackd.key.pub --checkpoint last");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("last: the ledger's end was cut off: there are 2 records, and were 4"),
        "{said}"
    );
    let log = house.refused().await;
    assert!(log.contains("end was cut off: it had 4 records"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_takes_over_and_the_first_one_still_verifies_all() {
    let house = House::new();
    let path = house.path();
    house.run(1).await;
    assert_eq!(say(path, "keygen next.key").0, Some(0));
    let rotate = "audit rotate-key --new-key next.key --reason yearly --actor ada";
    {
        // Not while it is used.
        let running = house.spawn();
        house.until_checkpoint(3).await;
        let (code, said) = say(path, rotate);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("another rollbackd runs on the ledger"), "{said}");
        running.stop();
        running.ended().await;
    }
    let (code, said) = say(path, "audit rotate-key --new-key rollbackd.key --reason none");
    assert_eq!((code, said.as_str()), (Some(1), "both files hold the same key\n"));
    let (code, said) = say(path, rotate);
    assert_eq!(code, Some(0), "{said}");
    let (_, records) = say(path, "audit export");
    let last: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["actor"]), (&"controller.key_rotated".into(), &"ada".into()));

    let log = house.refused().await;
    assert!(log.contains("which is not trusted"), "the old key signs no more: {log}");
    house.configure("next.key");
    let note = house.run(6).await;
    fs::write(path.join("kept"), note).unwrap();
    for (words, code) in [
        ("audit verify --key rollbackd.key.pub --checkpoint kept", 0),
        ("audit verify --key rollbackd.key.pub --key next.key.pub", 0),
        ("audit verify --key next.key.pub", 1),
        ("audit checkpoint --signing-key next.key", 0),
        ("audit checkpoint --signing-key rollbackd.key", 1),
        ("audit rotate-key --new-key next.key --reason again", 1),
        ("audit replay --key rollbackd.key.pub", 0),
    ] {
        let (got, said) = say(path, words);
        assert_eq!(got, Some(code), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_is_counted_and_stops_nothing() {
    let house = House::new();
    let running = house.spawn();
    house.until_checkpoint(1).await;
    // Where the next one would be written before it takes the place of the last.
    fs::create_dir(house.path().join("checkpoint.new")).unwrap();
    let failed = || async {
        let metrics = client().get(format!("{}/metrics", house.url)).send().await.ok()?;
        let text = metrics.text().await.ok()?;
        let failed = r#"rollbackd_checkpoints_total{outcome="failed"} "#;
        let count = text.lines().find_map(|line| line.strip_prefix(failed))?.parse::<f64>().ok()?;
        (count >= 2.0).then_some(())
    };
    wait_for("two checkpoints to fail", Duration::from_mins(1), failed).await;
    assert!(house.log().contains("no checkpoint written"), "{}", house.log());
    running.stop();
    assert_eq!(running.ended().await, Some(0), "{}", house.log());
}

#[test]
fn ledgers_of_earlier_releases_are_read_verified_and_replayed() {
    for (release, records, decisions) in [
        // Recorded without the situation, or judged before the ceiling asked the baseline: that is
        // said, and neither taken for good nor held against them.
        ("0.1.0-early", 13, "0 as recorded, 1 not derivable"),
        ("0.1.0-later", 13, "0 as recorded, 1 not derivable"),
        ("0.1.0", 14, "1 as recorded, 0 not derivable"),
    ] {
        let kept =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger").join(release);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for file in ["rollbackd.db", "rollbackd.key.pub", "checkpoint"] {
            fs::copy(kept.join(file), path.join(file)).unwrap();
        }
        let verify = "audit verify --key rollbackd.key.pub --checkpoint checkpoint";
        let (code, said) = say(path, verify);
        assert_eq!(code, Some(0), "{release}: {said}");
        let (code, said) = say(path, "audit replay --key rollbackd.key.pub");
        assert_eq!(code, Some(0), "{release}: {said}");
        let want = format!("ok: {records} records; decisions: {decisions}\n");
        assert!(said.ends_with(&want), "{said}");
    }
}
