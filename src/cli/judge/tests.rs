//! Files as people have them, right and wrong.

use std::fmt::Write as _;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: JudgeArgs,
}

fn judge(csv: &str, more: &[&str]) -> (Result<u8, String>, String) {
    judge_versions(["v1", "v2"], csv, more)
}

/// `versions`: baseline and candidate.
fn judge_versions(versions: [&str; 2], csv: &str, more: &[&str]) -> (Result<u8, String>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts.csv");
    std::fs::write(&path, csv).unwrap();
    let [baseline, candidate] = versions;
    let file = path.to_str().unwrap();
    let all = ["judge", file, "--baseline", baseline, "--candidate", candidate];
    let line = Line::try_parse_from(all.iter().chain(more)).unwrap();
    let mut out = Vec::new();
    let code = run(&line.args, &mut out).map_err(|error| error.to_string());
    let place = directory.path().display().to_string() + "/";
    (code.map_err(|error| error.replace(&place, "")), String::from_utf8(out).unwrap())
}

fn ticks(count: u64, v2: impl Fn(u64) -> (u64, u64)) -> String {
    let mut csv = "time,version,started,failed\n".to_owned();
    for tick in 0..count {
        let (started, failed) = v2(tick);
        write!(csv, "{},v1,20,0\n{},v2,{started},{failed}\n", tick * 15, tick * 15).unwrap();
    }
    csv
}

#[test]
fn a_regression_is_told_with_its_time_and_exit_code() {
    let (code, out) = judge(&ticks(4, |tick| (20, if tick < 2 { 0 } else { 9 })), &[]);
    assert_eq!(code, Ok(EXIT_REGRESSED));
    insta::assert_snapshot!(out, @r"
    time                       verdict     baseline   ceiling  candidate failed   baseline failed    control
    0                          healthy        -0.30         -        0 of 20            0 of 20      concurrent
    15                         healthy        -0.30         -        0 of 20            0 of 20      concurrent
    30                         suspect         1.87         -        9 of 20            0 of 20      concurrent
    45                         regressed       4.38         -        9 of 20            0 of 20      concurrent

    v2: regressed at 45 after 4 ticks; 18 of 80 sessions failed, of its control 0 of 80; evidence 10^4.4, convicting at 10^3.0, dispersion 1.00
    ");
}

#[test]
fn a_healthy_version_is_not_convicted() {
    let (code, out) = judge(&ticks(40, |_| (20, 0)), &["--ceiling", "5%", "--format", "csv"]);
    assert_eq!(code, Ok(EXIT_OK));
    assert_eq!(out.lines().filter(|line| line.contains(",healthy,")).count(), 40, "{out}");
}

#[test]
fn a_rule_of_a_file_says_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yml");
    let rule = |name: &str, key: &str| {
        format!("      - {{ name: {name}, started: a, failed: b, {key} }}\n")
    };
    let group = "  - name: g\n    fleet: voice\n    regressions:\n";
    let text =
        format!("groups:\n{group}{}{}", rule("A", "ceiling: 30%"), rule("B", "tolerance: 1x"));
    std::fs::write(&path, text).unwrap();
    let counts = ticks(4, |tick| (20, if tick < 2 { 0 } else { 9 }));
    let rules = ["--rules", path.to_str().unwrap()];
    let by = |name: &str| judge(&counts, &[&rules[..], &["--rule", name]].concat());
    let (code, out) = by("g/A");
    assert_eq!(code, Ok(EXIT_OK), "{out}");
    assert!(out.contains("convicting at 10^3.3"), "two tests share the rate: {out}");
    assert_eq!(by("B").0, Ok(EXIT_REGRESSED));
    let error = by("C").0.unwrap_err();
    assert!(error.ends_with("no session rule is called `C`; there are g/A, g/B"), "{error}");
    let error = judge(&counts, &rules).0.unwrap_err();
    assert!(error.ends_with("it has more than one session rule: say `--rule` g/A, g/B"), "{error}");
    std::fs::write(&path, "groups: [{}]").unwrap();
    assert!(by("A").0.unwrap_err().contains("rules.yml:1:10: "));
}

#[test]
fn counters_and_counts_are_judged_alike() {
    let counts = ticks(8, |tick| (20, tick));
    let mut cumulative = "time,version,started,failed,agent\n0,v1,500,3,a\n".to_owned();
    // Each version's counters in two slices; v2's restarts once.
    let (mut started, mut failed) = (0, 0);
    for tick in 0..8_u64 {
        let time = (tick + 1) * 15;
        if tick == 4 {
            (started, failed) = (0, 0);
        }
        (started, failed) = (started + 20, failed + tick);
        writeln!(cumulative, "{time},v1,{},3,a", 500 + (tick + 1) * 20).unwrap();
        writeln!(cumulative, "{time},v2,{started},{failed},a\n{time},v2,0,0,b").unwrap();
    }
    let evidence = |out: &str| -> Vec<String> {
        out.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().to_owned()).collect()
    };
    let (_, of_counts) = judge(&counts, &["--format", "csv"]);
    let (_, of_counters) = judge(&cumulative, &["--format", "csv", "--cumulative"]);
    assert_eq!(evidence(&of_counts), evidence(&of_counters));
    assert_eq!(evidence(&of_counts).len(), 8);
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_line_and_what_was_read_is_kept() {
    #[rustfmt::skip]
    let cases = [
        ("",                                              "counts.csv:1: the column `time` is missing"),
        ("time,version,started\n",                        "counts.csv:1: the column `failed` is missing"),
        ("time,version,started,failed\n0,v1,x,0\n",       "counts.csv:2: `started`: `x` is no whole number"),
        ("time,version,started,failed\n0,v1,-1,0\n",      "counts.csv:2: `started`: `-1` is no whole number"),
        ("time,version,started,failed\nsoon,v1,1,0\n",    "counts.csv:2: `time`: `soon` is neither RFC 3339 nor seconds"),
        ("time,version,started,failed\n15,v1,1,0\n0,v1,1,0\n", "counts.csv:3: `time`: `0` is before the row above"),
        ("time,version,started,failed,live\n0,v1,1,0,NaN\n",   "counts.csv:2: `live`: `NaN` is no number of at least 0"),
        ("time,version,started,failed\n0,v1,1\n",         "counts.csv:2: expected 4 fields, found 3"),
    ];
    for (csv, want) in cases {
        assert_eq!(judge(csv, &[]).0, Err(want.to_owned()), "{csv}");
    }
    let (code, out) = judge(&(ticks(3, |_| (20, 0)) + "60,v1,x,0\n"), &[]);
    assert_eq!(code, Err("counts.csv:8: `started`: `x` is no whole number".to_owned()));
    assert!(out.contains("partial: v2: healthy after"), "{out}");
}

#[test]
fn a_version_that_no_row_has_is_named_with_those_there_are() {
    let ceiling = ["--ceiling", "5%"];
    let failing = ticks(4, |_| (20, 20));
    let only = |version: &str| {
        let kept = failing.lines().filter(|l| l.starts_with("time") || l.contains(version));
        kept.fold(String::new(), |all, line| all + line + "\n")
    };
    let many = (0..30).fold(only(",v1,"), |all, n| all + &format!("60,w{n:02},1,0\n"));
    let (alone, directory) = (only(",v2,"), tempfile::tempdir().unwrap());
    let past = |name: &str, csv: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, csv).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, other) = (past("good.csv", &only(",v1,")), past("other.csv", &only(",v2,")));
    let spelt = |name: &str| failing.replace(",v1,", &format!(",{name},"));
    let v0 = "counts.csv: no row of the baseline `v1`; its versions are v0, v2";
    let no_v2 = "counts.csv: no row of the candidate `v2`; its versions are v1";
    let no_rows = "counts.csv: no row of the candidate `v2`; it has no rows";
    let many_told = format!(
        "{no_v2}, {} and more",
        (0..19).map(|n| format!("w{n:02}")).collect::<Vec<_>>().join(", ")
    );
    #[rustfmt::skip]
    let cases = [
        ("a mistyped candidate",               only(",v1,"), vec![],                  Err(no_v2)),
        ("a mistyped candidate, by a ceiling", only(",v1,"), ceiling.to_vec(),        Err(no_v2)),
        ("of many versions",                   many,         vec![],                  Err(many_told.as_str())),
        ("no rows at all",                     only(",v9,"), vec![],                  Err(no_rows)),
        ("a mistyped baseline",                spelt("v0"),  vec![],                  Err(v0)),
        ("its history, mistyped as well",      spelt("v0"),  vec!["--history", &other], Err(v0)),
        ("both tests need it",                 spelt("v0"),  [&ceiling[..], &["--tolerance", "1x"]].concat(), Err(v0)),
        ("its history stands in for it",       alone.clone(), vec!["--history", &good], Ok(EXIT_REGRESSED)),
        ("a ceiling alone needs none",         alone,        ceiling.to_vec(),        Ok(EXIT_REGRESSED)),
    ];
    for (name, csv, options, want) in cases {
        for format in ["table", "csv", "json"] {
            let options = [&options[..], &["--format", format]].concat();
            let (code, out) = judge(&csv, &options);
            assert_eq!(code, want.map_err(ToOwned::to_owned), "{name}, {format}");
            let closing = out.contains("dispersion") || out.contains("v2: ");
            assert!(want.is_ok() || !closing, "{name}, {format}: no verdict is told: {out}");
        }
    }
    let both = judge_versions(["v2", "v2"], &failing, &[]);
    let want = "counts.csv: `v2` cannot be both the baseline and the candidate";
    assert_eq!(both.0, Err(want.to_owned()));
}

/// Counts of two tenants, one of which v2 fails from the third tick on, and from the eighth both.
fn by_tenant(ticks: u64) -> String {
    let mut csv = "time,version,started,failed,tenant\n".to_owned();
    for tick in 0..ticks {
        let (a, b) = (if tick < 8 { 0 } else { 40 }, if tick < 2 { 0 } else { 15 });
        let at = tick * 15;
        writeln!(csv, "{at},v1,80,0,a\n{at},v1,20,0,b\n{at},v2,80,{a},a\n{at},v2,20,{b},b")
            .unwrap();
    }
    csv
}

#[test]
fn what_one_slice_alone_fails_is_narrow_until_the_rest_fails_too() {
    let (code, out) = judge(&by_tenant(5), &[]);
    assert_eq!(code, Ok(EXIT_NARROW));
    insta::assert_snapshot!(out, @r"
    time                       verdict     baseline   ceiling  candidate failed   baseline failed    control    slice
    0                          healthy        -0.30         -        0 of 100           0 of 100     concurrent
    15                         healthy        -0.30         -        0 of 100           0 of 100     concurrent
    30                         regressed       3.53         -       15 of 100           0 of 100     concurrent tenant b
    45                         regressed       7.82         -       15 of 100           0 of 100     concurrent tenant b
    60                         regressed      12.18         -       15 of 100           0 of 100     concurrent tenant b

    v2: regressed at 30 in tenant b alone after 5 ticks; 45 of 500 sessions failed, of its control 0 of 500; evidence 10^12.2, convicting at 10^3.0, dispersion 1.00; tenant b holds 100% of the excess in 20% of the sessions
    ");
    let (code, out) = judge(&by_tenant(10), &["--format", "json"]);
    assert_eq!(code, Ok(EXIT_REGRESSED));
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[5]["slice"], json!({ "label": "tenant", "value": "b" }));
    let last = &lines[10];
    assert_eq!([&last["narrow_at"], &last["regressed_at"]], ["30", "120"], "{last}");
    assert_eq!(last["slice"], json!(null));
}

#[test]
fn slices_are_the_rules_labels_else_those_named_else_all_further_columns() {
    let counts = by_tenant(5).replace(",tenant\n", ",worker,tenant\n");
    let counts = counts.replace(",a\n", ",w1,a\n").replace(",b\n", ",w2,b\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yml");
    let by_rule = |narrow_by: &str| {
        let rule = format!("{{ name: A, started: a, failed: b, tolerance: 1x{narrow_by} }}");
        let text =
            format!("groups: [{{ name: g, fleet: voice, interval: 15s, regressions: [{rule}] }}]");
        std::fs::write(&path, text).unwrap();
        judge(&counts, &["--rules", path.to_str().unwrap(), "--format", "csv"])
    };
    let slice = |(code, out): (Result<u8, String>, String)| {
        (code.unwrap(), out.lines().last().unwrap().split(',').nth(5).map(ToOwned::to_owned))
    };
    let some = |slice: &str| Some(slice.to_owned());
    let csv = ["--format", "csv"];
    assert_eq!(slice(by_rule("")), (EXIT_REGRESSED, None));
    assert_eq!(slice(by_rule(", narrow_by: [agent, tenant]")), (EXIT_NARROW, some("tenant b")));
    assert_eq!(slice(judge(&counts, &csv)), (EXIT_NARROW, some("worker w2")));
    let named = [&csv[..], &["--narrow-by", "tenant"]].concat();
    assert_eq!(slice(judge(&counts, &named)), (EXIT_NARROW, some("tenant b")));
    let missing = judge(&counts, &["--narrow-by", "agent"]).0;
    assert_eq!(missing, Err("counts.csv:1: the column `agent` is missing".to_owned()));
}

#[test]
fn slices_are_compared_with_their_own_past_and_read_from_counters() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("past.csv");
    // Tenant b always failed so often; its candidate's failures are no excess.
    let past = by_tenant(10).replace(",v1,20,0,b", ",v1,20,15,b");
    std::fs::write(&path, past).unwrap();
    let alone: String = by_tenant(5)
        .lines()
        .filter(|l| !l.contains(",v1,"))
        .fold(String::new(), |all, line| all + line + "\n");
    let file = path.to_str().unwrap();
    let ceiling = ["--history", file, "--tolerance", "1x"];
    assert_eq!(judge(&alone, &ceiling).0, Ok(EXIT_OK));
    std::fs::write(&path, by_tenant(10)).unwrap();
    assert_eq!(judge(&alone, &ceiling).0, Ok(EXIT_NARROW));

    let mut counters = "time,version,started,failed,tenant\n".to_owned();
    for tick in 0..6_u64 {
        let (at, n) = (tick * 15, tick + 1);
        let (a, b) = (80 * n, 20 * n);
        writeln!(counters, "{at},v1,{a},0,a\n{at},v1,{b},0,b").unwrap();
        writeln!(counters, "{at},v2,{a},0,a\n{at},v2,{b},{},b", 15 * n).unwrap();
    }
    assert_eq!(judge(&counters, &["--cumulative"]).0, Ok(EXIT_NARROW));
}
