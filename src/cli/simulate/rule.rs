//! Where the rule of `simulate` comes from.

use std::path::Path;
use std::time::Duration;

use super::{Setting, SimulateArgs};
use crate::config::{self, FleetConfig};
use crate::domain::share::{Share, Tolerance};
use crate::evaluate::judge::threshold_log10;
use crate::rules::{self, Group, SessionRule};
use crate::yaml::Problem;

/// Why there is no rule to simulate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchRule {
    /// Config or rules have problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// There is no rule of the name, or more than one.
    #[error("{config}: {count} session rules are called `{rule}`; there are {names}")]
    Name {
        /// The config.
        config: String,
        /// How many.
        count: usize,
        /// What was asked for.
        rule: String,
        /// All of them, with their groups.
        names: String,
    },
    /// Settings that do not fit together.
    #[error("an observation of {observe_for:?} has more than {max} ticks of {interval:?}")]
    Ticks {
        /// The observation.
        observe_for: Duration,
        /// A tick.
        interval: Duration,
        /// The bound.
        max: u32,
    },
}

/// Ticks of one observation that are simulated at most.
const TICKS_MAX: u32 = 100_000;

impl SimulateArgs {
    /// The rule and its fleet's settings, overruled by the options.
    pub(super) fn setting(&self) -> Result<Setting, NoSuchRule> {
        let setting = match &self.rule {
            Some(rule) => self.of_config(rule)?,
            None => self.of_options(),
        };
        let ticks = setting.observe_for.as_millis() / setting.interval.as_millis().max(1);
        if ticks > u128::from(TICKS_MAX) {
            let Setting { observe_for, interval, .. } = setting;
            return Err(NoSuchRule::Ticks { observe_for, interval, max: TICKS_MAX });
        }
        Ok(setting)
    }

    fn of_options(&self) -> Setting {
        let no_test = self.ceiling.is_none() && self.tolerance.is_none();
        let tolerance = self.tolerance.or(no_test.then_some(Tolerance::NONE));
        let tests = f64::from(u8::from(tolerance.is_some()) + u8::from(self.ceiling.is_some()));
        let rate = self.false_rollback_rate.unwrap_or(Share::PER_MILLE);
        Setting {
            tolerance,
            ceiling: self.ceiling,
            dispersion: None,
            false_rollback_rate: rate,
            observe_for: self.observe_for.unwrap_or(Duration::from_hours(1)),
            history: self.history.unwrap_or(Duration::from_hours(6)),
            interval: self.interval.unwrap_or(Duration::from_secs(15)),
            threshold_log10: (tests / rate.get()).log10(),
        }
    }

    fn of_config(&self, name: &str) -> Result<Setting, NoSuchRule> {
        let Found { fleet, mut groups, group, rule } = find(&self.config, name)?;
        let rate = self.false_rollback_rate.unwrap_or(fleet.false_rollback_rate);
        let mut setting = Setting {
            false_rollback_rate: rate,
            observe_for: self.observe_for.unwrap_or(fleet.observe_for),
            history: self.history.unwrap_or(fleet.history),
            ..self.of_options()
        };
        if let Some(group) = groups.get_mut(group) {
            setting.interval = self.interval.unwrap_or(group.interval);
            if let Some(rule) = group.sessions.get_mut(rule) {
                self.overrule(rule);
                setting.tolerance = rule.tolerance;
                setting.ceiling = rule.ceiling;
                setting.dispersion = rule.dispersion;
            }
        }
        setting.threshold_log10 = threshold_log10(rate, &groups);
        Ok(setting)
    }

    fn overrule(&self, rule: &mut SessionRule) {
        rule.ceiling = self.ceiling.or(rule.ceiling);
        rule.tolerance = self.tolerance.or(rule.tolerance);
    }
}

/// A rule among all those that judge its fleet.
struct Found {
    fleet: FleetConfig,
    groups: Vec<Group>,
    group: usize,
    rule: usize,
}

fn find(path: &Path, name: &str) -> Result<Found, NoSuchRule> {
    let config = config::parse::load(path).map_err(NoSuchRule::Problems)?;
    let rules = rules::parse::load(&config.rule_files, &config.fleet_traits());
    let rules = rules.map_err(NoSuchRule::Problems)?;
    let mut names = Vec::new();
    let mut found = Vec::new();
    for fleet in &config.fleets {
        let groups = rules.groups.iter().filter(|group| group.fleet == fleet.name);
        let groups: Vec<Group> = groups.cloned().collect();
        for (group, of_group) in groups.iter().enumerate() {
            for (rule, of_rule) in of_group.sessions.iter().enumerate() {
                let full = format!("{}/{}", of_group.name, of_rule.name);
                if name == of_rule.name || name == full {
                    let (fleet, groups) = (fleet.clone(), groups.clone());
                    found.push(Found { fleet, groups, group, rule });
                }
                names.push(full);
            }
        }
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(found), 1) => Ok(found),
        _ => Err(NoSuchRule::Name {
            config: path.display().to_string(),
            count,
            rule: name.to_owned(),
            names: names.join(", "),
        }),
    }
}
