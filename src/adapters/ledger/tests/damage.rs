//! Damage to the file and its log, bit by bit and byte by byte.

use super::*;
use crate::adapters::ledger::{FileFlaw, LogFlaw};

/// Records of all sizes, by appends of all sizes, in a file that was closed in between, with
/// appends that failed.
async fn grown(dir: &Path, records: usize, characters_max: usize) -> PathBuf {
    let path = dir.join("ledger.db");
    let mut ledger = SqliteLedger::open(&path, signer()).await.unwrap();
    let mut last = 0;
    while last < records {
        let count = (1 + last % 5).min(records - last);
        let text = |n: usize| "x".repeat((last + n) * 7919 % characters_max);
        let drafts = (0..count).map(|n| draft(&text(n))).collect();
        ledger.append(last as u64, drafts).await.unwrap();
        last += count;
        if last.is_multiple_of(7) {
            let mut refused = super::drafts(9);
            refused[8].extra.insert("hash".into(), json!("mine"));
            ledger.append(last as u64, refused).await.unwrap_err();
        }
        if last.is_multiple_of(16) {
            ledger.close().await;
            ledger = SqliteLedger::open(&path, signer()).await.unwrap();
        }
    }
    ledger.close().await;
    path
}

/// What `audit verify` finds: every record, or why not.
async fn audited(path: &Path) -> Result<u64, String> {
    let ledger = SqliteLedger::open_read_only(path).await.map_err(|error| error.to_string())?;
    let mut verifier = ChainVerifier::new(trust());
    let records = ledger.verify_each(&mut verifier, drop).await.map_err(|error| error.to_string());
    let file = ledger.examine_file().await;
    ledger.close().await;
    records?;
    match file.map_err(|error| error.to_string())? {
        Some(flaw) => Err(flaw.to_string()),
        None => Ok(verifier.summary().records),
    }
}

/// Places all over the file, and every byte of its header. `make reliability` tries more.
fn places(length: usize) -> impl Iterator<Item = (usize, u32)> {
    let spread = (100..length).step_by(length / 80 + 1);
    (0..100).chain(spread).enumerate().map(|(n, byte)| (byte, u32::try_from(n % 8).unwrap()))
}

#[tokio::test]
async fn a_ledger_is_byte_for_byte_what_its_records_make() {
    let dir = tempfile::tempdir().unwrap();
    // Records that fill pages of their own, and many to a page, so that the tree grows upwards.
    for (name, records, characters_max) in [("large", 60, 20_000), ("small", 600, 500)] {
        let path = grown(dir.path(), records, characters_max).await;
        assert_eq!(audited(&path).await, Ok(records as u64), "{name}");
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn every_flipped_bit_of_the_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = grown(dir.path(), 12, 9_000).await;
    let whole = fs::read(&path).unwrap();
    for (byte, bit) in places(whole.len()) {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << bit;
        fs::write(&path, flipped).unwrap();
        let found = audited(&path).await;
        assert!(found.is_err(), "bit {bit} of byte {byte}");
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(audited(&path).await, Ok(12));
}

#[tokio::test]
async fn a_file_that_was_cut_or_added_to_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = grown(dir.path(), 12, 9_000).await;
    let whole = fs::read(&path).unwrap();
    let lengths = (0..whole.len()).step_by(1021).chain((0..whole.len()).step_by(4096));
    for length in lengths {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(audited(&path).await.is_err(), "{length} bytes");
        let opened = SqliteLedger::open(&path, signer()).await;
        let replayed = match opened {
            Ok(ledger) => {
                let replayed = ledger.replay(trust(), drop).await.map_err(|e| e.to_string());
                ledger.close().await;
                replayed
            }
            Err(error) => Err(error.to_string()),
        };
        assert!(replayed.is_err(), "{length} bytes: {replayed:?}");
    }
    for more in [1, 4096] {
        fs::write(&path, [&whole[..], &vec![0; more]].concat()).unwrap();
        let found = audited(&path).await.unwrap_err();
        assert!(found.contains("bytes long"), "{found}");
    }
}

#[tokio::test]
async fn a_file_that_is_empty_or_lost_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    fs::write(&path, "").unwrap();
    let said = storage_reason(SqliteLedger::open(&path, signer()).await.unwrap_err());
    assert!(said.starts_with("is empty"), "{said}");
    assert!(fs::read(&path).unwrap().is_empty());
    fs::remove_file(&path).unwrap();
    fs::write(beside(&path, "-wal"), "left").unwrap();
    let said = storage_reason(SqliteLedger::open(&path, signer()).await.unwrap_err());
    assert!(said.starts_with("is missing, and its write-ahead log is there"), "{said}");
    assert!(!path.exists());
}

/// A ledger whose writer was killed: its file, log and index.
async fn killed() -> (TempDir, PathBuf, [Vec<u8>; 3]) {
    let (dir, path, ledger) = fresh().await;
    for last in 0..6 {
        ledger.append(last, drafts(1)).await.unwrap();
    }
    let files = FILES.map(|ending| fs::read(beside(&path, ending)).unwrap());
    ledger.close().await;
    (dir, path, files)
}

const FILES: [&str; 3] = ["", "-wal", "-shm"];

fn put(path: &Path, files: &[Vec<u8>; 3]) {
    for (ending, bytes) in FILES.iter().zip(files) {
        fs::write(beside(path, ending), bytes).unwrap();
    }
}

#[tokio::test]
async fn every_flipped_bit_of_a_killed_writers_log_is_found_and_nothing_is_appended_to_it() {
    let (_dir, path, files) = killed().await;
    put(&path, &files);
    assert_eq!(audited(&path).await, Ok(6));
    assert!(files[1].len() > 6 * 4096, "the log holds all");
    for (byte, bit) in places(files[1].len()) {
        let mut flipped = files.clone();
        flipped[1][byte] ^= 1 << bit;
        put(&path, &flipped);
        assert!(audited(&path).await.is_err(), "bit {bit} of byte {byte}");
        put(&path, &flipped);
        let said = storage_reason(SqliteLedger::open(&path, signer()).await.unwrap_err());
        assert!(said.contains("log is damaged"), "bit {bit} of byte {byte}: {said}");
    }
}

#[tokio::test]
async fn a_log_that_was_cut_is_found() {
    let (_dir, path, files) = killed().await;
    for length in (0..files[1].len()).step_by(397) {
        let mut cut = files.clone();
        cut[1].truncate(length);
        put(&path, &cut);
        assert!(audited(&path).await.is_err(), "{length} bytes");
    }
}

#[tokio::test]
async fn an_append_that_was_cut_off_never_counted() {
    let (_dir, path, files) = killed().await;
    let frame = 24 + 4096;
    let cases =
        [("a header without a page", 24), ("half a page", 2000), ("all but a byte", frame - 1)];
    for (name, length) in cases {
        let mut torn = files.clone();
        let last = torn[1][torn[1].len() - frame..].to_vec();
        torn[1].extend(&last[..length]);
        put(&path, &torn);
        assert_eq!(audited(&path).await, Ok(6), "{name}");
    }
    // Overwriting an earlier round of the log, so that the frame is whole and does not check.
    let mut torn = files.clone();
    let last = torn[1][torn[1].len() - frame..].to_vec();
    torn[1].extend(&last);
    put(&path, &torn);
    assert_eq!(audited(&path).await, Ok(6), "the index knows that it was not appended");
    fs::remove_file(beside(&path, "-shm")).ok();
    put(&path, &torn);
    fs::remove_file(beside(&path, "-shm")).unwrap();
    let said = audited(&path).await.unwrap_err();
    assert!(said.contains("cut off"), "nobody knows whether it was: {said}");
    put(&path, &torn);
    fs::remove_file(beside(&path, "-shm")).unwrap();
    let ledger = SqliteLedger::open(&path, signer()).await.unwrap();
    assert!(matches!(ledger.log_flaw(), Some(LogFlaw::CutOff { .. })));
    assert_eq!(ledger.append(6, drafts(1)).await.map(|records| records.len()), Ok(1));
    ledger.close().await;
}

#[tokio::test]
async fn without_its_index_a_log_shows_damage_that_came_before_the_last_append() {
    let (_dir, _path, files) = killed().await;
    let frames = (files[1].len() - 32) / (24 + 4096);
    for frame in 0..frames {
        for at in [0, 4, 8, 12, 16, 20, 30, 4000] {
            let mut flipped = files.clone();
            flipped[1][32 + frame * (24 + 4096) + at] ^= 4;
            let flaw = wal::check(&flipped[1], &[]);
            assert!(flaw.is_some(), "byte {at} of frame {frame}");
            if frame + 2 < frames {
                let damaged = LogFlaw::Damaged { frame: frame + 1 };
                assert_eq!(flaw, Some(damaged), "byte {at} of frame {frame}");
            }
        }
    }
    assert_eq!(wal::check(&files[1], &[]), None);
}

#[tokio::test]
async fn a_ledger_is_audited_beside_its_writer() {
    let (_dir, path, ledger) = fresh().await;
    for last in 0..40 {
        ledger.append(last, drafts(1)).await.unwrap();
        assert_eq!(audited(&path).await, Ok(last + 1));
    }
    let writing = async {
        for last in 40..200 {
            ledger.append(last, drafts(1)).await.unwrap();
        }
    };
    let auditing = async {
        for _ in 0..30 {
            audited(&path).await.unwrap();
        }
    };
    tokio::join!(writing, auditing);
}

#[tokio::test]
async fn no_flipped_bit_makes_one_known_version_of_sqlite_another() {
    let (_dir, path, ledger) = fresh().await;
    ledger.close().await;
    let made = fs::read(&path).unwrap()[96..100].try_into().map(u32::from_be_bytes).unwrap();
    assert!(pages::SQLITE_VERSIONS.contains(&made), "add {made} to the known versions");
    for (index, one) in pages::SQLITE_VERSIONS.iter().enumerate() {
        for other in &pages::SQLITE_VERSIONS[..index] {
            assert!((one ^ other).count_ones() > 1, "{one} and {other}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_placed() {
    let dir = tempfile::tempdir().unwrap();
    let path = grown(dir.path(), 12, 9_000).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] = 9;
    bytes[72] = 1;
    fs::write(&path, &bytes).unwrap();
    assert!(audited(&path).await.unwrap_err().contains("is of format"));
    bytes[60] = 0;
    fs::write(&path, &bytes).unwrap();
    let ledger = SqliteLedger::open_read_only(&path).await.unwrap();
    assert_eq!(ledger.examine_file().await, Ok(Some(FileFlaw::Page { page: 1, byte: 72 })));
}
