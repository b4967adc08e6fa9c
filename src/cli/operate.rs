//! `rollbackd status`, and an operator's acts: a client of a running rollbackd's API.
//!
//! Exit codes: 0 done, 1 refused (the answer says why), 2 not answered or not understood.

use std::io::Write;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Server, ask};
use super::{CommandError, EXIT_FAILED, EXIT_OK};

/// Arguments of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Only this fleet.
    fleet: Option<String>,
    #[command(flatten)]
    server: Server,
    /// The API's own answer.
    #[arg(long)]
    json: bool,
}

/// What every act needs.
#[derive(Clone, Debug, Args)]
pub struct ActArgs {
    /// The fleet, as `status` shows it.
    fleet: String,
    /// Why: it goes into the ledger.
    #[arg(long, short, value_name = "TEXT")]
    reason: String,
    /// Who: it goes into the ledger.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "anonymous")]
    actor: String,
    #[command(flatten)]
    server: Server,
}

/// Arguments of an act on a version that may be left out.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// The version; may be left out where there is only one it can be.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    act: ActArgs,
}

/// Arguments of `rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    /// Back to this version, which was good before; the last good one if left out.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    #[command(flatten)]
    named: VersionArgs,
}

/// Arguments of `allow`.
#[derive(Clone, Debug, Args)]
pub struct AllowArgs {
    /// The version.
    #[arg(long, value_name = "VERSION")]
    version: String,
    #[command(flatten)]
    act: ActArgs,
}

/// Arguments of `pause`.
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// How long, such as `1h30m`; until resumed if left out.
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<String>,
    #[command(flatten)]
    act: ActArgs,
}

/// An act that needs no more.
///
/// # Errors
/// When rollbackd does not answer or `out` cannot be written.
pub async fn plain(name: &str, args: &ActArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    act(name, args, Map::new(), out).await
}

/// `rollback`.
///
/// # Errors
/// When rollbackd does not answer or `out` cannot be written.
pub async fn rollback(args: &RollbackArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let versions = [("version", &args.named.version), ("to", &args.to)];
    let word = versions.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v.clone()?.into())));
    act("rollback", &args.named.act, word.collect(), out).await
}

/// `approve`.
///
/// # Errors
/// When rollbackd does not answer or `out` cannot be written.
pub async fn approve(args: &VersionArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let version = args.version.iter().map(|v| ("version".to_owned(), v.as_str().into()));
    act("approve", &args.act, version.collect(), out).await
}

/// `allow`.
///
/// # Errors
/// When rollbackd does not answer or `out` cannot be written.
pub async fn allow(args: &AllowArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let version = Map::from_iter([("version".to_owned(), args.version.as_str().into())]);
    act("allow", &args.act, version, out).await
}

/// `pause`.
///
/// # Errors
/// When rollbackd does not answer or `out` cannot be written.
pub async fn pause(args: &PauseArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let lasting = args.lasting.iter().map(|text| ("for".to_owned(), text.as_str().into()));
    act("pause", &args.act, lasting.collect(), out).await
}

async fn act(
    name: &str,
    args: &ActArgs,
    mut word: Map<String, Value>,
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    word.insert("reason".to_owned(), args.reason.as_str().into());
    word.insert("actor".to_owned(), args.actor.as_str().into());
    let path = format!("/api/v1/fleets/{}/{name}", escaped(&args.fleet));
    let (done, answer) = ask(&args.server, &path, Some(json!(word))).await?;
    if done {
        writeln!(out, "{}: {}", args.fleet, text(&answer, "done"))?;
        return Ok(EXIT_OK);
    }
    writeln!(out, "refused: {}", text(&answer, "detail"))?;
    Ok(EXIT_FAILED)
}

/// `status`.
///
/// # Errors
/// When rollbackd does not answer or `out` cannot be written.
pub async fn status(args: &StatusArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let path = match &args.fleet {
        Some(fleet) => format!("/api/v1/fleets/{}", escaped(fleet)),
        None => "/api/v1/fleets".to_owned(),
    };
    let (done, fleets) = ask(&args.server, &path, None).await?;
    if !done {
        writeln!(out, "{}", text(&fleets, "detail"))?;
        return Ok(EXIT_FAILED);
    }
    if args.json {
        writeln!(out, "{fleets:#}")?;
        return Ok(EXIT_OK);
    }
    let breaker = &fleets["breaker"];
    if breaker["open"] == true {
        let (regressed, all) = (&breaker["regressed"], &breaker["fleets"]);
        writeln!(out, "breaker open: {regressed} of {all} fleets regress at once")?;
    }
    let one = std::slice::from_ref(&fleets);
    let fleets = fleets["fleets"].as_array().map_or(one, Vec::as_slice);
    if fleets.is_empty() {
        writeln!(out, "no fleet has been seen yet")?;
    }
    for fleet in fleets {
        let under_way = under_way(&args.server, fleet).await?;
        write!(out, "{}", page(fleet, under_way.as_deref()))?;
    }
    Ok(EXIT_OK)
}

/// The line on a fleet's rollback, if there is one.
async fn under_way(server: &Server, fleet: &Value) -> Result<Option<String>, CommandError> {
    let Some(id) = fleet["rollback"].as_str() else { return Ok(None) };
    let path = format!("/api/v1/rollbacks/{}", escaped(id));
    let (done, rollback) = ask(server, &path, None).await?;
    Ok(Some(if done {
        format!(
            "rolling back {} to {}: {}; {} workers and {} sessions left on it",
            text(&rollback, "from_version"),
            text(&rollback, "version"),
            text(&rollback, "state"),
            rollback["bad_workers"],
            rollback["bad_live"],
        )
    } else {
        format!("rolling back, {id}: no more is told: {}", text(&rollback, "detail"))
    }))
}

/// A fleet's paragraph, with the line on its rollback.
fn page(fleet: &Value, under_way: Option<&str>) -> String {
    let paused = match fleet["paused_until"].as_str() {
        _ if fleet["paused"] != true => String::new(),
        Some(until) => format!(", paused until {until}"),
        None => ", paused until resumed".to_owned(),
    };
    let (name, mode) = (text(fleet, "fleet"), text(fleet, "mode"));
    let mut lines =
        vec![format!("{name}  mode {mode}{paused}, last good {}", text(fleet, "last_good"))];
    if fleet["last_good_ready"] == false {
        lines.push(format!("no way back: {}", text(fleet, "last_good_state")));
    }
    lines.extend(fleet["holding"].as_str().map(|holding| format!("holding: {holding}")));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for version in list(&fleet["versions"]) {
        let denied = if version["denied"] == true { "  denied" } else { "" };
        let name = text(&version, "version");
        lines.push(format!(
            "{name}  {} workers, {} live{denied}",
            version["workers"], version["live"]
        ));
    }
    for rollout in list(&fleet["rollouts"]) {
        let (name, until) = (text(&rollout, "candidate"), text(&rollout, "observe_until"));
        let held = rollout["held"].as_str().map(|held| format!(": {held}")).unwrap_or_default();
        lines.push(format!("observing {name} until {until}{held}"));
        for verdict in list(&rollout["verdicts"]) {
            let log10 = |key: &str| verdict[key].as_f64();
            let strongest = log10("baseline_log10").into_iter().chain(log10("ceiling_log10"));
            let strongest = strongest.fold(f64::NEG_INFINITY, f64::max);
            lines.push(format!(
                "  {}: {}, {} of {} failed, control {} of {}; evidence 10^{strongest:.1} of 10^{:.1}",
                text(&verdict, "rule"),
                text(&verdict, "verdict"),
                verdict["failed"],
                verdict["started"],
                verdict["control_failed"],
                verdict["control_started"],
                log10("threshold_log10").unwrap_or(f64::NAN),
            ));
        }
        if let Some(narrow) = rollout["narrow"].as_object() {
            let share = |name: &str| 100.0 * narrow[name].as_f64().unwrap_or(f64::NAN);
            let (label, value) =
                (text(&rollout["narrow"], "label"), text(&rollout["narrow"], "value"));
            lines.push(format!(
                "  fix forward: {label} {value} has {:.0}% of the excess in {:.0}% of the sessions",
                share("excess_share").min(100.0),
                share("traffic_share"),
            ));
        }
        for value in list(&rollout["values"]) {
            let limit = |name: &str| {
                value[name].as_f64().map(|limit| format!(", {name} {limit}")).unwrap_or_default()
            };
            let (escalate, rollback) = (limit("escalate_above"), limit("rollback_above"));
            let found = value["value"].as_f64().map_or("no value".to_owned(), |v| v.to_string());
            let (rule, verdict) = (text(&value, "rule"), text(&value, "verdict"));
            lines.push(format!("  {rule}: {verdict}, {found}{escalate}{rollback}"));
        }
    }
    lines.extend(under_way.map(ToOwned::to_owned));
    lines.join("\n  ") + "\n"
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("none")
}

/// A name as one part of a path.
pub(super) fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    let part = |byte: u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    name.bytes().map(part).collect()
}

#[cfg(test)]
mod tests {
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_fleet_is_shown_with_what_matters_at_three_in_the_morning() {
        let fleet = json!({
            "fleet": "voice", "mode": "approve", "last_good": "v1", "paused": true,
            "paused_until": null, "last_good_ready": false,
            "last_good_state": "not running, and nothing has checked that it could be started",
            "holding": "no worker of this fleet is seen",
            "versions": [{"version": "v1", "workers": 2, "live": 3.0, "denied": false},
                         {"version": "v2", "workers": 1, "live": 4.0, "denied": true}],
            "rollouts": [{"candidate": "v3", "observe_until": "2026-01-01T00:00:00.000Z",
                "held": "would roll back; a person must approve", "verdicts": [
                {"rule": "s/F", "verdict": "suspect", "failed": 3, "started": 40, "control_failed": 1,
                 "control_started": 50, "baseline_log10": 1.25, "ceiling_log10": null,
                 "threshold_log10": 3.3}], "narrow": {"label": "tenant", "value": "acme",
                 "excess_share": 1.02, "traffic_share": 0.2}, "values": [
                {"rule": "q/Slow", "verdict": "over", "value": 2.5, "escalate_above": 1.5,
                 "rollback_above": 6.0},
                {"rule": "q/Cost", "verdict": "no_data", "value": null, "escalate_above": 1.0}]}],
            "rollback": "voice-7",
        });
        let under_way = "rolling back v2 to v1: draining";
        insta::assert_snapshot!(page(&fleet, Some(under_way)), @r"
        voice  mode approve, paused until resumed, last good v1
          no way back: not running, and nothing has checked that it could be started
          holding: no worker of this fleet is seen
          v1  2 workers, 3.0 live
          v2  1 workers, 4.0 live  denied
          observing v3 until 2026-01-01T00:00:00.000Z: would roll back; a person must approve
            s/F: suspect, 3 of 40 failed, control 1 of 50; evidence 10^1.2 of 10^3.3
            fix forward: tenant acme has 100% of the excess in 20% of the sessions
            q/Slow: over, 2.5, escalate_above 1.5, rollback_above 6
            q/Cost: no_data, no value, escalate_above 1
          rolling back v2 to v1: draining
        ");
    }

    /// An API with two fleets that are rolled back, one of which by a rollback it does not tell.
    async fn two_fleets() -> Server {
        let fleet = |name, id| json!({ "fleet": name, "mode": "observe", "rollback": id });
        let fleets = json!({ "fleets": [fleet("a", "a/1007"), fleet("b", "b-1")] });
        let rollback = |path: Path<String>| async move {
            if path.0 != "a/1007" {
                let problem = json!({ "detail": "there is no rollback `b-1`" });
                return (StatusCode::NOT_FOUND, Json(problem));
            }
            let told = json!({ "id": "a/1007", "from_version": "v2", "version": "v1",
                "state": "draining", "bad_workers": 1, "bad_live": 4.0 });
            (StatusCode::OK, Json(told))
        };
        let app = Router::new()
            .route("/api/v1/fleets", get(async move || Json(fleets)))
            .route("/api/v1/rollbacks/{id}", get(rollback));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { url, ..Server::default() }
    }

    #[tokio::test]
    async fn a_rollback_is_asked_for_by_its_id_and_shown_among_however_many() {
        let args = StatusArgs { fleet: None, server: two_fleets().await, json: false };
        let mut out = Vec::new();
        assert_eq!(status(&args, &mut out).await.unwrap(), EXIT_OK);
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        a  mode observe, last good none
          rolling back v2 to v1: draining; 1 workers and 4.0 sessions left on it
        b  mode observe, last good none
          rolling back, b-1: no more is told: there is no rollback `b-1`
        ");
    }

    #[test]
    fn a_fleets_name_is_one_part_of_the_path() {
        assert_eq!(escaped("voice:eu%2Fwest"), "voice:eu%252Fwest");
        assert_eq!(escaped("a/b c"), "a%2Fb%20c");
    }
}
