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

fn verified(trust: Trust, signatures: Signatures, records: &[Record]) -> Result<(), BrokenRecord> {
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
            assert_eq!(check(ending(&signer()), &records[..length]), unknown(length as u64, &new));
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
