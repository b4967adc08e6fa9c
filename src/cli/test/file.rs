//! A test file, in promtool's shape: all its problems are told at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::inputs::{Input, Inputs, ValueInput};
use super::series;
use crate::config::{self, FleetConfig};
use crate::domain::narrow::Slice;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::rules::{self, Group, RuleSet};
use crate::yaml::values::{self, Read};
use crate::yaml::{self, Map, Node, Place, Problem, Problems, Scope, Value};

/// The interval between samples of a file that does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_mins(1);

/// What a decision test may expect.
const DECISIONS: &[&str] =
    &["none", "wait", "promote", "roll_back", "fix_forward", "escalate", "hold"];

/// What a verdict test may expect.
const VERDICTS: &[&str] =
    &["none", "healthy", "suspect", "regressed", "no_data", "outage", "pending", "over"];

/// A file that reads.
pub(super) struct TestFile {
    pub(super) fleets: Vec<FleetConfig>,
    pub(super) rules: RuleSet,
    pub(super) tests: Vec<Test>,
}

/// One test: what was scraped, and what is to come of it.
pub(super) struct Test {
    pub(super) name: String,
    /// The version that is good already when the test begins.
    pub(super) baseline: Option<Version>,
    pub(super) inputs: Inputs,
    pub(super) expected: Vec<Expected>,
}

/// What is to hold at a time.
pub(super) struct Expected {
    pub(super) place: Place,
    /// As it is written.
    pub(super) eval_time: String,
    pub(super) at: Timestamp,
    /// As `status` shows it.
    pub(super) fleet: String,
    pub(super) version: Version,
    /// The rule whose verdict it is, `group/rule`; none: the decision on the version.
    pub(super) rule: Option<String>,
    pub(super) word: &'static str,
    /// The slice that is to be mended.
    pub(super) slice: Option<Slice>,
}

impl Expected {
    /// For people: the word, and the slice that it is to be about.
    pub(super) fn text(&self) -> String {
        match &self.slice {
            Some(slice) => format!("{} of {slice}", self.word),
            None => self.word.to_owned(),
        }
    }
}

/// Reads the test file at `path`, the rules it tests and the config they are for.
pub(super) fn read(path: &Path) -> Result<TestFile, Vec<Problem>> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![Problem::of_file(file.clone(), format!("failed to read: {error}"))]
    })?;
    let problems = Problems::of(file);
    let read = yaml::parse(&text, &problems).and_then(|node| {
        let map = Map::of(&node, Scope::Path(String::new()), &problems)?;
        Some(top(map, path.parent().unwrap_or(Path::new(""))))
    });
    let mut all = problems.into_sorted();
    match read {
        Some(Ok(read)) if all.is_empty() => Ok(read),
        Some(Err(others)) => {
            all.extend(others);
            Err(all)
        }
        Some(Ok(_)) | None => Err(all),
    }
}

/// The file as far as it reads, or the problems of the files it names.
fn top(mut map: Map<'_, '_>, base: &Path) -> Result<TestFile, Vec<Problem>> {
    map.require("rule_files");
    let patterns: Vec<String> = map.list("rule_files", values::text);
    let patterns: Vec<String> =
        patterns.iter().map(|pattern| base.join(pattern).display().to_string()).collect();
    let config_file = map.optional("config_file", values::text).map(|file| base.join(file));
    let interval = map.optional("evaluation_interval", values::duration);
    let named = subject(&patterns, config_file);
    let mut tests = Vec::new();
    map.require("tests");
    for test in map.children("tests") {
        let subject = named.as_ref().ok();
        tests.push(self::test(test, interval.unwrap_or(INTERVAL_DEFAULT), subject));
    }
    map.require_some("tests", "test");
    map.finish();
    let (fleets, rules) = named?;
    Ok(TestFile { fleets, rules, tests })
}

type Subject = (Vec<FleetConfig>, RuleSet);

/// The rules, and the fleets they are for: those of the config, or with default settings.
fn subject(patterns: &[String], config_file: Option<PathBuf>) -> Result<Subject, Vec<Problem>> {
    let config = if let Some(path) = config_file {
        config::parse::load(&path)?
    } else {
        let names = rules::parse::read(patterns, None);
        if !names.problems.is_empty() {
            return Err(names.problems);
        }
        defaults(&names.rules.groups)?
    };
    let rules = rules::parse::load(patterns, &config.fleet_traits())?;
    Ok((config.fleets, rules))
}

/// A config with the fleets of some groups and nothing said of them.
fn defaults(groups: &[Group]) -> Result<config::Config, Vec<Problem>> {
    let fleets: std::collections::BTreeSet<&str> =
        groups.iter().map(|group| group.fleet.as_str()).collect();
    let fleets: Vec<serde_json::Value> = fleets
        .into_iter()
        .map(|name| {
            let drain = serde_json::json!({ "manifest": {} });
            serde_json::json!({ "name": name, "workers": "rollbackd_test_worker", "drain": drain })
        })
        .collect();
    let text = serde_json::json!({
        "prometheus": { "url": "http://127.0.0.1:9090" },
        "listen": "127.0.0.1:9788",
        "rule_files": ["*"],
        "ledger": "sqlite:rollbackd.db",
        "signing_key_file": "rollbackd.key",
        "fleets": fleets,
    });
    let parsed = config::parse::parse(&text.to_string(), Path::new("the default config"));
    parsed.config.ok_or(parsed.problems)
}

fn test(mut map: Map<'_, '_>, interval: Duration, subject: Option<&Subject>) -> Test {
    let name = map.optional("name", values::text).unwrap_or_else(|| "unnamed".to_owned());
    let interval = map.optional("interval", values::duration).unwrap_or(interval);
    let baseline = map.optional("baseline", values::parsed::<Version>);
    map.require("input_series");
    let series = map.children("input_series").into_iter().filter_map(input).collect();
    map.require_some("input_series", "series");
    let values = map.children("input_values");
    let values = values.into_iter().filter_map(|map| value_input(map, subject)).collect();
    let mut expected = Vec::new();
    for entry in map.children("verdict_test") {
        expected.extend(verdict_test(entry, subject));
    }
    for entry in map.children("decision_test") {
        expected.extend(decision_test(entry, subject));
    }
    if !map.has("verdict_test") && !map.has("decision_test") {
        map.fault_whole("neither `verdict_test` nor `decision_test` is given; use either or both");
    }
    map.finish();
    Test { name, baseline, inputs: Inputs { interval, series, values }, expected }
}

fn input(mut map: Map<'_, '_>) -> Option<Input> {
    let input = map.required("series", |node| series::labels(&values::text(node)?));
    let samples = map.required("values", |node| series::samples(&values::text(node)?));
    map.finish();
    Some(Input { samples: samples?, ..input? })
}

fn value_input(mut map: Map<'_, '_>, subject: Option<&Subject>) -> Option<ValueInput> {
    let rule = map.required("rule", |node| named(node, subject, &[Kind::Value]));
    let version = map.required("version", values::parsed::<Version>);
    let labels = map.texts("labels", |_, _| Ok::<(), String>(()));
    let samples = map.required("values", |node| series::samples(&values::text(node)?));
    map.finish();
    let (rule, fleet) = rule?;
    let mut labels: BTreeMap<String, String> = labels;
    let config = subject?.0.iter().find(|config| config.name.as_str() == fleet)?;
    labels.insert(config.version_label.clone(), version?.to_string());
    Some(ValueInput { rule, labels, samples: samples? })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Session,
    Value,
}

/// A rule by its name, or by `group/rule` where that is not enough; gives `group/rule` and fleet.
fn named(node: &Node, subject: Option<&Subject>, kinds: &[Kind]) -> Read<(String, String)> {
    let text = values::text(node)?;
    let Some((_, rules)) = subject else { return Ok((text, String::new())) };
    let mut found = Vec::new();
    let mut all = Vec::new();
    for group in &rules.groups {
        let sessions = group.sessions.iter().map(|rule| (Kind::Session, &rule.name));
        let values = group.values.iter().map(|rule| (Kind::Value, &rule.name));
        for (_, name) in sessions.chain(values).filter(|(kind, _)| kinds.contains(kind)) {
            let full = format!("{}/{name}", group.name);
            all.push(format!("`{full}`"));
            if text == *name || text == full {
                found.push((full, group.fleet.to_string()));
            }
        }
    }
    match found.len() {
        1 => found.pop().ok_or_else(String::new),
        0 => Err(format!("no such rule; there are {}", all.join(", "))),
        _ => Err(format!("more than one group has a rule `{text}`; say `group/{text}`")),
    }
}

fn verdict_test(mut map: Map<'_, '_>, subject: Option<&Subject>) -> Option<Expected> {
    let place = map.place_of("");
    let time = map.required("eval_time", eval_time);
    let rule = map.required("rule", |node| named(node, subject, &[Kind::Session, Kind::Value]));
    let version = map.required("version", values::parsed::<Version>);
    let fleet = map.optional("fleet", values::text);
    let word = map.required("exp_verdict", |node| one_of(node, VERDICTS));
    map.finish();
    let (rule, entry) = rule?;
    let (eval_time, at) = time?;
    Some(Expected {
        place,
        eval_time,
        at,
        fleet: fleet.unwrap_or(entry),
        version: version?,
        rule: Some(rule),
        word: word?,
        slice: None,
    })
}

fn decision_test(mut map: Map<'_, '_>, subject: Option<&Subject>) -> Option<Expected> {
    let place = map.place_of("");
    let time = map.required("eval_time", eval_time);
    let version = map.required("version", values::parsed::<Version>);
    let fleet = map.optional("fleet", values::text);
    let word = map.required("exp_decision", |node| one_of(node, DECISIONS));
    let slice = slice(&mut map, word);
    let fleets = subject.map_or(&[][..], |(fleets, _)| fleets);
    let fleet = match (fleet, fleets) {
        (Some(fleet), _) => Some(fleet),
        (None, [only]) => Some(only.name.to_string()),
        (None, []) => None,
        (None, _) => {
            map.fault_whole("`fleet` is missing, and the config has more than one");
            None
        }
    };
    map.finish();
    let (eval_time, at) = time?;
    Some(Expected {
        place,
        eval_time,
        at,
        fleet: fleet?,
        version: version?,
        rule: None,
        word: word?,
        slice,
    })
}

/// The one label and value of `exp_slice`.
fn slice(map: &mut Map<'_, '_>, decision: Option<&str>) -> Option<Slice> {
    let mut labels = map.texts("exp_slice", |_, _| Ok::<(), String>(())).into_iter();
    let Some(Node { value: Value::Map(_), .. }) = map.node("exp_slice") else { return None };
    match (labels.next(), labels.next()) {
        (Some(_), None) if decision.is_some_and(|decision| decision != "fix_forward") => {
            map.fault("exp_slice", "only `fix_forward` is about one slice");
            None
        }
        (Some((label, value)), None) => Some(Slice { label, value }),
        (None, _) | (_, Some(_)) => {
            map.fault("exp_slice", "expected one label and its value, such as `{ tenant: a }`");
            None
        }
    }
}

/// A time since the test began: `0`, or a duration.
fn eval_time(node: &Node) -> Read<(String, Timestamp)> {
    if matches!(&node.value, Value::Number(number) if *number == 0.0) {
        return Ok(("0s".to_owned(), Timestamp::from_millis(0)));
    }
    let duration = values::duration(node)?;
    let text = humantime::format_duration(duration).to_string().replace(' ', "");
    Ok((text, Timestamp::from_millis(0) + duration))
}

fn one_of(node: &Node, words: &[&'static str]) -> Read<&'static str> {
    let text = values::text(node)?;
    words.iter().find(|word| **word == text).copied().ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        format!("expected one of {}, found `{text}`", words.join(", "))
    })
}
