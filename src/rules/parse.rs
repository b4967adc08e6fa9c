//! Reading rule files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rule::{self, Rule};
use super::{Group, RuleSet};
use crate::domain::fleet::FleetName;
use crate::domain::share::Share;
use crate::yaml::values;
use crate::yaml::{self, Map, Problem, Problems, Scope};

/// The shortest interval of a group.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The interval of a group that does not say.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// The config's fleets, and what rules for them must fit.
pub type Fleets = BTreeMap<FleetName, FleetTraits>;

/// What the config says of a fleet that its rules must fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetTraits {
    /// How long its candidates stay under observation.
    pub observe_for: Duration,
    /// The label that carries the version.
    pub version_label: String,
    /// The labels that tell the entry's fleets apart.
    pub by: Vec<String>,
    /// Shared by all tests that may roll it back.
    pub false_rollback_rate: Share,
}

/// What could be read of the rule files.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// As far as they could be read; good only if there is no problem.
    pub rules: RuleSet,
    /// Files that match the patterns.
    pub files: usize,
    /// By file and place.
    pub problems: Vec<Problem>,
}

/// Reads all files that match `patterns`, for a config with these `fleets`.
///
/// # Errors
/// All problems of all files, by file and place.
pub fn load(patterns: &[String], fleets: &Fleets) -> Result<RuleSet, Vec<Problem>> {
    let parsed = read(patterns, Some(fleets));
    if parsed.problems.is_empty() { Ok(parsed.rules) } else { Err(parsed.problems) }
}

/// Reads all files that match `patterns`. Without `fleets`, when the config is itself faulty,
/// what depends on them is not checked.
#[must_use]
pub fn read(patterns: &[String], fleets: Option<&Fleets>) -> Parsed {
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    let mut names = BTreeMap::new();
    let files = files(patterns, &mut problems);
    for path in &files {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let (mut found, wrong) = parse_after(&text, &file, fleets, &mut names);
                groups.append(&mut found);
                problems.extend(wrong);
            }
            Err(error) => {
                problems.push(Problem::of_file(file, format!("failed to read: {error}")));
            }
        }
    }
    problems.sort();
    Parsed { rules: RuleSet { groups }, files: files.len(), problems }
}

/// Reads the text of one file; gives its groups as far as they could be read, and
/// all its problems by place.
#[must_use]
pub fn parse(text: &str, file: &str, fleets: Option<&Fleets>) -> (Vec<Group>, Vec<Problem>) {
    parse_after(text, file, fleets, &mut BTreeMap::new())
}

/// The files in the order of their names, each once.
fn files(patterns: &[String], problems: &mut Vec<Problem>) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let before = files.len();
        let mut matched = false;
        match glob::glob(pattern) {
            Err(error) => {
                problems.push(Problem::of_file(pattern, format!("not a glob: {}", error.msg)));
                continue;
            }
            Ok(paths) => {
                for path in paths {
                    matched = true;
                    match path {
                        // Tests stand beside the rules that they test.
                        Ok(path) if is_test(&path) && path.as_os_str() != pattern.as_str() => {}
                        Ok(path) => drop(files.insert(path)),
                        Err(error) => problems.push(Problem::of_file(
                            error.path().display().to_string(),
                            format!("failed to read: {}", error.error()),
                        )),
                    }
                }
            }
        }
        if !matched && files.len() == before {
            problems.push(Problem::of_file(pattern, "no rule file matches this pattern"));
        }
    }
    files
}

/// Whether it is a file for `rollbackd test`.
fn is_test(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".test.yml") || name.ends_with(".test.yaml")
}

/// As [`parse`], with the groups `names` of the files before it and where they are.
fn parse_after(
    text: &str,
    file: &str,
    fleets: Option<&Fleets>,
    names: &mut BTreeMap<String, String>,
) -> (Vec<Group>, Vec<Problem>) {
    let problems = Problems::of(file);
    let mut groups = Vec::new();
    let node = yaml::parse(text, &problems);
    let top = Scope::Named(String::new());
    if let Some(mut map) = node.as_ref().and_then(|node| Map::of(node, top, &problems)) {
        map.require("groups");
        for entry in map.children("groups") {
            groups.extend(group(entry, file, fleets, names));
        }
        map.require_some("groups", "group");
        map.finish();
    }
    (groups, problems.into_sorted())
}

fn group(
    mut map: Map<'_, '_>,
    file: &str,
    fleets: Option<&Fleets>,
    names: &mut BTreeMap<String, String>,
) -> Option<Group> {
    let name = map.required("name", values::text);
    let context = format!("group \"{}\"", name.as_deref().unwrap_or("?"));
    map.rename(Scope::Named(context.clone()));
    if let Some(name) = &name
        && let Some(other) = names.insert(name.clone(), file.to_owned())
    {
        let place = if other == file { "this file".to_owned() } else { format!("`{other}`") };
        map.fault_as_is("name", format!("a group of this name is already in {place}"));
    }
    let (fleet, traits) = fleet(&mut map, fleets);
    let interval = interval(&mut map, traits.map(|traits| traits.observe_for));
    let in_group = rule::InGroup {
        group: name.as_deref().unwrap_or_default(),
        fleet: fleet.as_ref().map_or("", FleetName::as_str),
        interval,
        traits,
    };
    map.require("regressions");
    let (mut sessions, mut value_rules) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    let entries = map.children("regressions");
    let count = entries.len();
    for entry in entries {
        match rule::read(entry, &context, &in_group, &mut seen) {
            Some(Rule::Session(rule)) => sessions.push(rule),
            Some(Rule::Value(rule)) => value_rules.push(rule),
            None => {}
        }
    }
    map.require_some("regressions", "regression");
    map.finish();
    let complete = sessions.len() + value_rules.len() == count;
    complete.then_some(Group {
        name: name?,
        file: file.to_owned(),
        fleet: fleet?,
        interval,
        sessions,
        values: value_rules,
    })
}

/// The group's fleet, and what the config says of it, if it has it.
fn fleet<'f>(
    map: &mut Map<'_, '_>,
    fleets: Option<&'f Fleets>,
) -> (Option<FleetName>, Option<&'f FleetTraits>) {
    let Some(name) = map.required("fleet", values::parsed::<FleetName>) else {
        return (None, None);
    };
    let Some(fleets) = fleets else { return (Some(name), None) };
    let traits = fleets.get(&name);
    if traits.is_none() {
        let known: Vec<_> = fleets.keys().map(|known| format!("`{known}`")).collect();
        let known = known.join(", ");
        map.fault_as_is("fleet", format!("no fleet `{name}` in the config, which has {known}"));
    }
    (Some(name), traits)
}

fn interval(map: &mut Map<'_, '_>, observe_for: Option<Duration>) -> Duration {
    let interval = map.optional("interval", values::duration).unwrap_or(INTERVAL_DEFAULT);
    let text = humantime::format_duration(interval);
    if interval < INTERVAL_MIN {
        map.fault_as_is("interval", format!("interval of {text} is shorter than a second"));
    } else if interval.subsec_nanos() != 0 {
        map.fault_as_is("interval", format!("interval of {text} is not in whole seconds"));
    } else if let Some(observe_for) = observe_for
        && interval > observe_for
    {
        let observe_for = humantime::format_duration(observe_for);
        map.fault_as_is(
            "interval",
            format!("interval of {text} is longer than the fleet's observe_for of {observe_for}"),
        );
    }
    interval
}

#[cfg(test)]
mod tests;
