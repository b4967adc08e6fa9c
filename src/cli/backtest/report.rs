//! All rollouts of all entries, and what they add up to.

use std::collections::BTreeMap;

use super::known::{Known, Label, Truth};
use super::replay::{Entry, Replayed};
use super::story::{End, Series, Story};
use super::{NoBacktest, figures};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;

/// Everything a backtest found.
pub(super) struct Report {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// In the order of their beginning.
    pub(super) stories: Vec<Story>,
    /// By fleet and version.
    pub(super) series: BTreeMap<(String, Version), Series>,
    /// Entries that were not replayed to the end: how far they came, and why no further.
    pub(super) cut_short: Vec<(String, Option<Timestamp>, String)>,
    /// Candidates of which no slices could be had, and why.
    pub(super) unsliced: Vec<String>,
    /// Entries of which nothing was seen.
    pub(super) unseen: Vec<String>,
    seen: bool,
    known: Known,
    first_error: Option<NoBacktest>,
}

/// What people would say of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    Right,
    /// A good version would have been rolled back.
    False,
    /// A bad version would have been promoted.
    Missed,
    /// Nobody knows, or nothing was decided.
    None,
}

impl Opinion {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::False => "false",
            Self::Missed => "missed",
            Self::None => "",
        }
    }
}

impl Report {
    pub(super) fn new(
        (from, to): (Timestamp, Timestamp),
        replays: Vec<Replayed>,
        known: Known,
    ) -> Self {
        let mut report = Self {
            from,
            to,
            stories: Vec::new(),
            series: BTreeMap::new(),
            cut_short: Vec::new(),
            unsliced: Vec::new(),
            unseen: Vec::new(),
            seen: false,
            known,
            first_error: None,
        };
        for replay in replays {
            if let Some(error) = replay.error {
                let text = error.to_string();
                report.cut_short.push((replay.entry.clone(), replay.reached, text));
                report.first_error.get_or_insert(NoBacktest::Unanswered(error));
            } else if !replay.seen {
                report.unseen.push(replay.entry);
            }
            report.unsliced.extend(replay.unsliced);
            report.seen |= replay.seen;
            report.stories.extend(replay.stories);
            report.series.extend(replay.series);
        }
        report.stories.sort_by_key(|story| story.rollout.started_at);
        report
    }

    /// Whether there is anything to report.
    ///
    /// # Errors
    /// When nothing at all was seen, with the reason.
    pub(super) fn check(&mut self, entries: &[Entry]) -> Result<(), NoBacktest> {
        if self.seen {
            return Ok(());
        }
        if let Some(error) = self.first_error.take() {
            return Err(error);
        }
        let names: Vec<&str> = entries.iter().map(|entry| entry.config.name.as_str()).collect();
        Err(NoBacktest::NoData {
            fleets: names.join(", "),
            from: figures::time(self.from),
            to: figures::time(self.to),
        })
    }

    pub(super) fn is_partial(&self) -> bool {
        !self.cut_short.is_empty() || !self.unsliced.is_empty()
    }

    /// What is known of a rollout's version.
    pub(super) fn label(&self, story: &Story) -> Option<&Label> {
        self.known.of(&story.fleet, &story.rollout.candidate)
    }

    /// What people would say of what would have been decided.
    pub(super) fn opinion(&self, story: &Story) -> Opinion {
        match (story.end, self.label(story).map(|label| label.truth)) {
            (End::RolledBack { .. }, Some(Truth::Bad))
            | (End::Promoted { .. }, Some(Truth::Good)) => Opinion::Right,
            (End::RolledBack { .. }, Some(Truth::Good)) => Opinion::False,
            (End::Promoted { .. }, Some(Truth::Bad)) => Opinion::Missed,
            (End::Open | End::Gone { .. }, _) | (_, None) => Opinion::None,
        }
    }

    /// Decisions that people would call wrong.
    pub(super) fn wrong(&self) -> usize {
        let wrong = |opinion| matches!(opinion, Opinion::False | Opinion::Missed);
        self.stories.iter().filter(|story| wrong(self.opinion(story))).count()
    }

    /// Labels of versions of which there was no rollout.
    pub(super) fn labels_unused(&self) -> Vec<String> {
        let used = |label: &&Label| {
            self.stories.iter().any(|story| {
                label.version == story.rollout.candidate
                    && label.fleet.as_ref().is_none_or(|fleet| *fleet == story.fleet)
            })
        };
        let unused = self.known.labels.iter().filter(|label| !used(label));
        unused
            .map(|label| match &label.fleet {
                Some(fleet) => format!("{} of {fleet}", label.version),
                None => label.version.to_string(),
            })
            .collect()
    }

    pub(super) fn count(&self, fits: impl Fn(&Story) -> bool) -> usize {
        self.stories.iter().filter(|story| fits(story)).count()
    }

    /// Sessions that all decisions together would have saved.
    pub(super) fn saved(&self) -> u64 {
        self.stories.iter().map(|story| story.after.saved()).sum()
    }

    /// What it adds up to, a sentence each.
    pub(super) fn sums(&self) -> Vec<String> {
        let rolled_back = self.count(|s| matches!(s.end, End::RolledBack { .. }));
        let promoted = self.count(|s| matches!(s.end, End::Promoted { .. }));
        let gone = self.count(|s| matches!(s.end, End::Gone { .. }));
        let open = self.count(|s| s.end == End::Open);
        let mut sums = vec![format!(
            "{}: {rolled_back} would be rolled back, {promoted} promoted, {gone} gone before \
             anything was decided, {open} under observation at the end",
            figures::counted(self.stories.len(), "rollout"),
        )];
        if rolled_back > 0 {
            sums.push(format!("sessions saved: {}", self.saved()));
        }
        let narrow = self.count(|story| story.told.iter().any(|told| told.slice.is_some()));
        if narrow > 0 {
            let rollouts = figures::counted(narrow, "rollout");
            sums.push(format!("{rollouts} with a slice that fails alone: people would be told"));
        }
        let labelled = self.count(|story| self.label(story).is_some());
        if labelled > 0 {
            let of = |opinion| self.count(|story| self.opinion(story) == opinion);
            sums.push(format!(
                "of {labelled} with a label: {} right, {} false rollbacks, {} missed",
                of(Opinion::Right),
                of(Opinion::False),
                of(Opinion::Missed),
            ));
        }
        let unused = self.labels_unused();
        if !unused.is_empty() {
            sums.push(format!("labels without a rollout: {}", unused.join(", ")));
        }
        for entry in &self.unseen {
            sums.push(format!("no worker of {entry} was seen in this time"));
        }
        for (entry, reached, why) in &self.cut_short {
            let until = reached
                .map_or("not at all".to_owned(), |at| format!("only until {}", figures::time(at)));
            sums.push(format!("PARTIAL: {entry} was replayed {until}: {why}"));
        }
        sums.extend(self.unsliced.iter().map(|what| format!("PARTIAL: {what}")));
        sums
    }
}

/// What a rollout's end is called, and its time.
pub(super) fn ending(story: &Story) -> (&'static str, Option<Timestamp>) {
    match story.end {
        End::Open => ("under observation", None),
        End::RolledBack { at } => ("rolled back", Some(at)),
        End::Promoted { at } => ("promoted", Some(at)),
        End::Gone { at } => ("gone", Some(at)),
    }
}

/// What became of a version that would have been rolled back; `None` for all others.
pub(super) fn aftermath(story: &Story) -> Option<String> {
    let End::RolledBack { at } = story.end else { return None };
    let after = &story.after;
    let Some(last) = after.last else { return Some("no session of it was counted later".into()) };
    let kept = if story.kept { ", when the next version came" } else { "" };
    let dropped = match after.dropped {
        0 => String::new(),
        dropped => format!(", {dropped} dropped"),
    };
    let saved = match after.control_ratio {
        Some(_) => format!("{} more than the version before would have lost", after.saved()),
        None => "no version before to compare with".to_owned(),
    };
    Some(format!(
        "for {} more, until {}{kept}: {} failed{dropped}; {saved}",
        figures::duration(last.since(at)),
        figures::time(last),
        figures::ratio(after.failed, after.started),
    ))
}
