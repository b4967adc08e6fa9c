//! Ledgers that hold, and others.

use std::fs;

use serde_json::{Map, json};
use tempfile::TempDir;

use super::*;
use crate::domain::time::Timestamp;
use crate::ledger::record::{Draft, Record};
use crate::ports::ledger::Ledger;
use crate::signing::{canonical_json, generate_key_file, public_key_path};

struct House {
    dir: TempDir,
    ledger: PathBuf,
    key: PathBuf,
    records: Vec<Record>,
}

async fn house(records: usize) -> House {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("ledger.db"), dir.path().join("k"));
    let ledger = SqliteLedger::open(&path, generate_key_file(&key).unwrap()).await.unwrap();
    let draft = |n| Draft {
        at: Timestamp::from_millis(n),
        event: "rollout.promoted".into(),
        actor: "rollbackd".into(),
        target: "voice".into(),
        result: "ok".into(),
        version: None,
        extra: Map::from_iter([("n".to_owned(), json!(n))]),
    };
    let drafts = (0..).take(records).map(draft).collect();
    let records = ledger.append(0, drafts).await.unwrap();
    ledger.close().await;
    House { dir, ledger: path, key: public_key_path(&key), records }
}

async fn said(command: AuditCommand) -> (u8, String) {
    let mut out = Vec::new();
    let code = run(&command, &mut out).await.unwrap();
    (code, String::from_utf8(out).unwrap())
}

fn verify_command(house: &House, keys: &[&Path]) -> AuditCommand {
    let keys = keys.iter().map(|key| key.to_path_buf()).collect();
    AuditCommand::Verify { ledger: house.ledger.clone(), keys, checkpoints: Vec::new() }
}

#[tokio::test]
async fn a_ledger_that_holds_is_summed_up() {
    let house = house(3).await;
    let head = &house.records[2].hash;
    let ok = format!(
        "ok: 3 records, seq 1..3, from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:00.002Z, \
         head {head}\n"
    );
    assert_eq!(said(verify_command(&house, &[&house.key])).await, (EXIT_OK, ok.clone()));
    let unchecked = format!(
        "{ok}keys not checked: the records name their own; give --key to say who may sign\n\
         signed by {}\n",
        house.records[0].key
    );
    assert_eq!(said(verify_command(&house, &[])).await, (EXIT_OK, unchecked));
}

#[tokio::test]
async fn an_empty_ledger_holds() {
    let house = house(0).await;
    assert_eq!(said(verify_command(&house, &[])).await, (EXIT_OK, "ok: 0 records\n".into()));
}

#[tokio::test]
async fn a_changed_record_is_named() {
    let house = house(20).await;
    let bytes = fs::read(&house.ledger).unwrap();
    let (from, to) = (br#""n":16,"#, br#""n":61,"#);
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    let mut changed = bytes.clone();
    changed[at..at + to.len()].copy_from_slice(to);
    fs::write(&house.ledger, changed).unwrap();
    let line = format!("{}: record 17: hash does not match its content\n", house.ledger.display());
    assert_eq!(said(verify_command(&house, &[&house.key])).await, (EXIT_FAILED, line));
}

#[tokio::test]
async fn a_copy_holds_and_leaves_behind_what_was_damaged_around_the_records() {
    let house = house(20).await;
    let mut bytes = fs::read(&house.ledger).unwrap();
    bytes[72] = 1;
    fs::write(&house.ledger, bytes).unwrap();
    let (code, line) = said(verify_command(&house, &[&house.key])).await;
    let damaged = "page 1 is damaged in byte 72, outside of the records\n";
    assert!(code == EXIT_FAILED && line.ends_with(damaged), "{line}");

    let to = house.dir.path().join("copy.db");
    let copy = AuditCommand::Copy { ledger: house.ledger.clone(), to: to.clone() };
    let (code, line) = said(copy.clone()).await;
    assert!(code == EXIT_OK && line.starts_with("ok: 20 records"), "{line}");
    let error = run(&copy, &mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().ends_with("copy.db: is there already"), "{error}");
    let copied = House { ledger: to, ..house };
    assert_eq!(said(verify_command(&copied, &[&copied.key])).await.0, EXIT_OK);
    assert_eq!(fs::read_dir(copied.dir.path()).unwrap().count(), 6, "nothing else is left");
}

#[tokio::test]
async fn only_the_given_keys_count() {
    let house = house(1).await;
    let other = house.dir.path().join("other");
    generate_key_file(&other).unwrap();
    let other = public_key_path(&other);
    let (code, line) = said(verify_command(&house, &[&other])).await;
    assert_eq!(code, EXIT_FAILED);
    assert!(line.contains("record 1: signed with the key") && line.contains("not trusted"));
    assert_eq!(said(verify_command(&house, &[&other, &house.key])).await.0, EXIT_OK);
}

#[tokio::test]
async fn the_export_is_the_stored_text_line_by_line() {
    let house = house(300).await;
    let command = |after| AuditCommand::Export { ledger: house.ledger.clone(), after };
    let lines = |records: &[Record]| -> String {
        let line = |record| String::from_utf8(canonical_json(record).unwrap()).unwrap() + "\n";
        records.iter().map(line).collect()
    };
    assert_eq!(said(command(0)).await, (EXIT_OK, lines(&house.records)));
    assert_eq!(said(command(298)).await, (EXIT_OK, lines(&house.records[298..])));
    assert_eq!(said(command(300)).await, (EXIT_OK, String::new()));
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let house = house(1).await;
    assert_eq!(export(&house.ledger, 0, &mut Closed).await.unwrap(), EXIT_OK);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error() {
    let house = house(1).await;
    let none = house.dir.path().join("none");
    let missing =
        AuditCommand::Verify { ledger: none.clone(), keys: Vec::new(), checkpoints: Vec::new() };
    let error = run(&missing, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, CommandError::Ledger(_)));
    let error = run(&verify_command(&house, &[&none]), &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, CommandError::Key(_)));
}
