//! What a candidate may do: from the options, or from a rule.

use std::path::Path;

use super::JudgeArgs;
use super::counts::Labels;
use crate::domain::share::{Share, Tolerance};
use crate::evaluate::judge::{rule_name, threshold_log10};
use crate::rules::{self, Group, SessionRule};
use crate::yaml::Problem;

/// Why there is no rule to judge by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRule {
    /// The file has problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// There is no session rule of the name.
    #[error("{file}: no session rule is called `{name}`; there are {names}")]
    Unknown {
        /// The file.
        file: String,
        /// What was asked for.
        name: String,
        /// Those there are.
        names: String,
    },
    /// More than one fits.
    #[error("{file}: it has more than one session rule: say `--rule` {names}")]
    Unclear {
        /// The file.
        file: String,
        /// Those there are.
        names: String,
    },
}

/// What a candidate is judged by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    pub(super) tolerance: Option<Tolerance>,
    pub(super) ceiling: Option<Share>,
    /// None: measured on the history.
    pub(super) dispersion: Option<f64>,
    /// `log10(1/α)` of one test.
    pub(super) threshold_log10: f64,
    /// By what sessions are told apart.
    pub(super) labels: Labels,
}

impl Terms {
    pub(super) fn of(args: &JudgeArgs) -> Result<Self, NoRule> {
        if let Some(file) = &args.rules {
            return Self::of_file(file, args.rule.as_deref(), args.false_rollback_rate);
        }
        let no_test = args.ceiling.is_none() && args.tolerance.is_none();
        let both = args.ceiling.is_some() && args.tolerance.is_some();
        Ok(Self {
            tolerance: args.tolerance.or(no_test.then_some(Tolerance::NONE)),
            ceiling: args.ceiling,
            dispersion: args.dispersion,
            threshold_log10: (if both { 2.0 } else { 1.0 } / args.false_rollback_rate.get())
                .log10(),
            labels: args.narrow_by.clone().map_or(Labels::Further, Labels::Named),
        })
    }

    fn of_file(path: &Path, name: Option<&str>, rate: Share) -> Result<Self, NoRule> {
        let file = path.display().to_string();
        // A name, not a pattern.
        let parsed = rules::parse::read(&[glob::Pattern::escape(&file)], None);
        if !parsed.problems.is_empty() {
            return Err(NoRule::Problems(parsed.problems));
        }
        let groups = parsed.rules.groups;
        let all = || groups.iter().flat_map(|g| g.sessions.iter().map(move |rule| (g, rule)));
        let full = |(group, rule): &(&Group, &SessionRule)| rule_name(group, &rule.name);
        let names = || all().map(|one| full(&one)).collect::<Vec<_>>().join(", ");
        let fits = |one: &(&Group, &SessionRule)| {
            name.is_none_or(|name| one.1.name == name || full(one) == name)
        };
        let found: Vec<_> = all().filter(fits).collect();
        match (found.as_slice(), name) {
            ([(group, rule)], _) => {
                let of_fleet = groups.iter().filter(|other| other.fleet == group.fleet);
                let of_fleet: Vec<Group> = of_fleet.cloned().collect();
                Ok(Self {
                    tolerance: rule.tolerance,
                    ceiling: rule.ceiling,
                    dispersion: rule.dispersion,
                    threshold_log10: threshold_log10(rate, &of_fleet),
                    labels: Labels::Known(rule.narrow_by.clone()),
                })
            }
            ([], Some(name)) => {
                Err(NoRule::Unknown { file, name: name.to_owned(), names: names() })
            }
            ([], None) => {
                Err(NoRule::Unknown { file, name: String::new(), names: "none".to_owned() })
            }
            _ => Err(NoRule::Unclear { file, names: names() }),
        }
    }
}
