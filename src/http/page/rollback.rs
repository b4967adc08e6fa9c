//! A rollback's eight steps as they happen.

use maud::{Markup, html};

use super::layout::{record, time};
use super::plot;
use crate::explain::words::counted;
use crate::ports::view::RollbackView;

/// Each step, and what is so once it is reached.
const STEPS: [(&str, &str); 8] = [
    ("chosen", "both versions are decided"),
    ("gated", "no new worker of the bad version may start"),
    ("starting", "workers of the good version are asked for"),
    ("capable", "the good version can carry the load"),
    ("draining", "the bad version takes no new session"),
    ("recorded", "the ledger holds the rollback"),
    ("confirming", "waiting for the last session to end"),
    ("clean", "the bad version is gone, and so are its sessions"),
];

/// The steps, done and to come, with the sessions still live.
pub(super) fn steps(rollback: &RollbackView) -> Markup {
    let (bad, good) = (&rollback.from_version, &rollback.version);
    let reached = |state: &str| rollback.steps.iter().find(|step| step.state == state);
    let furthest = STEPS.iter().rposition(|(state, _)| reached(state).is_some()).unwrap_or(0);
    html! {
        section.rollback aria-label={ "Rollback from " (bad) " to " (good) } {
            h3 { "From " (bad) " back to " (good) }
            p.counts {
                span { b { (format!("{:.0}", rollback.bad_live)) } " live on " (bad) }
                span { b { (rollback.bad_workers) } " workers of " (bad) }
                span { b { (rollback.good_workers) } " workers of " (good) }
            }
            (plot::live(rollback))
            ol.steps {
                @for (index, (state, meaning)) in STEPS.iter().enumerate() {
                    @let step = reached(state);
                    @let class = match (step, index == furthest) {
                        (Some(_), true) if rollback.finished_at.is_none() => "current",
                        (Some(_), _) => "done",
                        (None, _) if index < furthest => "skipped",
                        (None, _) => "open",
                    };
                    li.(class) aria-current=[(class == "current").then_some("step")] {
                        b { (state) } " "
                        @if class == "skipped" { span.quiet { "not needed" } }
                        @else { span { (meaning) } }
                        @if let Some(step) = step { " " span.when { (time(&step.at)) " " (record(step.seq)) } }
                    }
                }
            }
            @if rollback.state == "stuck" {
                p.alarm {
                    span aria-hidden="true" { "■ " } "Stuck: "
                    @match rollback.awaiting.as_deref() {
                        Some("capacity") => { "the good version's workers have not come up." }
                        _ => {
                            "the bad version still has " (counted(rollback.bad_workers.into(), "worker"))
                            ". It is never forced."
                        }
                    }
                }
            }
        }
    }
}
