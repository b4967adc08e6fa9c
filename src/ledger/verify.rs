//! Whether a chain holds, record by record.
//!
//! A chain proves that nothing in it was changed, dropped or put in between. It cannot prove that
//! nothing was cut off its end: a [checkpoint](super::checkpoint) kept elsewhere does.
//!
//! A [rotation](super::rotation) hands over from one key to the next: from that record on, the new
//! key's signatures count in place of the old one's.

use std::collections::BTreeSet;

use super::chain::{FIRST_PREVIOUS, content_hash, stored_hash};
use super::record::{Record, parse_rfc3339, rfc3339};
use super::rotation;
use crate::signing::{self, VerifyError, canonical_json};

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only these public keys, hex, and those that took over from them.
    Keys(BTreeSet<String>),
    /// The key of the first record and those that took over from it, if that ends with this one,
    /// hex. Its signature vouches for all before: see [`super::rotation`].
    EndingWith(String),
    /// Whatever key a record names: shows damage, not forgery.
    AnyKey,
}

/// Which signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Each record's own.
    Every,
    /// Only the last record's, by [`ChainVerifier::finish`]. Its hash covers all records before
    /// it, so nothing in them can have been changed but their own signatures.
    Last,
}

/// The first record that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}: {why}")]
pub struct BrokenRecord {
    /// Where it lies.
    pub seq: u64,
    /// What is wrong with it.
    pub why: Flaw,
}

/// What can be wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not JSON, or not a record's fields.
    #[error("is not a ledger record: {reason}")]
    NotARecord {
        /// What the parser says.
        reason: String,
    },
    /// The same meaning in another spelling.
    #[error("is not written as canonical JSON")]
    NotCanonical,
    /// The store filed it under another number than its own.
    #[error("its place holds record {found}")]
    Misplaced {
        /// The number in the record.
        found: u64,
    },
    /// Records are missing, or one is there twice.
    #[error("expected record {expected} here")]
    Gap {
        /// The number that had to come.
        expected: u64,
    },
    /// Does not name the hash of the record before it.
    #[error("does not follow from the record before it")]
    WrongPrevious,
    /// The content was changed.
    #[error("hash does not match its content")]
    WrongHash,
    /// The signature is not the key's over the hash.
    #[error("signature does not match its hash and key")]
    BadSignature,
    /// A new key takes over that has not agreed to it.
    #[error("names no new key, or one that has not signed for it")]
    BadRotation,
    /// Signed, but not by one who may.
    #[error("signed with the key {key}, which is not trusted")]
    UnknownKey {
        /// The key, hex.
        key: String,
    },
}

/// What a verified chain amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many records, which is also the last `seq`.
    pub records: u64,
    /// The first record's timestamp.
    pub first: Option<String>,
    /// The last record's timestamp.
    pub last: Option<String>,
    /// The last record's hash; 64 zeros if there is none.
    pub head: String,
    /// The keys that signed, or took over.
    pub keys: BTreeSet<String>,
}

/// Takes the records one by one from the first; holds no more than the last one's hash.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    trust: Trust,
    signatures: Signatures,
    /// The key in force, where it is not among the trusted ones from the start.
    current: Option<String>,
    /// The last record's key and signature, where they have not been checked.
    unchecked: Option<(String, String)>,
    summary: Summary,
}

impl ChainVerifier {
    /// Ready for record 1; every signature will be checked.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self::with(trust, Signatures::Every)
    }

    /// Ready for record 1.
    #[must_use]
    pub fn with(trust: Trust, signatures: Signatures) -> Self {
        let summary = Summary {
            records: 0,
            first: None,
            last: None,
            head: FIRST_PREVIOUS.to_owned(),
            keys: BTreeSet::new(),
        };
        Self { trust, signatures, current: None, unchecked: None, summary }
    }

    /// Checks the next record as it is stored: its place and its exact bytes.
    ///
    /// # Errors
    /// The record's place and what is wrong; the verifier has not moved on.
    pub fn check_stored(&mut self, seq: u64, json: &[u8]) -> Result<Record, BrokenRecord> {
        let broken = |why| BrokenRecord { seq, why };
        let not_a_record =
            |error: serde_json::Error| broken(Flaw::NotARecord { reason: error.to_string() });
        let record: Record = serde_json::from_slice(json).map_err(not_a_record)?;
        if record.seq != seq {
            return Err(broken(Flaw::Misplaced { found: record.seq }));
        }
        if canonical_json(&record).map_err(not_a_record)? != json {
            return Err(broken(Flaw::NotCanonical));
        }
        let hash = stored_hash(json, &record).ok_or_else(|| broken(Flaw::NotCanonical))?;
        self.take(&record, &hash)?;
        Ok(record)
    }

    /// Checks the next record.
    ///
    /// # Errors
    /// The record's number and what is wrong; the verifier has not moved on.
    pub fn check(&mut self, record: &Record) -> Result<(), BrokenRecord> {
        let hash = content_hash(record).map_err(|error| BrokenRecord {
            seq: record.seq,
            why: Flaw::NotARecord { reason: error.to_string() },
        })?;
        self.take(record, &hash)
    }

    /// Checks what was left out: the last record's signature, and whether the key in force is the
    /// one it had to end with.
    ///
    /// # Errors
    /// When it is not its key's, or another key is in force.
    pub fn finish(self) -> Result<Summary, BrokenRecord> {
        let broken = |why| BrokenRecord { seq: self.summary.records, why };
        if let (Trust::EndingWith(last), Some(current)) = (&self.trust, &self.current)
            && last != current
        {
            return Err(broken(Flaw::UnknownKey { key: current.clone() }));
        }
        if let Some((key, signature)) = &self.unchecked {
            let mut hash = [0; 32];
            hex::decode_to_slice(&self.summary.head, &mut hash)
                .map_err(|_| broken(Flaw::WrongHash))?;
            signing::verify(key, &hash, signature).map_err(|_| broken(Flaw::BadSignature))?;
        }
        Ok(self.summary)
    }

    fn take(&mut self, record: &Record, hash: &[u8; 32]) -> Result<(), BrokenRecord> {
        let broken = |why| BrokenRecord { seq: record.seq, why };
        self.flaw(record, hash).map_err(broken)?;
        let next = rotation::new_key(record).map(|new| new.ok_or(broken(Flaw::BadRotation)));
        let next = next.transpose()?;
        self.hand_over(record, next);
        self.summary.keys.extend(next.map(str::to_owned));
        if self.signatures == Signatures::Last {
            self.unchecked = Some((record.key.clone(), record.signature.clone()));
        }
        self.summary.records = record.seq;
        self.summary.first.get_or_insert_with(|| record.timestamp.clone());
        self.summary.last = Some(record.timestamp.clone());
        self.summary.head.clone_from(&record.hash);
        if !self.summary.keys.contains(&record.key) {
            self.summary.keys.insert(record.key.clone());
        }
        Ok(())
    }

    /// From `record` on, its key or the `next` one is in force.
    fn hand_over(&mut self, record: &Record, next: Option<&str>) {
        match (&mut self.trust, next) {
            (Trust::Keys(keys), Some(next)) => {
                keys.remove(&record.key);
                keys.insert(next.to_owned());
            }
            (Trust::EndingWith(_), next) => {
                if self.current.is_none() || next.is_some() {
                    self.current = Some(next.unwrap_or(&record.key).to_owned());
                }
            }
            (Trust::Keys(_), None) | (Trust::AnyKey, _) => {}
        }
    }

    /// What has been verified so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn flaw(&self, record: &Record, hash: &[u8; 32]) -> Result<(), Flaw> {
        let expected = self.summary.records + 1;
        if record.seq != expected {
            return Err(Flaw::Gap { expected });
        }
        if record.previous != self.summary.head {
            return Err(Flaw::WrongPrevious);
        }
        if record.hash != hex::encode(hash) {
            return Err(Flaw::WrongHash);
        }
        match &self.trust {
            Trust::Keys(keys) if !keys.contains(&record.key) => {
                return Err(Flaw::UnknownKey { key: record.key.clone() });
            }
            Trust::EndingWith(_) if self.current.as_ref().is_some_and(|key| *key != record.key) => {
                return Err(Flaw::UnknownKey { key: record.key.clone() });
            }
            Trust::Keys(_) | Trust::EndingWith(_) | Trust::AnyKey => {}
        }
        if self.signatures == Signatures::Every {
            signing::verify(&record.key, hash, &record.signature).map_err(|error| match error {
                VerifyError::Key | VerifyError::Signature => Flaw::BadSignature,
            })?;
        }
        if parse_rfc3339(&record.timestamp).map(rfc3339).as_ref() != Some(&record.timestamp) {
            let reason = format!("`{}` is no UTC time with milliseconds", record.timestamp);
            return Err(Flaw::NotARecord { reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::domain::time::Timestamp;
    use crate::ledger::chain::seal;
    use crate::ledger::record::Draft;
    use crate::signing::Signer;

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32])
    }

    fn trust() -> Trust {
        Trust::Keys(BTreeSet::from([signer().public_key().to_owned()]))
    }

    fn draft(n: i64) -> Draft {
        Draft {
            at: Timestamp::from_millis(1_767_225_600_000 + n),
            event: "rollout.promoted".into(),
            actor: "rollbackd".into(),
            target: "voice".into(),
            result: "ok".into(),
            version: Some(format!("v{n}")),
            extra: Map::from_iter([("reason".to_owned(), json!("clean"))]),
        }
    }

    fn chain(drafts: impl IntoIterator<Item = Draft>) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for (draft, seq) in drafts.into_iter().zip(1..) {
            let previous = records.last().map_or(FIRST_PREVIOUS, |last| &last.hash).to_owned();
            records.push(seal(draft, seq, &previous, &signer()).unwrap());
        }
        records
    }

    fn flaw_of(records: &[Record]) -> Option<BrokenRecord> {
        let mut verifier = ChainVerifier::new(trust());
        records.iter().find_map(|record| verifier.check(record).err())
    }

    #[test]
    fn a_whole_chain_holds_and_is_summed_up() {
        let records = chain((0..3).map(draft));
        let mut verifier = ChainVerifier::new(trust());
        for record in &records {
            verifier.check(record).unwrap();
        }
        let summary = verifier.summary();
        assert_eq!((summary.records, &summary.head), (3, &records[2].hash));
        assert_eq!(summary.first.as_deref(), Some("2026-01-01T00:00:00.000Z"));
        assert_eq!(summary.last.as_deref(), Some("2026-01-01T00:00:00.002Z"));
    }

    type Tampering = (&'static str, fn(&mut Record), Flaw);

    #[test]
    fn a_change_to_any_field_is_found() {
        #[rustfmt::skip]
        let cases: [Tampering; 13] = [
            ("seq",           |r| r.seq += 1,                                 Flaw::Gap { expected: 2 }),
            ("timestamp",     |r| r.timestamp = "2026-01-01T00:00:00.009Z".into(), Flaw::WrongHash),
            ("event",         |r| r.event.push('x'),                          Flaw::WrongHash),
            ("actor",         |r| r.actor = "someone".into(),                 Flaw::WrongHash),
            ("target",        |r| r.target.clear(),                           Flaw::WrongHash),
            ("result",        |r| r.result = "failed".into(),                 Flaw::WrongHash),
            ("version",       |r| r.version = None,                           Flaw::WrongHash),
            ("previous",      |r| r.previous = FIRST_PREVIOUS.into(),         Flaw::WrongPrevious),
            ("hash",          |r| r.hash = FIRST_PREVIOUS.into(),             Flaw::WrongHash),
            ("signature",     |r| r.signature = "00".repeat(64),              Flaw::BadSignature),
            ("key",           |r| r.key = "00".repeat(32),                    Flaw::WrongHash),
            ("extra changed", |r| r.extra["reason"] = Value::Null,            Flaw::WrongHash),
            ("extra added",   |r| { r.extra.insert("a".into(), json!(1)); },  Flaw::WrongHash),
        ];
        for (name, tamper, why) in cases {
            let mut records = chain((0..3).map(draft));
            tamper(&mut records[1]);
            assert_eq!(flaw_of(&records).map(|broken| broken.why), Some(why), "{name}");
        }
    }

    #[test]
    fn records_dropped_repeated_swapped_or_forked_are_found() {
        let whole = chain((0..3).map(draft));
        let at = |seq, why| Some(BrokenRecord { seq, why });
        let pick = |picked: [usize; 2]| picked.map(|index| whole[index].clone());
        assert_eq!(flaw_of(&pick([1, 2])), at(2, Flaw::Gap { expected: 1 }));
        assert_eq!(flaw_of(&pick([0, 2])), at(3, Flaw::Gap { expected: 2 }));
        assert_eq!(flaw_of(&pick([0, 0])), at(1, Flaw::Gap { expected: 2 }));
        let fork = seal(draft(9), 3, &whole[0].hash, &signer()).unwrap();
        let forked = [whole[0].clone(), whole[1].clone(), fork];
        assert_eq!(flaw_of(&forked), at(3, Flaw::WrongPrevious));
    }

    #[test]
    fn a_record_signed_by_a_stranger_is_found_unless_any_key_will_do() {
        let stranger = Signer::from_seed(&[8; 32]);
        let record = seal(draft(0), 1, FIRST_PREVIOUS, &stranger).unwrap();
        let key = stranger.public_key().to_owned();
        assert_eq!(
            ChainVerifier::new(trust()).check(&record).unwrap_err().why,
            Flaw::UnknownKey { key }
        );
        ChainVerifier::new(Trust::AnyKey).check(&record).unwrap();
    }

    #[test]
    fn another_spelling_or_place_of_a_stored_record_is_found() {
        let record = chain([draft(0)]).remove(0);
        let json = String::from_utf8(canonical_json(&record).unwrap()).unwrap();
        let check = |seq, json: &str| {
            let result = ChainVerifier::new(trust()).check_stored(seq, json.as_bytes());
            result.map_err(|broken| broken.why)
        };
        assert_eq!(check(1, &json), Ok(record));
        assert_eq!(check(2, &json), Err(Flaw::Misplaced { found: 1 }));
        let spaced = json.replace("\"seq\":", "\"seq\": ");
        assert_eq!(check(1, &spaced), Err(Flaw::NotCanonical));
        assert!(matches!(check(1, &json[1..]), Err(Flaw::NotARecord { .. })));
    }

    /// Two records by the first key, a rotation, and `after` by the second.
    fn rotated(after: u64) -> (Vec<Record>, Signer) {
        let new = Signer::from_seed(&[9; 32]);
        let mut records = chain([draft(0), draft(1)]);
        let word = rotation::Word { actor: "ada".to_owned(), reason: "yearly".to_owned() };
        let head = records[1].hash.clone();
        let at = Timestamp::from_millis(2);
        let drafted = rotation::draft(at, signer().public_key(), &new, &head, word);
        records.push(seal(drafted, 3, &head, &signer()).unwrap());
        for n in 0..after {
            let head = records.last().unwrap().hash.clone();
            records.push(seal(draft(3), 4 + n, &head, &new).unwrap());
        }
        (records, new)
    }

    fn verified(
        trust: Trust,
        signatures: Signatures,
        records: &[Record],
    ) -> Result<(), BrokenRecord> {
        let mut verifier = ChainVerifier::with(trust, signatures);
        records.iter().try_for_each(|record| verifier.check(record))?;
        verifier.finish().map(drop)
    }

    #[test]
    fn a_key_that_took_over_is_followed_from_the_first_and_back_from_the_last() {
        let (records, new) = rotated(2);
        let only = |key: &Signer| Trust::Keys(BTreeSet::from([key.public_key().to_owned()]));
        let ending = |key: &Signer| Trust::EndingWith(key.public_key().to_owned());
        let unknown = |seq, key: &Signer| {
            let why = Flaw::UnknownKey { key: key.public_key().to_owned() };
            Err(BrokenRecord { seq, why })
        };
        for signatures in [Signatures::Every, Signatures::Last] {
            let check = |trust, records: &[Record]| verified(trust, signatures, records);
            for length in 3..=5 {
                assert_eq!(check(only(&signer()), &records[..length]), Ok(()));
                assert_eq!(check(ending(&new), &records[..length]), Ok(()));
                assert_eq!(
                    check(ending(&signer()), &records[..length]),
                    unknown(length as u64, &new)
                );
            }
            assert_eq!(check(Trust::AnyKey, &records), Ok(()));
            assert_eq!(check(ending(&signer()), &records[..2]), Ok(()), "before it was rotated");
            assert_eq!(check(only(&new), &records), unknown(1, &signer()), "give the first key");
            // The old key signs no more.
            let mut late = records[..4].to_vec();
            late.push(seal(draft(4), 5, &late[3].hash, &signer()).unwrap());
            assert_eq!(check(only(&signer()), &late), unknown(5, &signer()));
            assert_eq!(check(ending(&new), &late), unknown(5, &signer()));
        }
    }

    #[test]
    fn nobody_takes_over_who_has_not_agreed_to_what() {
        let (records, new) = rotated(0);
        let stranger = Signer::from_seed(&[10; 32]);
        let forged = |change: &dyn Fn(&mut Draft)| {
            let word = rotation::Word { actor: String::new(), reason: String::new() };
            let at = Timestamp::from_millis(2);
            let (old, previous) = (signer().public_key().to_owned(), &records[1].hash);
            let mut drafted = rotation::draft(at, &old, &new, previous, word);
            change(&mut drafted);
            let sealed = seal(drafted, 3, previous, &signer()).unwrap();
            let chain = [&records[..2], &[sealed]].concat();
            verified(Trust::EndingWith(new.public_key().to_owned()), Signatures::Last, &chain)
        };
        assert_eq!(forged(&|_| {}), Ok(()));
        let refused = Err(BrokenRecord { seq: 3, why: Flaw::BadRotation });
        let named = |key: &Signer| Value::from(key.public_key());
        let proof = |bytes: &[u8]| Value::from(new.sign(bytes));
        assert_eq!(forged(&|d| drop(d.extra.remove("new_key_signature"))), refused);
        assert_eq!(forged(&|d| drop(d.extra.remove("new_key"))), refused);
        assert_eq!(forged(&|d| d.extra["new_key"] = named(&stranger)), refused);
        assert_eq!(forged(&|d| d.extra["new_key_signature"] = proof(b"something else")), refused);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    prop_compose! {
        fn any_draft()(
            at in -62_135_596_800_000_i64..253_402_300_799_999,
            texts in prop::array::uniform4(any::<String>()),
            version in any::<Option<String>>(),
            extra in prop::collection::btree_map("x[a-zé\u{10000}]{0,5}", value(), 0..5),
        ) -> Draft {
            let [event, actor, target, result] = texts;
            let extra = extra.into_iter().collect();
            Draft { at: Timestamp::from_millis(at), event, actor, target, result, version, extra }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_drafts_seal_and_verify_and_any_flipped_bit_is_found(
            drafts in prop::collection::vec(any_draft(), 1..5),
            which in any::<prop::sample::Index>(),
            byte in any::<prop::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let records = chain(drafts);
            let mut stored: Vec<_> = records.iter().map(|r| canonical_json(r).unwrap()).collect();
            let verify = |stored: &[Vec<u8>], trust: Trust| -> Result<Vec<Record>, BrokenRecord> {
                let mut verifier = ChainVerifier::new(trust);
                stored.iter().zip(1..).map(|(json, seq)| verifier.check_stored(seq, json)).collect()
            };
            prop_assert_eq!(verify(&stored, trust()), Ok(records));

            let which = which.index(stored.len());
            let byte = byte.index(stored[which].len());
            stored[which][byte] ^= 1_u8 << bit;
            for trust in [trust(), Trust::AnyKey] {
                let broken = verify(&stored, trust).unwrap_err();
                prop_assert_eq!(broken.seq, which as u64 + 1);
            }
        }
    }
}
