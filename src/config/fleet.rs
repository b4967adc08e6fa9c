//! Reading a fleet entry.

use std::collections::BTreeSet;
use std::time::Duration;

use super::parse::Base;
use super::{DrainVia, FleetConfig, Limits, MembershipConfig, Mode, OnStartTimeout};
use super::{StartCheck, StartVia, WhenUnsure};
use crate::domain::fleet::FleetName;
use crate::domain::share::Share;
use crate::domain::template;
use crate::rules::selector;
use crate::yaml::values::{self, Read};
use crate::yaml::{Map, Node};

const HOUR: Duration = Duration::from_hours(1);

/// How long a command may run, unless said otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// Placeholders of a `start` command and of its `check`. Effects are repeated after a crash; `{{effect}}` tells.
const START_PLACEHOLDERS: &[&str] = &["version", "count", "fleet", "effect"];

/// Placeholders of a `drain` command, which runs once for each worker.
const DRAIN_PLACEHOLDERS: &[&str] = &["version", "worker", "fleet", "effect"];

/// Reads what follows the name. Reports what is wrong; `None` if something without a default is.
pub(super) fn read(
    mut map: Map<'_, '_>,
    name: Option<FleetName>,
    base: &Base,
) -> Option<FleetConfig> {
    let (by, version_label) = labels(&mut map);
    let mode = one_of(&mut map, "mode", &MODES);
    let (observe_for, history) = spans(&mut map);
    let false_rollback_rate = map.optional("false_rollback_rate", values::share);
    let false_rollback_rate = false_rollback_rate.or_else(|| Share::new(0.001).ok());
    let when_unsure = one_of(&mut map, "when_unsure", &WHEN_UNSURE);
    let workers = selector(&mut map, "workers", true);
    let draining = selector(&mut map, "draining", false);
    let live = selector(&mut map, "live", false);
    let start = map.child("start").and_then(start);
    map.require("drain");
    let drain = map.child("drain").map(drain);
    let limits = map.child("limits").map_or(LIMITS, limits);
    let start_timeout = map.optional("start_timeout", values::duration);
    let on_start_timeout = one_of(&mut map, "on_start_timeout", &ON_START_TIMEOUT);
    let drain_deadline = map.optional("drain_deadline", values::duration);
    let membership = map.child("membership").map(|map| membership(map, base));
    map.finish();
    Some(FleetConfig {
        name: name?,
        by,
        version_label,
        mode,
        observe_for,
        history,
        false_rollback_rate: false_rollback_rate?,
        when_unsure,
        workers: workers?,
        draining,
        live,
        start,
        drain: drain?,
        limits,
        start_timeout: start_timeout.unwrap_or(Duration::from_mins(10)),
        on_start_timeout,
        drain_deadline: drain_deadline.unwrap_or(2 * HOUR),
        membership,
    })
}

const MODES: [(&str, Mode); 3] =
    [("automatic", Mode::Automatic), ("approve", Mode::Approve), ("observe", Mode::Observe)];
const WHEN_UNSURE: [(&str, WhenUnsure); 2] =
    [("rollback", WhenUnsure::Rollback), ("hold", WhenUnsure::Hold)];
const ON_START_TIMEOUT: [(&str, OnStartTimeout); 2] =
    [("stuck", OnStartTimeout::Stuck), ("proceed", OnStartTimeout::Proceed)];
const LIMITS: Limits = Limits { rollbacks: 3, per: Duration::from_hours(24) };

/// One of some words; the first is the default.
fn one_of<T: Copy, const N: usize>(
    map: &mut Map<'_, '_>,
    key: &'static str,
    words: &[(&str, T); N],
) -> T {
    let chosen = map.optional(key, |node| {
        let text = values::text(node)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words = words.map(|(word, _)| format!("`{word}`"));
            format!("expected {}, found `{text}`", words.join(" or "))
        })
    });
    chosen.unwrap_or(words[0].1)
}

fn labels(map: &mut Map<'_, '_>) -> (Vec<String>, String) {
    let by = map.list("by", values::label_name);
    let version_label = map
        .optional("version_label", values::label_name)
        .unwrap_or_else(|| "deployment_version".to_owned());
    let mut seen = BTreeSet::new();
    for label in &by {
        if *label == version_label {
            map.fault("by", format!("`{label}` is the version label; versions share a fleet"));
        } else if !seen.insert(label) {
            map.fault("by", format!("`{label}` is here twice"));
        }
    }
    (by, version_label)
}

/// `observe_for` and `history`.
fn spans(map: &mut Map<'_, '_>) -> (Duration, Duration) {
    let observe_for = map.optional("observe_for", values::duration).unwrap_or(HOUR);
    let history = map.optional("history", values::duration).unwrap_or(6 * HOUR);
    if observe_for > history {
        let observe_for_text = humantime::format_duration(observe_for);
        let key = if map.has("history") { "history" } else { "observe_for" };
        map.fault(
            key,
            format!(
                "history of {} is shorter than observe_for of {observe_for_text}; a candidate \
                 needs at least as much of the baseline's past to be compared with",
                humantime::format_duration(history)
            ),
        );
    }
    (observe_for, history)
}

fn selector(map: &mut Map<'_, '_>, key: &'static str, required: bool) -> Option<String> {
    if required {
        map.require(key);
    }
    let text = map.optional(key, values::text)?;
    match selector::check(&text) {
        Ok(selector) => Some(selector),
        Err(message) => {
            map.fault_as_is(key, format!("`{key}` is not a series selector: {message}"));
            None
        }
    }
}

fn command(map: &mut Map<'_, '_>, known: &[&str]) -> Option<Vec<String>> {
    let present = map.has("command");
    let command = map.list("command", |node: &Node| -> Read<String> {
        let text = values::text(node)?;
        template::check(&text, known).map_err(|error| error.to_string())?;
        Ok(text)
    });
    map.require_some("command", "argument, the program");
    present.then_some(command)
}

fn start(mut map: Map<'_, '_>) -> Option<StartVia> {
    map.require("command");
    let command = command(&mut map, START_PLACEHOLDERS);
    let timeout = map.optional("timeout", values::duration).unwrap_or(COMMAND_TIMEOUT);
    let check = map.child("check").map(start_check);
    map.finish();
    Some(StartVia { command: command?, timeout, check: check.flatten() })
}

fn start_check(mut map: Map<'_, '_>) -> Option<StartCheck> {
    map.require("command");
    let command = command(&mut map, START_PLACEHOLDERS);
    let interval = map.optional("interval", values::duration).unwrap_or(Duration::from_mins(5));
    let timeout = map.optional("timeout", values::duration).unwrap_or(COMMAND_TIMEOUT);
    map.finish();
    Some(StartCheck { command: command?, interval, timeout })
}

fn drain(mut map: Map<'_, '_>) -> DrainVia {
    let manifest = map.child("manifest");
    let drain =
        DrainVia { manifest: manifest.is_some(), command: command(&mut map, DRAIN_PLACEHOLDERS) };
    if let Some(manifest) = manifest {
        manifest.finish();
    }
    if !map.has("manifest") && !map.has("command") {
        map.fault_whole("expected `manifest: {}`, a `command`, or both");
    }
    map.finish();
    drain
}

fn limits(mut map: Map<'_, '_>) -> Limits {
    let rollbacks = map.optional("rollbacks", |node| values::whole(node, 1, 100));
    let per = map.optional("per", values::duration);
    map.finish();
    Limits { rollbacks: rollbacks.unwrap_or(LIMITS.rollbacks), per: per.unwrap_or(LIMITS.per) }
}

fn membership(mut map: Map<'_, '_>, base: &Base) -> MembershipConfig {
    map.require("secret_files");
    let secret_files = map.list("secret_files", |node| base.path(node));
    map.require_some("secret_files", "file");
    let max_age = map.optional("max_age", values::duration).unwrap_or(Duration::from_mins(5));
    map.finish();
    MembershipConfig { secret_files, max_age }
}
