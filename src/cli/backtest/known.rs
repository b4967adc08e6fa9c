//! What people know of past versions.
//!
//! ```yaml
//! versions:
//!   - version: v42
//!     fleet: voice:eu      # every fleet, if left out
//!     verdict: bad         # or good
//!     note: INC-1234       # if there is something to say
//! ```

use std::path::Path;

use crate::domain::version::Version;
use crate::yaml::values::{self, Read};
use crate::yaml::{Map, Node, Problem, Problems, Scope, parse};

/// Whether a version was worse than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Good,
    Bad,
}

/// What is known of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) version: Version,
    /// None: of every fleet.
    pub(super) fleet: Option<String>,
    pub(super) truth: Truth,
    pub(super) note: Option<String>,
}

/// All labels of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) labels: Vec<Label>,
}

/// Why the file does not read: every problem, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Unreadable(Vec<Problem>);

impl Known {
    /// The label of a version of a fleet; one that names the fleet goes before one that does not.
    pub(super) fn of(&self, fleet: &str, version: &Version) -> Option<&Label> {
        let fits = |label: &&Label| label.version == *version;
        let named = |label: &&Label| label.fleet.as_deref() == Some(fleet);
        let any = |label: &&Label| label.fleet.is_none();
        let mut labels = self.labels.iter().filter(fits);
        labels.clone().find(named).or_else(|| labels.find(any))
    }
}

/// Reads the file.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn read(path: &Path) -> Result<Known, Unreadable> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => read_text(&text, name),
        Err(error) => {
            Err(Unreadable(vec![Problem::of_file(name, format!("failed to read: {error}"))]))
        }
    }
}

fn read_text(text: &str, name: String) -> Result<Known, Unreadable> {
    let problems = Problems::of(name);
    let node = parse(text, &problems);
    let map = node.as_ref().and_then(|n| Map::of(n, Scope::Path(String::new()), &problems));
    let mut labels: Vec<Label> = Vec::new();
    if let Some(mut map) = map {
        map.require("versions");
        for entry in map.children("versions") {
            let place = entry.place_of("version");
            let Some(label) = label(entry) else { continue };
            let same = |other: &Label| other.version == label.version && other.fleet == label.fleet;
            if labels.iter().any(same) {
                problems.report(place, "versions", format!("`{}` is here twice", label.version));
            }
            labels.push(label);
        }
        map.require_some("versions", "version");
        map.finish();
    }
    if problems.is_empty() { Ok(Known { labels }) } else { Err(Unreadable(problems.into_sorted())) }
}

fn label(mut map: Map<'_, '_>) -> Option<Label> {
    let version = map.required("version", values::parsed);
    let fleet = map.optional("fleet", values::text);
    let truth = map.required("verdict", truth);
    let note = map.optional("note", values::text);
    map.finish();
    Some(Label { version: version?, fleet, truth: truth?, note })
}

fn truth(node: &Node) -> Read<Truth> {
    match values::text(node)?.as_str() {
        "good" => Ok(Truth::Good),
        "bad" => Ok(Truth::Bad),
        other => Err(format!("expected `good` or `bad`, found `{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_names_the_fleet_goes_before_one_that_does_not() {
        let text = "versions:\n- {version: v2, verdict: good}\n\
                    - {version: v2, fleet: eu, verdict: bad, note: INC-1}\n";
        let known = read_text(text, "known.yml".to_owned()).unwrap();
        let version: Version = "v2".parse().unwrap();
        let truth = |fleet| known.of(fleet, &version).map(|label| label.truth);
        assert_eq!((truth("eu"), truth("us")), (Some(Truth::Bad), Some(Truth::Good)));
        assert_eq!(known.of("eu", &"v3".parse().unwrap()), None);
    }

    #[test]
    fn every_problem_of_the_file_is_told_with_its_place() {
        let text = "versions:\n- {version: v2, verdict: fine}\n- {verdict: bad, since: today}\n\
                    - {version: v4, verdict: bad}\n- {version: v4, verdict: good}\nmore: 1\n";
        let error = read_text(text, "known.yml".to_owned()).unwrap_err();
        insta::assert_snapshot!(error, @"
        known.yml:2:26: versions[0].verdict: expected `good` or `bad`, found `fine`
        known.yml:3:3: versions[1].version: missing
        known.yml:3:18: versions[1]: unknown key `since`; there are `version`, `fleet`, `verdict`, `note`
        known.yml:5:13: versions: `v4` is here twice
        known.yml:6:1: unknown key `more`; there are `versions`
        ");
        let none = read_text("versions: []\n", "known.yml".to_owned()).unwrap_err();
        assert!(none.to_string().contains("expected at least one version"), "{none}");
    }
}
