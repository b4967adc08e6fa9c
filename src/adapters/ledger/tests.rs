use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, json};
use tempfile::TempDir;

use super::*;
use crate::domain::time::Timestamp;
use crate::ledger::verify::Flaw;

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

fn trust() -> Trust {
    Trust::Keys(BTreeSet::from([signer().public_key().to_owned()]))
}

fn draft(text: &str) -> Draft {
    Draft {
        at: Timestamp::from_millis(0),
        event: "rollout.promoted".into(),
        actor: "rollbackd".into(),
        target: "voice".into(),
        result: "ok".into(),
        version: None,
        extra: Map::from_iter([("reason".to_owned(), json!(text))]),
    }
}

fn drafts(count: usize) -> Vec<Draft> {
    (0..count).map(|n| draft(&format!("{n}"))).collect()
}

mod damage;

async fn fresh() -> (TempDir, PathBuf, SqliteLedger) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path, signer()).await.unwrap();
    (dir, path, ledger)
}

/// Runs SQL behind the ledger's back.
async fn tamper(ledger: &SqliteLedger, sql: &'static str) -> Result<(), String> {
    let done = sqlx::raw_sql(sql).execute(&ledger.pool).await;
    done.map(drop).map_err(|error| reason(&error))
}

fn storage_reason(error: LedgerError) -> String {
    match error {
        LedgerError::Storage { reason, .. } => reason,
        LedgerError::Conflict { .. } => panic!("{error}"),
    }
}

/// Every record, as a start replays them, every signature checked as an audit does.
async fn verified(ledger: &SqliteLedger) -> Result<Vec<Record>, ReplayError> {
    let (mut replayed, mut audited) = (Vec::new(), Vec::new());
    let replay = ledger.replay(trust(), |record| replayed.push(record)).await;
    let audit =
        ledger.verify_each(&mut ChainVerifier::new(trust()), |record| audited.push(record)).await;
    if replay.is_ok() {
        assert_eq!(replayed, audited);
    }
    audit.and(replay).map(|_| replayed)
}

#[tokio::test]
async fn what_is_appended_is_read_again_after_reopening() {
    let (_dir, path, ledger) = fresh().await;
    assert_eq!((ledger.last_seq().await, ledger.head().await), (Ok(0), Ok(None)));
    let mut written = ledger.append(0, drafts(2)).await.unwrap();
    assert_eq!(ledger.append(2, Vec::new()).await, Ok(Vec::new()));
    ledger.close().await;

    let ledger = SqliteLedger::open(&path, signer()).await.unwrap();
    written.extend(ledger.append(2, drafts(3)).await.unwrap());
    assert_eq!(ledger.read(0, 100).await.unwrap(), written);
    assert_eq!(ledger.read(1, 2).await.unwrap(), written[1..3]);
    assert_eq!(ledger.read(5, 2).await.unwrap(), []);
    assert_eq!(ledger.read(u64::MAX, 2).await.unwrap(), []);
    assert_eq!(ledger.last_seq().await, Ok(5));
    assert_eq!(ledger.head().await.unwrap().as_ref(), written.last());
    assert_eq!(verified(&ledger).await.unwrap(), written);
}

#[tokio::test]
async fn a_replay_goes_through_all_pages() {
    let (_dir, _path, ledger) = fresh().await;
    let count = PAGE_RECORDS as usize + 1;
    ledger.append(0, drafts(count)).await.unwrap();
    assert_eq!(verified(&ledger).await.unwrap().len(), count);
}

#[tokio::test]
async fn a_second_writer_is_told_and_writes_nothing() {
    let (_dir, path, one) = fresh().await;
    let two = SqliteLedger::open(&path, signer()).await.unwrap();
    one.append(0, drafts(2)).await.unwrap();
    let conflict = Err(LedgerError::Conflict { expected: 0, found: 2 });
    assert_eq!(two.append(0, drafts(1)).await, conflict);
    assert_eq!(
        two.append(9, drafts(1)).await,
        Err(LedgerError::Conflict { expected: 9, found: 2 })
    );
    assert_eq!(one.last_seq().await, Ok(2));
    two.append(2, drafts(1)).await.unwrap();
    assert_eq!(verified(&one).await.unwrap().len(), 3);
}

#[tokio::test]
async fn of_writers_at_the_same_moment_one_wins() {
    let (_dir, path, one) = fresh().await;
    let two = SqliteLedger::open(&path, signer()).await.unwrap();
    let (first, second) = tokio::join!(one.append(0, drafts(3)), two.append(0, drafts(3)));
    let conflict = Err(LedgerError::Conflict { expected: 0, found: 3 });
    assert!(first.is_ok() != second.is_ok() && (first == conflict || second == conflict));
    assert_eq!(verified(&one).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_draft_that_cannot_be_sealed_leaves_none_of_its_siblings() {
    let (_dir, _path, ledger) = fresh().await;
    let mut drafts = drafts(3);
    drafts[2].extra.insert("hash".into(), json!("mine"));
    let said = storage_reason(ledger.append(0, drafts).await.unwrap_err());
    assert!(said.contains("cannot seal rollout.promoted: the extra field `hash`"), "{said}");
    assert_eq!(ledger.last_seq().await, Ok(0));
}

#[tokio::test]
async fn a_full_disk_takes_nothing_and_the_ledger_goes_on_once_there_is_room() {
    let (_dir, _path, ledger) = fresh().await;
    ledger.append(0, drafts(1)).await.unwrap();
    tamper(&ledger, "PRAGMA max_page_count = 5").await.unwrap();
    let large = vec![draft("small"), draft(&"x".repeat(100_000))];
    let said = storage_reason(ledger.append(1, large).await.unwrap_err());
    assert_eq!(said, "database or disk is full");
    assert_eq!(ledger.last_seq().await, Ok(1));
    tamper(&ledger, "PRAGMA max_page_count = 1000000").await.unwrap();
    ledger.append(1, drafts(1)).await.unwrap();
    assert_eq!(verified(&ledger).await.unwrap().len(), 2);
}

#[tokio::test]
async fn rows_can_be_added_in_order_only() {
    let (_dir, _path, ledger) = fresh().await;
    ledger.append(0, drafts(2)).await.unwrap();
    for sql in [
        "UPDATE records SET json = '{}' WHERE seq = 1",
        "UPDATE records SET seq = 9 WHERE seq = 2",
        "DELETE FROM records",
        "DELETE FROM records WHERE seq = 2",
        "INSERT INTO records VALUES (4, '{}')",
        "INSERT INTO records VALUES (0, '{}')",
        "INSERT OR REPLACE INTO records VALUES (2, '{}')",
        "REPLACE INTO records VALUES (1, '{}')",
    ] {
        let said = tamper(&ledger, sql).await.unwrap_err();
        assert!(said.contains("the ledger is append-only"), "{sql}: {said}");
    }
    assert_eq!(verified(&ledger).await.unwrap().len(), 2);
}

#[tokio::test]
async fn tampering_past_the_triggers_is_found_at_its_record() {
    let gone = "DROP TRIGGER records_unchanged; DROP TRIGGER records_kept;";
    let not_a_record = |reason: &str| Flaw::NotARecord { reason: reason.to_owned() };
    #[rustfmt::skip]
    let cases: [(&str, u64, Flaw); 6] = [
        ("UPDATE records SET json = replace(json, '\"ok\"', '\"no\"') WHERE seq = 2", 2, Flaw::WrongHash),
        ("DELETE FROM records WHERE seq = 2", 3, Flaw::Gap { expected: 2 }),
        ("UPDATE records SET seq = 4 WHERE seq = 3", 4, Flaw::Misplaced { found: 3 }),
        ("UPDATE records SET json = json || ' ' WHERE seq = 1", 1, Flaw::NotCanonical),
        ("UPDATE records SET json = '' WHERE seq = 3", 3,
            not_a_record("EOF while parsing a value at line 1 column 0")),
        ("UPDATE records SET json = CAST(x'22ff22' AS TEXT) WHERE seq = 2", 2,
            not_a_record("invalid type: string \"\\u{fffd}\"")),
    ];
    for (sql, seq, why) in cases {
        let (_dir, path, ledger) = fresh().await;
        ledger.append(0, drafts(3)).await.unwrap();
        tamper(&ledger, gone).await.unwrap();
        tamper(&ledger, sql).await.unwrap();
        let path = path.display().to_string();
        let error = verified(&ledger).await.unwrap_err();
        if let (ReplayError::Broken { broken, .. }, Flaw::NotARecord { .. }) = (&error, &why) {
            assert!(broken.seq == seq && matches!(broken.why, Flaw::NotARecord { .. }), "{sql}");
            assert!(matches!(ledger.read(0, 9).await, Err(LedgerError::Storage { .. })), "{sql}");
        } else {
            assert_eq!(
                error,
                ReplayError::Broken { path, broken: BrokenRecord { seq, why } },
                "{sql}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_chained_to_a_damaged_head() {
    let (_dir, _path, ledger) = fresh().await;
    ledger.append(0, drafts(2)).await.unwrap();
    tamper(&ledger, "DROP TRIGGER records_unchanged; UPDATE records SET json = 'x' WHERE seq = 2")
        .await
        .unwrap();
    let said = storage_reason(ledger.append(2, drafts(1)).await.unwrap_err());
    assert!(said.starts_with("record 2 is damaged"), "{said}");
    assert_eq!(ledger.last_seq().await, Ok(2));
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_whole_appends_and_cannot_write() {
    let (_dir, path, writer) = fresh().await;
    let reader = SqliteLedger::open_read_only(&path).await.unwrap();
    assert_eq!(reader.last_seq().await, Ok(0));
    writer.append(0, drafts(2)).await.unwrap();
    assert_eq!(verified(&reader).await.unwrap().len(), 2);
    assert_eq!(
        storage_reason(reader.append(2, drafts(1)).await.unwrap_err()),
        "opened to read only"
    );
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.db");
    let error = SqliteLedger::open_read_only(&missing).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("ledger {}: unable to open database file", missing.display())
    );
    assert!(!missing.exists(), "reading made a file");
    // A directory that takes no files, from root neither.
    let error = SqliteLedger::open(Path::new("/proc/ledger.db"), signer()).await.unwrap_err();
    assert_eq!(error.to_string(), "ledger /proc/ledger.db: unable to open database file");
}

#[tokio::test]
async fn another_database_or_a_newer_format_is_refused_and_left_alone() {
    let cases = [
        ("PRAGMA user_version = 2", "is of format 2, this rollbackd knows format 1"),
        ("PRAGMA application_id = 1", "is a database, but not a ledger"),
        ("PRAGMA application_id = 0; PRAGMA user_version = 0", "is a database, but not a ledger"),
    ];
    for (sql, want) in cases {
        let (_dir, path, ledger) = fresh().await;
        tamper(&ledger, sql).await.unwrap();
        ledger.close().await;
        let before = fs::read(&path).unwrap();
        let said = storage_reason(SqliteLedger::open(&path, signer()).await.unwrap_err());
        assert!(said.contains(want), "{said}");
        let said = storage_reason(SqliteLedger::open_read_only(&path).await.unwrap_err());
        assert!(said.contains(want), "{said}");
        assert!(fs::read(&path).unwrap() == before, "{sql}: the file was changed");
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_or_cut_is_an_error_not_an_empty_ledger() {
    let (_dir, path, ledger) = fresh().await;
    ledger.append(0, drafts(200)).await.unwrap();
    ledger.close().await;
    let whole = fs::read(&path).unwrap();
    let mut scribbled = whole.clone();
    scribbled[4096..].fill(0x5a);
    let cases: [(&str, &[u8]); 5] = [
        ("cut to half", &whole[..whole.len() / 2]),
        ("cut within a page", &whole[..5000]),
        ("cut within the header", &whole[..50]),
        ("scribbled over", &scribbled),
        ("not a database", &[b'x'; 10_000]),
    ];
    for (name, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let result = match SqliteLedger::open(&path, signer()).await {
            Ok(ledger) => {
                let verified = verified(&ledger).await;
                ledger.close().await;
                verified
            }
            Err(error) => Err(error.into()),
        };
        assert!(matches!(result, Err(ReplayError::Ledger(_))), "{name}: {result:?}");
    }
}
#[tokio::test]
async fn a_file_that_takes_no_writes_is_refused_at_once_not_at_the_first_append() {
    let (_dir, path, ledger) = fresh().await;
    ledger.append(0, drafts(1)).await.unwrap();
    // What SQLite falls back to, silently, where the file's mode forbids writing.
    let denied = options(&path).read_only(true);
    let denied = SqliteLedger::connect(&path, denied, Some(signer())).await.unwrap();
    let said = format::prepare(&denied.pool).await.unwrap_err();
    assert_eq!(said, "attempt to write a readonly database");
}

#[tokio::test]
async fn a_copy_without_its_log_can_be_read_where_nothing_can_be_written() {
    let (_dir, path, ledger) = fresh().await;
    ledger.append(0, drafts(2)).await.unwrap();
    ledger.close().await;
    assert!(!beside(&path, "-wal").exists());
    let copy = options(&path).read_only(true).immutable(true);
    let copy = SqliteLedger::read_only(&path, copy).await.unwrap();
    assert_eq!(verified(&copy).await.unwrap().len(), 2);
}
