//! Tells the binary which source it is built from.

use std::process::Command;

/// What a command prints; nothing where it cannot be run.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| done.status.success() && !text.is_empty())
}

fn main() {
    println!("cargo::rerun-if-env-changed=ROLLBACKD_REVISION");
    // While working, a commit need not build anything anew: only a release names its revision.
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let revision = std::env::var("ROLLBACKD_REVISION").ok().filter(|text| !text.is_empty());
    let revision = revision.or_else(|| {
        let directory = release.then(|| output("git", &["rev-parse", "--git-dir"])).flatten()?;
        println!("cargo::rerun-if-changed={directory}/logs/HEAD");
        println!("cargo::rerun-if-changed={directory}/HEAD");
        output("git", &["rev-parse", "--short=12", "HEAD"])
    });
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=ROLLBACKD_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=ROLLBACKD_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=ROLLBACKD_TARGET={target}");
}
