//! `rollbackd check`: is the configuration good, and the rules with it?

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{Config, parse as config, web};
use crate::rules::parse as rules;

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file; its rule files are checked too
    #[arg(long, short, value_name = "FILE", default_value = "rollbackd.yml")]
    pub config: PathBuf,
}

/// Prints every problem of the config and its rules to `out`, or how much is good.
///
/// Gives the exit code: 0 if there is no problem, else 1.
///
/// # Errors
/// When `out` cannot be written.
pub fn run(args: &Args, out: &mut impl Write) -> io::Result<u8> {
    let config = config::read(&args.config);
    let fleets = config.config.as_ref().map(Config::observation_times);
    let rules = rules::read(&config.rule_files, fleets.as_ref());
    let web_file = config.config.as_ref().and_then(|config| config.web_config_file.as_ref());
    let web = web_file.and_then(|path| web::load(path).err()).unwrap_or_default();
    let problems = config.problems.iter().chain(&web).chain(&rules.problems);
    let mut good = true;
    for problem in problems {
        good = false;
        writeln!(out, "{problem}")?;
    }
    if !good {
        return Ok(1);
    }
    let groups = &rules.rules.groups;
    let count: usize = groups.iter().map(|group| group.sessions.len() + group.values.len()).sum();
    writeln!(
        out,
        "ok: {}, {} in {}",
        counted(config.config.map_or(0, |config| config.fleets.len()), "fleet"),
        counted(count, "rule"),
        counted(rules.files, "file"),
    )?;
    Ok(0)
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str) -> (u8, String) {
        let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(config);
        let mut out = Vec::new();
        let code = run(&Args { config }, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap().replace(env!("CARGO_MANIFEST_DIR"), ""))
    }

    #[test]
    fn the_example_and_the_shipped_rules_are_good() {
        let (code, out) = check("rollbackd.example.yml");
        assert_eq!((code, out.as_str()), (0, "ok: 1 fleet, 1 rule in 1 file\n"));
    }

    #[test]
    fn problems_of_the_config_do_not_hide_those_of_the_rules() {
        let (code, out) = check("tests/fixtures/config/bad_with_rules.yml");
        assert_eq!(code, 1);
        insta::assert_snapshot!(out, @r###"
        /tests/fixtures/config/bad_with_rules.yml:6:9: fleets: expected at least one fleet
        /tests/fixtures/config/../rules/bad.yml:4:15: group "sessions": interval of 500ms is shorter than a second
        /tests/fixtures/config/../rules/bad.yml:8:17: group "sessions", regression "SessionsFailing": `failed` is not a counter selector: expected a metric name, found `sum(`
        /tests/fixtures/config/../rules/bad.yml:9:20: group "sessions", regression "SessionsFailing": tolerance 0.5x would roll back a version better than its baseline; use 1x or more
        /tests/fixtures/config/../rules/bad.yml:10:20: group "sessions", regression "SessionsFailing": `narrow_by`: a label is here twice
        /tests/fixtures/config/../rules/bad.yml:10:35: group "sessions", regression "SessionsFailing": `narrow_by`: `a-b` is not a label name: expected letters, digits and `_`
        /tests/fixtures/config/../rules/bad.yml:11:21: group "sessions", regression "SessionsFailing": `dispersion`: 0.5 is below 1, less spread than chance itself has
        /tests/fixtures/config/../rules/bad.yml:12:33: group "sessions", regression "SessionsFailing": `summary`: unknown placeholder `{{verison}}`; there are `{{version}}`, `{{ratio}}`, `{{baseline}}`, `{{baseline_ratio}}`, `{{value}}`, `{{fleet}}`, `{{slice}}`
        /tests/fixtures/config/../rules/bad.yml:12:57: group "sessions", regression "SessionsFailing": `runbook`: expected text, found a number; put it in quotes
        /tests/fixtures/config/../rules/bad.yml:13:9: group "sessions", regression "SessionsFailing": `failed` is missing
        /tests/fixtures/config/../rules/bad.yml:13:9: group "sessions", regression "SessionsFailing": neither `ceiling` nor `tolerance` is given; use either or both
        /tests/fixtures/config/../rules/bad.yml:13:15: group "sessions", regression "SessionsFailing": a regression of this name is already in the group
        /tests/fixtures/config/../rules/bad.yml:15:15: group "sessions", regression "SessionsFailing": `live` is not a gauge selector: expected no range; rollbackd writes it itself
        /tests/fixtures/config/../rules/bad.yml:19:18: group "sessions", regression "Ceiling": `ceiling`: expected a share above 0 and below 1, such as `5%` or `0.05`
        /tests/fixtures/config/../rules/bad.yml:20:20: group "sessions", regression "Ceiling": `tolerance`: expected a factor such as `1.5x`
        /tests/fixtures/config/../rules/bad.yml:21:9: group "sessions", regression "Ceiling": unknown key `celing`; there are `name`, `started`, `failed`, `live`, `ceiling`, `tolerance`, `dispersion`, `narrow_by`, `annotations`
        /tests/fixtures/config/../rules/bad.yml:22:11: group "sessions": a group of this name is already in this file
        /tests/fixtures/config/../rules/bad.yml:25:18: group "sessions": `regressions`: expected at least one regression
        /tests/fixtures/config/../rules/bad.yml:31:16: group "values", regression "Slow": `value`: not PromQL: unclosed left parenthesis
        /tests/fixtures/config/../rules/bad.yml:33:25: group "values", regression "Slow": rollback_above 1.5 is below escalate_above 6
        /tests/fixtures/config/../rules/bad.yml:34:14: group "values", regression "Slow": `for`: 15s is shorter than the group's interval of 30s
        /tests/fixtures/config/../rules/bad.yml:35:9: group "values", regression "Scalar": neither `escalate_above` nor `rollback_above` is given; use either or both
        /tests/fixtures/config/../rules/bad.yml:36:16: group "values", regression "Scalar": `value`: expected an instant vector, found a scalar
        /tests/fixtures/config/../rules/bad.yml:37:9: group "values", regression "Scalar": unknown key `started`; there are `name`, `value`, `escalate_above`, `rollback_above`, `for`, `annotations`
        /tests/fixtures/config/../rules/bad.yml:38:9: group "values", regression "Nothing": expected `started` and `failed` counters, or a `value`
        /tests/fixtures/config/../rules/bad.yml:39:9: group "values": `name` is missing
        /tests/fixtures/config/../rules/bad.yml:41:5: group "empty": `regressions` is missing
        /tests/fixtures/config/../rules/none*.yml: no rule file matches this pattern
        "###);
    }

    #[test]
    fn a_missing_file_is_named() {
        let (code, out) = check("nowhere.yml");
        assert_eq!(code, 1);
        assert!(out.starts_with("/nowhere.yml: failed to read: "), "{out}");
    }
}
