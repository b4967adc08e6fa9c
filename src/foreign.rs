//! Everything that reads foreign bytes, under one roof, for the fuzzer and the property tests.
//!
//! Each takes whatever it is given. A panic is a finding, and so is what it asserts: that what was
//! read is as good as it says. Compiled for tests and `make fuzz` only.

use std::path::Path;
use std::time::Duration;

use crate::adapters::{ledger, prometheus};
use crate::config;
use crate::domain::membership::Heartbeat;
use crate::domain::template;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::http::foreign as http;
use crate::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::ledger::event;
use crate::ledger::record::Record;
use crate::ledger::verify::{ChainVerifier, Signatures, Trust};
use crate::membership::{MembershipVerifier, python_repr, sign_membership};
use crate::rules;
use crate::signing::{Signer, canonical_json};
use crate::yaml::Problem;

/// Takes any bytes.
pub type Reader = fn(&[u8]);

/// The readers by name, as `fuzz/` and `scripts/fuzz` know them.
pub const READERS: [(&str, Reader); 12] = [
    ("rules", read_rules),
    ("config", read_config),
    ("web", read_web_config),
    ("webhook", http::read_webhook),
    ("heartbeat", http::read_heartbeat),
    ("order", http::read_order),
    ("answer", prometheus::read_foreign_answer),
    ("record", read_record),
    ("ledger", ledger::foreign::read_file),
    ("log", ledger::foreign::read_log),
    ("token", read_token),
    ("note", read_note),
];

/// A rule file.
fn read_rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (groups, problems) = rules::parse::parse(text, "rules.yml", None);
    placed(text, &problems);
    if problems.is_empty() {
        let (again, _) = rules::parse::parse(text, "rules.yml", None);
        assert_eq!(groups, again, "the same text was read as something else");
    }
}

/// A config file.
fn read_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = config::parse::parse(text, Path::new("rollbackd.yml"));
    placed(text, &parsed.problems);
    assert!(parsed.config.is_some() || !parsed.problems.is_empty(), "refused without a word");
}

/// A web config file.
fn read_web_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = config::web::parse(text, Path::new("web.yml")) {
        placed(text, &problems);
        assert!(!problems.is_empty(), "refused without a word");
    }
}

/// A checkpoint. Nobody signs one by chance, and what is signed again verifies.
fn read_note(bytes: &[u8]) {
    let Ok(note) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = SignedCheckpoint::read(note) else { return };
    let signer = Signer::from_seed(&[9; 32]);
    assert!(read.verify([signer.public_key()]).is_err(), "a signature was guessed");
    let size = read.size();
    let own = Checkpoint::new(&"ab".repeat(32), size, &"cd".repeat(32)).sign(&signer);
    let own =
        SignedCheckpoint::read(&own).and_then(|own| own.verify([signer.public_key()]).cloned());
    assert_eq!(own.map(|own| own.size).ok(), Some(size), "its own note is not read");
}

/// Every problem is somewhere in the file, and says something.
fn placed(text: &str, problems: &[Problem]) {
    // A carriage return alone breaks a line too, in YAML.
    let lines = text.split(['\n', '\r']).count();
    for problem in problems {
        assert!(!problem.message.is_empty(), "{problem:?}");
        let line = problem.place.map_or(1, |place| place.line);
        assert!(
            usize::try_from(line).is_ok_and(|line| (1..=lines + 1).contains(&line)),
            "{problem}"
        );
    }
}

/// A stored record, and the happening in it.
fn read_record(bytes: &[u8]) {
    let mut verifier = ChainVerifier::with(Trust::AnyKey, Signatures::Last);
    if let Ok(record) = verifier.check_stored(1, bytes) {
        assert_eq!(canonical_json(&record).ok().as_deref(), Some(bytes), "read as something else");
    }
    if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
        // Whether it reads is one thing; that it tells at all, another.
        drop(event::from_record(&record));
    }
}

/// A membership token and what it is for; texts with placeholders.
fn read_token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let number = bytes.first_chunk::<8>().map_or(0.0, |first| f64::from_le_bytes(*first));
    let written: Option<f64> = python_repr(number).parse().ok();
    if number.is_finite() {
        assert_eq!(
            written.map(f64::to_bits),
            Some(number.to_bits()),
            "{number:?} as Python has it"
        );
    }
    let Ok(verifier) = MembershipVerifier::new(vec![b"secret".to_vec()], Duration::from_mins(5))
    else {
        return;
    };
    let now = Timestamp::from_millis(1_753_000_000_000);
    let (token, worker_id) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(version) = worker_id.parse::<Version>() else { return };
    let claim = |token: String, timestamp_seconds| Heartbeat {
        fleet: "voice".to_owned(),
        worker_id: worker_id.to_owned(),
        version: version.clone(),
        draining: false,
        active_sessions: 0,
        timestamp_seconds,
        token,
    };
    assert!(verifier.verify(&claim(token.to_owned(), number), now).is_err(), "a token was guessed");
    let good = sign_membership(version.as_str(), worker_id, now.as_seconds(), b"secret");
    assert!(verifier.verify(&claim(good, now.as_seconds()), now).is_ok(), "a good one is refused");
    if template::check(&text, &["version"]).is_ok() {
        let filled = template::expand(&text, |name| (name == "version").then(|| "v".to_owned()));
        assert!(filled.len() <= text.len(), "a placeholder was not filled in: {filled}");
    }
}

#[cfg(test)]
mod tests;
