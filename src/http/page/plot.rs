//! Plots, drawn on the server.
//!
//! Lines lie in an inner drawing that is stretched to whatever room there is; words lie outside it
//! at the same places in percent, so that they are never stretched.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::fleet::strongest;
use super::layout::clock;
use crate::domain::interval::wilson;
use crate::domain::time::Timestamp;
use crate::explain::words::{odds, part, share};
use crate::ledger::record::rfc3339;
use crate::ports::view::{PointView, RollbackView, RolloutView, VerdictView};

/// The inner drawing's width and height.
const SIZE: f64 = 1000.0;

/// log10 of the evidence at which a version is suspect.
const SUSPECT_LOG10: f64 = crate::domain::evidence::SUSPECT_LOG10;

/// Evidence below this is drawn at it: it speaks for the candidate, how much does not matter.
const LOWEST_LOG10: f64 = -1.0;

/// Sessions failed and started, of one side.
type Counts = fn(&PointView) -> (u64, u64);

/// One test's evidence.
type Test = fn(&PointView) -> Option<f64>;

/// From values to places in the drawing.
struct Scale {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, at: f64) -> f64 {
        (at - self.from) / (self.to - self.from).max(1e-9) * SIZE
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value.clamp(self.low, self.high) - self.low) / (self.high - self.low).max(1e-9);
        (1.0 - part) * SIZE
    }

    /// The place of a value from the top, for words.
    fn percent(&self, value: f64) -> String {
        format!("{:.1}%", self.y(value) / SIZE * 100.0)
    }

    fn line(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (at, value) in points {
            let start = if path.is_empty() { 'M' } else { 'L' };
            // Writing to a string does not fail.
            let _ok = write!(path, "{start}{:.0} {:.0}", self.x(at), self.y(value));
        }
        path
    }

    /// The area between two values at each time.
    fn band(&self, points: &[(f64, f64, f64)]) -> String {
        let upper = points.iter().map(|(at, _, high)| (*at, *high));
        let lower = points.iter().rev().map(|(at, low, _)| (*at, *low));
        let path = self.line(upper.chain(lower));
        if path.is_empty() { path } else { path + "Z" }
    }
}

/// The next of 1, 2, 5, 10, … hundredths, and so on down.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(1e-6).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * unit).find(|top| *top >= value).unwrap_or(value)
}

/// The share of sessions that failed, of candidate and control, with how sure it is.
pub(super) fn ratio(rollout: &RolloutView, verdict: &VerdictView) -> Markup {
    let points = verdict.course.as_slice();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return html! { p.quiet { "No tick of " (verdict.rule) " is over yet." } };
    };
    let candidate: Counts = |point| (point.failed, point.started);
    let control: Counts = |point| (point.control_failed, point.control_started);
    let shares = |counts: Counts| {
        let counted = points.iter().map(move |point| (point.at_seconds, counts(point)));
        counted
            .filter(|(_, (_, started))| *started > 0)
            .map(|(at, (failed, started))| (at, failed as f64 / started as f64))
    };
    let band = |counts: Counts| -> Vec<(f64, f64, f64)> {
        let sure = |point: &PointView| {
            let (failed, started) = counts(point);
            let (low, high) = wilson(failed, started, verdict.dispersion)?;
            Some((point.at_seconds, low, high))
        };
        points.iter().filter_map(sure).collect()
    };
    let (sure, sure_control) = (band(candidate), band(control));
    let tops = [&sure, &sure_control].into_iter().filter_map(|band| band.last().map(|b| b.2));
    let most = tops.chain(verdict.ceiling).fold(0.0, f64::max);
    let high = round_up((most * 1.15).min(1.0)).min(1.0);
    let scale = Scale { from: first.at_seconds, to: last.at_seconds, low: 0.0, high };
    let range = sure.last().map_or_else(String::new, |(_, low, high)| {
        format!(", likely between {} and {}", share(*low), share(*high))
    });
    let said = format!(
        "{} failed {}{range}; its control {}",
        rollout.candidate,
        part(last.failed, last.started, " sessions"),
        part(last.control_failed, last.control_started, ""),
    );
    html! {
        figure {
            figcaption {
                b { "Sessions failed" } " since " (rollout.candidate) " came, "
                span.quiet { (verdict.rule) }
            }
            p.legend aria-hidden="true" {
                span.key.candidate { (rollout.candidate) }
                span.key.control { (control_name(rollout, verdict)) }
            }
            svg.chart role="img" {
                title { (said) }
                svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" {
                    path.band.control d=(scale.band(&sure_control)) {}
                    path.band.candidate d=(scale.band(&sure)) {}
                    @if let Some(ceiling) = verdict.ceiling {
                        path.limit d=(scale.line([(scale.from, ceiling), (scale.to, ceiling)].into_iter())) {}
                    }
                    path.line.control d=(scale.line(shares(control))) {}
                    path.line.candidate d=(scale.line(shares(candidate))) {}
                }
                text x="4" y="0" dy="1em" { (share(high)) }
                text x="4" y="100%" dy="-0.4em" { "0%" }
                @if let Some(ceiling) = verdict.ceiling {
                    text x="100%" dx="-4" y=(scale.percent(ceiling)) dy="-0.3em" text-anchor="end" {
                        "ceiling " (share(ceiling))
                    }
                }
            }
            (times(first, last))
        }
    }
}

fn control_name(rollout: &RolloutView, verdict: &VerdictView) -> String {
    let baseline = rollout.baseline.as_deref().unwrap_or("baseline");
    match verdict.control.as_str() {
        "history" => format!("{baseline} before"),
        "none" => "no control".to_owned(),
        _ => baseline.to_owned(),
    }
}

/// The evidence against the candidate, and where it convicts.
pub(super) fn evidence(rollout: &RolloutView, verdict: &VerdictView) -> Markup {
    let points = verdict.course.as_slice();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return html! {} };
    let baseline: Test = |point| point.baseline_log10;
    let ceiling: Test = |point| point.ceiling_log10;
    let of =
        |test: Test| points.iter().filter_map(move |point| Some((point.at_seconds, test(point)?)));
    let threshold = verdict.threshold_log10;
    let most = of(baseline).chain(of(ceiling)).fold(threshold * 1.25, |most, (_, e)| most.max(e));
    let scale =
        Scale { from: first.at_seconds, to: last.at_seconds, low: LOWEST_LOG10, high: most };
    let level = |value: f64| scale.line([(scale.from, value), (scale.to, value)].into_iter());
    let now = strongest(verdict).map_or_else(|| "none".to_owned(), odds);
    let said = format!(
        "Evidence against {}: {now}; it is suspect at {} and convicted at {}",
        rollout.candidate,
        odds(SUSPECT_LOG10),
        odds(threshold),
    );
    html! {
        figure {
            figcaption { b { "Evidence" } " against " (rollout.candidate) ": " b { (now) } }
            p.legend aria-hidden="true" {
                @if verdict.tolerance.is_some() { span.key.candidate { "against its control" } }
                @if verdict.ceiling.is_some() { span.key.ceiling { "against the ceiling" } }
            }
            svg.chart role="img" {
                title { (said) }
                svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" {
                    path.faint d=(level(SUSPECT_LOG10)) {}
                    path.limit d=(level(threshold)) {}
                    path.line.ceiling d=(scale.line(of(ceiling))) {}
                    path.line.candidate d=(scale.line(of(baseline))) {}
                }
                text x="4" y=(scale.percent(threshold)) dy="-0.3em" { "convicts at " (odds(threshold)) }
                text x="4" y=(scale.percent(SUSPECT_LOG10)) dy="-0.3em" { "suspect at " (odds(SUSPECT_LOG10)) }
            }
            (times(first, last))
        }
    }
}

/// Sessions live on the bad version, while its rollback goes on.
pub(super) fn live(rollback: &RollbackView) -> Markup {
    let points = rollback.live.as_slice();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return html! {} };
    let high = points.iter().fold(1.0, |most: f64, point| most.max(point.live));
    let scale = Scale { from: first.at_seconds, to: last.at_seconds, low: 0.0, high };
    let area: Vec<_> = points.iter().map(|point| (point.at_seconds, 0.0, point.live)).collect();
    let said = format!(
        "Sessions live on {}: {:.0} when its rollback began, {:.0} now",
        rollback.from_version, first.live, last.live
    );
    html! {
        figure {
            figcaption { b { "Live sessions" } " on " (rollback.from_version) }
            svg.chart.low role="img" {
                title { (said) }
                svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" {
                    path.band.candidate d=(scale.band(&area)) {}
                    path.line.candidate d=(scale.line(points.iter().map(|point| (point.at_seconds, point.live)))) {}
                }
                text x="4" y="0" dy="1em" { (format!("{high:.0}")) }
                text x="4" y="100%" dy="-0.4em" { "0" }
            }
        }
    }
}

fn times(first: &PointView, last: &PointView) -> Markup {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
    let said = |at: f64| rfc3339(Timestamp::from_millis((at * 1000.0) as i64));
    let (first, last) = (said(first.at_seconds), said(last.at_seconds));
    html! { p.ends aria-hidden="true" { span { (clock(&first)) } span { (clock(&last)) " UTC" } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_plot_is_a_round_number() {
        for (value, want) in [(0.031, 0.05), (0.05, 0.05), (0.2, 0.2), (0.21, 0.5), (0.6, 1.0)] {
            let found = round_up(value);
            assert!((found - want).abs() < 1e-9, "{value}: {found}");
        }
    }

    #[test]
    fn values_beyond_the_plot_lie_on_its_edge() {
        let scale = Scale { from: 0.0, to: 10.0, low: -1.0, high: 4.0 };
        let line = scale.line([(0.0, -30.0), (5.0, 1.5), (10.0, 99.0)].into_iter());
        assert_eq!(line, "M0 1000L500 500L1000 0");
        assert_eq!(scale.percent(4.0), "0.0%");
        assert_eq!(scale.band(&[]), "");
    }
}
