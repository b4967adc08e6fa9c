//! `rollbackd explain`: why it acted, or why it has not yet. A client of a running rollbackd's API.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::client::{Server, ask};
use super::operate::{escaped, text};
use super::{CommandError, EXIT_OK};

/// Arguments of `explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 explained, 2 no such fleet or version, or no answer.\n\n\
    Examples:\n  rollbackd explain voice      # what is under observation or being rolled back\n  \
    rollbackd explain voice v2   # one version, also one that was rolled back earlier")]
pub struct ExplainArgs {
    /// The fleet, as `status` shows it.
    fleet: String,
    /// One version of it; else all that are under observation or being rolled back.
    version: Option<String>,
    #[command(flatten)]
    server: Server,
    /// The API's own answer: the sentences, and each test's figures.
    #[arg(long)]
    json: bool,
}

/// `explain`.
///
/// # Errors
/// When rollbackd does not answer or does not know the fleet or the version, or `out` cannot be
/// written.
pub async fn run(args: &ExplainArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let mut path = format!("/api/v1/fleets/{}/explain", escaped(&args.fleet));
    if let Some(version) = &args.version {
        path.push_str("?version=");
        path.push_str(&escaped(version));
    }
    let (done, explanation) = ask(&args.server, &path, None).await?;
    if !done {
        return Err(CommandError::Unknown(text(&explanation, "detail").to_owned()));
    }
    if args.json {
        writeln!(out, "{explanation:#}")?;
    } else {
        write!(out, "{}", page(&explanation))?;
    }
    Ok(EXIT_OK)
}

/// A paragraph for the fleet and one for each version.
fn page(explanation: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let paragraph = |name: &str, sentences: &Value| {
        let mut lines = vec![name.to_owned()];
        lines.extend(list(sentences).iter().filter_map(Value::as_str).map(ToOwned::to_owned));
        lines.join("\n  ") + "\n"
    };
    let fleet = paragraph(text(explanation, "fleet"), &explanation["sentences"]);
    let versions = list(&explanation["versions"]);
    let versions =
        versions.iter().map(|version| paragraph(text(version, "version"), &version["sentences"]));
    let paragraphs: Vec<String> = std::iter::once(fleet).chain(versions).collect();
    paragraphs.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fleet_and_each_version_have_a_paragraph() {
        let explanation = json!({
            "fleet": "voice",
            "sentences": ["An operator has paused it."],
            "versions": [{"version": "v2", "sentences": ["Nothing is done.", "It is observed."]}],
        });
        insta::assert_snapshot!(page(&explanation), @r"
        voice
          An operator has paused it.

        v2
          Nothing is done.
          It is observed.
        ");
    }
}
