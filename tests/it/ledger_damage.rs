//! Bits of a ledger flipped one by one: `audit verify` finds every one.

use std::fs;
use std::path::Path;

use serde_json::{Map, json};

use rollbackd::adapters::ledger::SqliteLedger;
use rollbackd::cli::audit;
use rollbackd::domain::time::Timestamp;
use rollbackd::ledger::record::Draft;
use rollbackd::ports::ledger::Ledger;
use rollbackd::signing::generate_key_file;

/// How many bits; `make reliability` flips 10,000.
fn flips() -> u64 {
    std::env::var("ROLLBACKD_FLIPS").map_or(60, |flips| flips.parse().unwrap())
}

const FILES: [&str; 3] = ["ledger.db", "ledger.db-wal", "ledger.db-shm"];

fn read(directory: &Path) -> [Vec<u8>; 3] {
    FILES.map(|name| fs::read(directory.join(name)).unwrap_or_default())
}

fn write(directory: &Path, files: &[Vec<u8>; 3]) {
    for (name, bytes) in FILES.iter().zip(files) {
        if bytes.is_empty() {
            fs::remove_file(directory.join(name)).ok();
        } else {
            fs::write(directory.join(name), bytes).unwrap();
        }
    }
}

async fn holds(directory: &Path) -> bool {
    let verified = audit::verify(&directory.join(FILES[0]), &[], &[], &mut Vec::new()).await;
    verified.is_ok_and(|code| code == 0)
}

/// `SplitMix64`.
fn mixed(n: u64) -> usize {
    let z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from(z ^ (z >> 31)).unwrap()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "scripts/reliability reads the row")]
async fn every_flipped_bit_of_a_ledger_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path();
    let signer = generate_key_file(&directory.join("key")).unwrap();
    let ledger = SqliteLedger::open(&directory.join(FILES[0]), signer.clone()).await.unwrap();
    let draft = |n: u64| Draft {
        at: Timestamp::from_millis(1_753_000_000_000),
        event: "rollout.decided".into(),
        actor: "rollbackd".into(),
        target: "voice".into(),
        result: "ok".into(),
        version: Some("v2".into()),
        // Now and then more than a page.
        extra: Map::from_iter([("ticks".to_owned(), json!("x".repeat(mixed(n) % 6000)))]),
    };
    for n in 0..12 {
        ledger.append(n, vec![draft(n)]).await.unwrap();
    }
    // As a writer that is killed leaves it, and one that stops in good order.
    let killed = read(directory);
    ledger.close().await;
    let closed = read(directory);
    let states = [(&closed, 0), (&killed, 1)];
    for (files, _) in states {
        write(directory, files);
        assert!(holds(directory).await);
    }
    let mut missed = Vec::new();
    for n in 0..flips() {
        let (files, which) = states[usize::from(n % 2 == 1)];
        let mut flipped = files.clone();
        let bit = mixed(n) % (flipped[which].len() * 8);
        flipped[which][bit / 8] ^= 1 << (bit % 8);
        write(directory, &flipped);
        if holds(directory).await {
            missed.push((FILES[which], bit));
        }
    }
    assert_eq!(missed, [], "bits whose change was not found");
    if std::env::var_os("ROLLBACKD_FLIPS").is_some() {
        println!(
            "| single-bit flips in a ledger detected | every one of 10,000 | {0} of {0} (half in \
             the file, half in the log of a killed writer) |",
            flips()
        );
    }
}
