//! What was found, and the forms it is told in.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::yaml::Problem;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It will not work.
    Error,
    /// It may not do what is meant.
    Warning,
    /// Good to know.
    Note,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something found, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) problem: Problem,
}

impl Finding {
    pub(super) fn error(problem: Problem) -> Self {
        Self { level: Level::Error, problem }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Error => self.problem.fmt(f),
            Level::Warning | Level::Note => {
                let Problem { file, context, message, .. } = &self.problem;
                write!(f, "{file}: {}: {context}: {message}", self.level.name())
            }
        }
    }
}

/// One object with all findings. `partial`: not all was found out, and what was not may be wrong.
pub(super) fn json(findings: &[Finding], partial: bool, out: &mut impl Write) -> io::Result<()> {
    let one = |finding: &Finding| -> Value {
        let Problem { file, place, context, message } = &finding.problem;
        json!({
            "level": finding.level.name(),
            "file": file,
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "context": context,
            "message": message,
        })
    };
    let ok = !partial && findings.iter().all(|finding| finding.level != Level::Error);
    let findings: Vec<Value> = findings.iter().map(one).collect();
    writeln!(out, "{:#}", json!({ "ok": ok, "partial": partial, "findings": findings }))
}

/// Workflow commands: `::error file=F,line=L,col=C::MESSAGE`.
pub(super) fn github(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let Problem { file, place, context, message } = &finding.problem;
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "notice",
        };
        let place = place
            .map_or_else(String::new, |place| format!(",line={},col={}", place.line, place.column));
        let text =
            if context.is_empty() { message.clone() } else { format!("{context}: {message}") };
        writeln!(out, "::{level} file={}{place}::{}", property(file), data(&text))?;
    }
    Ok(())
}

/// A message as GitHub's runner reads it.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property, in which `:` and `,` mean something too.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
