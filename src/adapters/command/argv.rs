//! Arguments with placeholders.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::fleet::FleetId;
use crate::domain::version::Version;

/// What may stand between `{{` and `}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Placeholder {
    Version,
    Count,
    Worker,
    Fleet,
    Effect,
}

const ALL: [Placeholder; 5] = [
    Placeholder::Version,
    Placeholder::Count,
    Placeholder::Worker,
    Placeholder::Fleet,
    Placeholder::Effect,
];

impl Placeholder {
    fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Count => "count",
            Self::Worker => "worker",
            Self::Fleet => "fleet",
            Self::Effect => "effect",
        }
    }
}

/// What the placeholders stand for in one run.
#[derive(Clone, Debug)]
pub(super) struct Values(BTreeMap<Placeholder, String>);

impl Values {
    pub(super) fn new(effect: &str, fleet: &FleetId, version: &Version) -> Self {
        Self(BTreeMap::new())
            .with(Placeholder::Effect, effect)
            .with(Placeholder::Fleet, fleet)
            .with(Placeholder::Version, version)
    }

    pub(super) fn with(mut self, placeholder: Placeholder, value: impl fmt::Display) -> Self {
        self.0.insert(placeholder, value.to_string());
        self
    }

    pub(super) fn get(&self, placeholder: Placeholder) -> &str {
        self.0.get(&placeholder).map_or("", String::as_str)
    }
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(Placeholder),
}

/// A program and its arguments, each cut into text and placeholders once and for all: what a
/// value looks like cannot change that.
#[derive(Clone, Debug)]
pub(super) struct Argv {
    pub(super) program: String,
    arguments: Vec<Vec<Part>>,
}

impl Argv {
    pub(super) fn new(argv: Vec<String>, known: &[Placeholder]) -> Result<Self, String> {
        let mut argv = argv.into_iter();
        let Some(program) = argv.next().filter(|program| !program.is_empty()) else {
            return Err("it is empty".into());
        };
        if program.contains("{{") {
            return Err(format!("the program `{program}` must not have a placeholder"));
        }
        let arguments = argv.map(|argument| parts(&argument, known)).collect::<Result<_, _>>()?;
        Ok(Self { program, arguments })
    }

    pub(super) fn contains(&self, placeholder: Placeholder) -> bool {
        let is_it = |part: &Part| matches!(part, Part::Value(found) if *found == placeholder);
        self.arguments.iter().flatten().any(is_it)
    }

    /// The arguments of one run.
    pub(super) fn fill(&self, values: &Values) -> Result<Vec<String>, String> {
        self.arguments.iter().map(|argument| fill(argument, values)).collect()
    }
}

fn parts(argument: &str, known: &[Placeholder]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = argument;
    while let Some((text, tail)) = rest.split_once("{{") {
        let Some((name, after)) = tail.split_once("}}") else {
            return Err(format!("`{argument}` has a `{{{{` without a `}}}}`"));
        };
        let found = ALL.iter().copied().find(|placeholder| placeholder.name() == name.trim());
        let Some(placeholder) = found.filter(|placeholder| known.contains(placeholder)) else {
            let names: Vec<_> = known.iter().map(|placeholder| placeholder.name()).collect();
            return Err(format!("`{{{{{name}}}}}` is not one of {}", names.join(", ")));
        };
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        parts.push(Part::Value(placeholder));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn fill(argument: &[Part], values: &Values) -> Result<String, String> {
    let mut filled = String::new();
    for part in argument {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Value(placeholder) => {
                let value = values.get(*placeholder);
                if filled.is_empty() && (value.is_empty() || value.starts_with('-')) {
                    let name = placeholder.name();
                    return Err(format!("{name} `{value}` could be taken for an option"));
                }
                filled.push_str(value);
            }
        }
    }
    Ok(filled)
}
