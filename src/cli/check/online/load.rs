//! Does a rule fit the traffic that Prometheus saw?

use std::collections::BTreeMap;

use super::super::finding::Level;
use super::super::traffic;
use super::{Desk, Named, Server, value};
use crate::ports::metrics::{MetricError, Series};
use crate::rules::{Group, SessionRule};

impl<S: Server> Desk<'_, S> {
    /// What the rule would do to this traffic, fleet by fleet.
    pub(super) async fn traffic(
        &mut self,
        named: &Named<'_>,
        group: &Group,
        rule: &SessionRule,
        threshold_log10: f64,
    ) -> Result<(), MetricError> {
        let (labels, seconds) = (self.labels(), self.fleet.history.as_secs());
        let grown =
            |selector: &str| format!("sum by ({labels}) (increase({selector}[{seconds}s]))");
        let started = self.ask(grown(&rule.started)).await?;
        let failed = self.ask(grown(&rule.failed)).await?;
        // A fleet younger than the history did what it did in less time.
        let by = self.fleet.by.join(", ");
        let minutes = format!("(group by ({by}) ({}))[{seconds}s:1m]", rule.started);
        let minutes = self.ask(format!("count_over_time({minutes})")).await?;
        if !started.iter().any(|series| value(series) > 0.0) {
            let past = self.past();
            let nothing = format!("no session was started in the last {past}");
            self.tell(Level::Warning, named, nothing);
        }
        for fleet in &minutes {
            let of_fleet = |series: &&Series| {
                fleet.labels.iter().all(|(name, value)| series.labels.get(name) == Some(value))
            };
            let of_fleet: Vec<&Series> = started.iter().filter(of_fleet).collect();
            // The one that carries the fleet.
            let busiest = of_fleet.iter().max_by(|a, b| value(a).total_cmp(&value(b)));
            let Some(busiest) = busiest.filter(|busiest| value(busiest) > 0.0) else { continue };
            let in_all: f64 = of_fleet.iter().map(|series| value(series)).sum();
            let of_busiest = failed.iter().find(|series| series.labels == busiest.labels);
            let facts = traffic::Facts {
                started: value(busiest),
                failed: of_busiest.map_or(0.0, value),
                rate: in_all / (60.0 * value(fleet)).min(self.fleet.history.as_secs_f64()),
            };
            let whose = whose(&busiest.labels, &self.fleet.version_label);
            if self.ceiling_fits(named, rule, &facts, &whose) {
                let told = traffic::told(self.fleet, group, rule, &facts, threshold_log10);
                self.tell(told.0, named, format!("{whose}: {}", told.1));
            }
        }
        Ok(())
    }

    /// Whether the baseline itself keeps below the ceiling.
    fn ceiling_fits(
        &mut self,
        named: &Named<'_>,
        rule: &SessionRule,
        facts: &traffic::Facts,
        whose: &str,
    ) -> bool {
        let Some(ceiling) = rule.ceiling else { return true };
        let share = facts.failed / facts.started;
        let (percent, past) = (100.0 * share, self.past());
        let of = format!("{whose}: failed {percent:.2}% of its sessions in the last {past}");
        if share >= ceiling.get() {
            self.tell(
                Level::Error,
                named,
                format!(
                    "{of}, above the ceiling of {ceiling}: every version would be rolled back; \
                     raise `ceiling`, or leave it out and use `tolerance`"
                ),
            );
            return false;
        }
        if share > ceiling.get() / 1.5 {
            let close = format!(
                "{of}, close to the ceiling of {ceiling}: a version as good as this one may come \
                 to be rolled back on a bad day; raise `ceiling`, or use `tolerance` alone"
            );
            self.tell(Level::Warning, named, close);
        }
        true
    }

    /// The history's length as the config writes it.
    pub(super) fn past(&self) -> String {
        humantime::format_duration(self.fleet.history).to_string().replace(' ', "")
    }
}

/// A version and, where there are several, its fleet: `v1`, `region=eu v1`.
fn whose(labels: &BTreeMap<String, String>, version_label: &str) -> String {
    let fleet = labels.iter().filter(|(name, _)| *name != version_label);
    let mut words: Vec<String> = fleet.map(|(name, value)| format!("{name}={value}")).collect();
    words.extend(labels.get(version_label).cloned());
    words.join(" ")
}
