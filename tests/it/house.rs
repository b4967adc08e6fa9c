//! Which part of the house may import which, read from the `use` lines.

use std::fs;
use std::path::{Path, PathBuf};

/// Each part and what it may import besides itself, `std` and crates.
#[rustfmt::skip]
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain",     &[]),
    ("plot",       &[]),
    ("simulate",   &["domain"]),
    ("yaml",       &["domain"]),
    ("signing",    &["domain"]),
    ("membership", &["domain"]),
    ("metrics",    &["domain"]),
    ("telemetry",  &[]),
    ("ledger",     &["domain", "signing"]),
    ("rules",      &["domain", "yaml", "signing"]),
    ("config",     &["domain", "yaml", "rules"]),
    ("ports",      &["domain", "ledger"]),
    ("evaluate",   &["domain", "rules", "config", "ports"]),
    ("explain",    &["domain", "ledger", "ports"]),
    ("controller", &["domain", "signing", "metrics", "ledger", "rules", "config", "ports", "evaluate"]),
    ("notices",    &["domain", "signing", "metrics", "ledger", "ports"]),
    ("adapters",   &["domain", "signing", "ledger", "ports"]),
    ("http",       &["domain", "membership", "metrics", "ledger", "ports", "explain"]),
    ("cli",        &["domain", "yaml", "signing", "ledger", "rules", "config", "ports", "adapters", "evaluate", "plot", "simulate"]),
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn part_of(path: &Path, src: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap();
    name.trim_end_matches(".rs").to_owned()
}

#[test]
fn dependencies_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 50, "only {} files read", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let part = part_of(&file, &src);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == part) else {
            assert!(
                ["app", "main", "lib", "foreign"].contains(&part.as_str()),
                "{part} has no place"
            );
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for imported in text.split("crate::").skip(1) {
            let end = imported.find(|c: char| !c.is_alphanumeric() && c != '_');
            let imported = &imported[..end.unwrap_or(imported.len())];
            if imported != part && !allowed.contains(&imported) {
                wrong.push(format!("{} imports {imported}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_neither_waits_nor_logs_nor_reads_or_writes() {
    let domain = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    let mut files = Vec::new();
    rust_files(&domain, &mut files);
    let forbidden = ["async ", "serde::", "tracing::", "tokio::", "std::fs", "std::net", "::now("];
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in forbidden {
            assert!(!code.contains(word), "{} has {word}", file.display());
        }
    }
}
