use clap::Parser;

use super::*;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: SimulateArgs,
}

fn simulate(more: &[&str]) -> (Result<u8, String>, String) {
    let base = ["simulate", "--rate", "2/s", "--baseline-ratio", "2%", "--runs", "40"];
    let line = match CommandLine::try_parse_from(base.iter().chain(more)) {
        Ok(line) => line,
        Err(error) => return (Err(error.to_string()), String::new()),
    };
    let mut out = Vec::new();
    let code = run(&line.args, &mut out).map_err(|error| error.to_string());
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn a_seed_gives_the_same_table_and_larger_regressions_are_found_sooner() {
    let args = ["--regressions", "3x,10x", "--format", "csv"];
    let (code, out) = simulate(&args);
    assert_eq!(code, Ok(EXIT_OK));
    assert_eq!(simulate(&args).1, out);
    let field = |row: usize, column: usize| -> f64 {
        out.lines().nth(row).unwrap().split(',').nth(column).unwrap().parse().unwrap()
    };
    assert_eq!(out.lines().count(), 4, "{out}");
    assert!(field(1, 4) <= 1.0, "hardly a false rollback: {out}");
    assert!(field(2, 4) >= 39.0 && field(3, 4) >= 39.0, "{out}");
    assert!(field(2, 8) > field(3, 8), "a larger one is found sooner: {out}");
}

#[test]
fn the_table_says_what_was_simulated_and_what_the_rule_allows() {
    let (_, out) = simulate(&["--ceiling", "5%", "--tolerance", "1.5x", "--regressions", "1.5x"]);
    let head: Vec<&str> = out.lines().take(3).collect();
    insta::assert_snapshot!(head.join("\n"), @"
    ceiling 5%, tolerance 1.5x; at most 0.1% false rollbacks: convicting at 10^3.3
    2 sessions/s, 3m long; the baseline fails 2%; the candidate takes 50%
    observed for 1h every 15s, 6h of history; 40 rollouts a row, seed 1
    ");
    let rows: Vec<&str> = out.lines().filter(|line| line.contains(" yes ")).collect();
    assert_eq!(rows.len(), 2, "both rows are allowed: {out}");
}

#[test]
fn a_rule_of_the_config_is_simulated_with_its_fleets_settings() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/rollbackd.example.yml");
    let args = ["--config", config, "--rule", "SessionsFailing", "--format", "json"];
    let (code, out) = simulate(&args);
    assert_eq!(code, Ok(EXIT_OK), "{out}");
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((out["ceiling"].as_f64(), out["tolerance"].as_f64()), (Some(0.05), Some(1.5)));
    let shorter = [&args[..], &["--observe-for", "10m"]].concat();
    let out: serde_json::Value = serde_json::from_str(&simulate(&shorter).1).unwrap();
    assert_eq!(out["observe_for_seconds"], 600.0);
    let (code, _) = simulate(&["--config", config, "--rule", "Nothing"]);
    assert!(code.unwrap_err().ends_with(
        "0 session rules are called `Nothing`; there are openrtc-sessions/SessionsFailing"
    ));
}

#[test]
fn what_cannot_be_simulated_is_refused_with_what_would_be_right() {
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&["--rate", "2"],               "expected a rate such as `2/s`, `30/m` or `500/h`"),
        (&["--rate", "0/s"],             "expected more than 0 and at most 10000/s"),
        (&["--share", "0%"],             "expected a share such as `50%`, or two as in `5%..95%`"),
        (&["--interval", "10ms"],        "expected at least a second"),
        (&["--regressions", "0.5x"],     "use 1x or more"),
        (&["--observe-for", "1y"],       "has more than 100000 ticks of 15s"),
        (&["--config", "no.yml", "--rule", "R"], "no.yml: failed to read: "),
    ];
    for (args, want) in cases {
        // A later option replaces an earlier one only if clap is told so; these come alone.
        let base = ["simulate", "--baseline-ratio", "2%", "--runs", "1"];
        let rate: &[&str] = if args[0] == "--rate" { &[] } else { &["--rate", "2/s"] };
        let got = CommandLine::try_parse_from(base.iter().chain(rate).chain(*args))
            .map_err(|error| error.to_string())
            .and_then(|line| run(&line.args, &mut Vec::new()).map_err(|e| e.to_string()));
        let got = got.unwrap_err();
        assert!(got.contains(want), "{args:?}: {got}");
    }
}

#[test]
fn the_plot_is_a_page_or_a_picture() {
    let directory = tempfile::tempdir().unwrap();
    for (name, begins) in [("rule.html", "<!doctype html>"), ("rule.svg", "<svg")] {
        let path = directory.path().join(name);
        let (code, _) = simulate(&["--plot", path.to_str().unwrap()]);
        assert_eq!(code, Ok(EXIT_OK));
        let drawn = std::fs::read_to_string(path).unwrap();
        assert!(drawn.starts_with(begins), "{name}");
        assert!(drawn.contains("Rollouts convicted") && drawn.contains("Time to the conviction"));
        assert!(drawn.contains("prefers-color-scheme:dark") && !drawn.contains("\"#"), "{name}");
    }
    let (code, out) = simulate(&["--plot", "/nowhere/rule.svg"]);
    assert!(code.unwrap_err().starts_with("/nowhere/rule.svg: "));
    assert!(out.contains("regression"), "the table is written all the same");
}
