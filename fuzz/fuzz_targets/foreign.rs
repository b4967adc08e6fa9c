//! One reader of foreign bytes, named by `ROLLBACKD_READER`, under libFuzzer: see `scripts/fuzz`.
//!
//! One program for all of them, so that it is linked once.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rollbackd::foreign::READERS;

static READER: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("ROLLBACKD_READER").unwrap_or_default();
    let Some((_, read)) = READERS.iter().find(|(name, _)| *name == wanted) else {
        let known: Vec<_> = READERS.iter().map(|(name, _)| *name).collect();
        panic!("ROLLBACKD_READER is one of {}", known.join(", "));
    };
    *read
});

fuzz_target!(|bytes: &[u8]| READER(bytes));
