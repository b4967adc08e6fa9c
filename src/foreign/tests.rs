//! Any bytes, and good ones with something wrong: nothing panics, and nothing is read as what it
//! is not. `make fuzz` goes further, with coverage for a guide.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What the mutations begin with, by reader: the seeds of `scripts/fuzz`.
static SEEDS: LazyLock<BTreeMap<&str, Vec<Vec<u8>>>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |directory: &str| {
        let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        paths.map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let of = |name| match name {
        "rules" => [files("tests/fixtures/rules"), files("rules")].concat(),
        "config" => files("tests/fixtures/config"),
        "web" => files("tests/fixtures/web"),
        _ => files(&format!("fuzz/seeds/{name}")),
    };
    READERS.iter().map(|(name, _)| (*name, of(*name))).collect()
});

/// One thing done to good bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index, u8),
    Insert(Index, Vec<u8>),
    Swap(Index, Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    // What means something to one reader or another.
    let word = prop_oneof![
        Just("NaN"),
        Just("1e999"),
        Just("-1"),
        Just("null"),
        Just("{}"),
        Just("[["),
        Just("\""),
        Just("&a"),
        Just("*a"),
        Just("<<: "),
        Just("!!binary "),
        Just("\u{0}"),
        Just("\u{2028}"),
        Just("%00"),
        Just("{{"),
        Just("}}"),
        Just("("),
        Just("9223372036854775808"),
        Just("\n  "),
    ];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(place, bits)| Mutation::Flip(place, bits)),
        (at(), at()).prop_map(|(from, to)| Mutation::Cut(from, to)),
        (at(), at(), 1_u8..40).prop_map(|(from, to, times)| Mutation::Repeat(from, to, times)),
        (at(), word).prop_map(|(place, word)| Mutation::Insert(place, word.into())),
        (at(), prop::collection::vec(any::<u8>(), 0..16))
            .prop_map(|(place, bytes)| Mutation::Insert(place, bytes)),
        (at(), at(), at()).prop_map(|(a, b, c)| Mutation::Swap(a, b, c)),
    ]
}

impl Mutation {
    fn apply(self, bytes: &mut Vec<u8>) {
        let end = bytes.len() + 1;
        let range = |one: Index, other: Index| {
            let (one, other) = (one.index(end), other.index(end));
            one.min(other)..one.max(other)
        };
        match self {
            Self::Flip(place, bits) => {
                if let Some(byte) = bytes.get_mut(place.index(end)) {
                    *byte ^= bits;
                }
            }
            Self::Cut(from, to) => drop(bytes.drain(range(from, to))),
            Self::Repeat(from, to, times) => {
                let range = range(from, to);
                let part = bytes[range.clone()].repeat(usize::from(times));
                bytes.splice(range, part.into_iter().take(1 << 16));
            }
            Self::Insert(place, new) => {
                let place = place.index(end);
                bytes.splice(place..place, new);
            }
            Self::Swap(from, to, place) => {
                let part: Vec<u8> = bytes.drain(range(from, to)).collect();
                let place = place.index(bytes.len() + 1);
                bytes.splice(place..place, part);
            }
        }
    }
}

/// What `make fuzz` has found, and was not the reader's fault alone.
#[test]
fn findings_stay_mended() {
    read_rules(b"g:r!up\no\r\r\r\r\r\r   regressalertnamee: sessi]sions:0[\n");
}

#[test]
fn every_reader_has_seeds_and_takes_them() {
    for (name, read) in READERS {
        let seeds = &SEEDS[name];
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            read(seed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for (name, read) in READERS {
            if name != "ledger" {
                read(&bytes);
            }
        }
    }

    #[test]
    fn good_bytes_with_something_wrong_are_taken(
        which in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 1..5),
    ) {
        for (name, read) in READERS {
            // A file is written and opened for each: `damage` and the fuzzer do that one.
            if name == "ledger" {
                continue;
            }
            let mut bytes = which.get(&SEEDS[name]).clone();
            for mutation in mutations.clone() {
                mutation.apply(&mut bytes);
            }
            read(&bytes);
        }
    }
}

#[test]
fn what_is_nested_deeply_is_an_error() {
    for (open, close) in
        [("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("- ", ""), ("{{", "}}"), ("-", "")]
    {
        for depth in [100, 10_000, 200_000] {
            let deep = open.repeat(depth) + "1" + &close.repeat(depth);
            for (name, read) in READERS {
                if name != "ledger" {
                    read(deep.as_bytes());
                }
            }
            read_rules(rule_file(&deep).as_bytes());
        }
    }
}

/// A rule file with this for a value rule's expression.
fn rule_file(expression: &str) -> String {
    format!(
        "groups: [{{name: g, fleet: voice, regressions: \
         [{{name: Slow, value: '{expression}', rollback_above: 6, for: 2m}}]}}]"
    )
}

#[test]
fn aliases_do_not_multiply_what_a_file_holds() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{row}]").unwrap();
    }
    read_rules(bomb.as_bytes());
    read_config(bomb.as_bytes());
}
