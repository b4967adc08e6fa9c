//! The ledger, page by page, and one record with what proves it.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::layout::{Place, date_time};
use super::{Page, answer, layout, missing};
use crate::http::explain::Witness;
use crate::http::{Caller, Problem};
use crate::ledger::record::Record;
use crate::ledger::verify::{ChainVerifier, Trust};
use crate::ports::ledger::{Ledger, LedgerError};

/// Records on a page.
const RECORDS: u32 = 50;

/// Which records.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Before {
    /// Only those below this `seq`; none: the last ones.
    before: Option<u64>,
}

/// `GET /ledger?before=SEQ`
pub(in crate::http) async fn ledger<L: Ledger>(
    State(witness): State<Witness<L>>,
    caller: Caller,
    before: Result<Query<Before>, QueryRejection>,
) -> Result<Response, Problem> {
    let page = Page::new(&witness.app, &caller);
    let end = page.view.last_seq + 1;
    let before = before.map_or(end, |Query(query)| query.before.unwrap_or(end)).min(end);
    let after = before.saturating_sub(u64::from(RECORDS) + 1);
    let mut records = read(&witness, after, RECORDS).await?;
    records.retain(|record| record.seq < before);
    let content = html! {
        h1 { "Ledger" }
        p.quiet {
            "Newest first. " a href="/api/v1/ledger" { "All as JSON" } "; "
            code { "rollbackd audit verify" } " checks every one of them."
        }
        div.scroll tabindex="0" role="group" aria-label="Records" {
            table {
                thead { tr {
                    th.number scope="col" { "record" } th scope="col" { "time" }
                    th scope="col" { "event" } th scope="col" { "target" }
                    th scope="col" { "version" } th scope="col" { "actor" }
                    th scope="col" { "result" }
                } }
                tbody { @for record in records.iter().rev() {
                    tr {
                        td.number { a href={ "/ledger/" (record.seq) } { (record.seq) } }
                        td { (date_time(&record.timestamp)) }
                        td { (record.event) } td { (record.target) }
                        td { (record.version.as_deref().unwrap_or("–")) }
                        td { (record.actor) } td { (record.result) }
                    }
                } }
            }
        }
        @if after > 0 { p { a href={ "/ledger?before=" (after + 1) } rel="next" { "Earlier records" } } }
    };
    Ok(answer(StatusCode::OK, layout::page(&page, Place::Ledger, "Ledger", "", &content)))
}

/// `GET /ledger/{seq}`
pub(in crate::http) async fn record<L: Ledger>(
    State(witness): State<Witness<L>>,
    caller: Caller,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let page = Page::new(&witness.app, &caller);
    let Some(seq) =
        path.ok().map(|Path(seq)| seq).filter(|seq| (1..=page.view.last_seq).contains(seq))
    else {
        return Ok(missing(&page, "There is no such record."));
    };
    let records = read(&witness, seq.saturating_sub(2), 3).await?;
    let at = |wanted: u64| records.iter().find(|record| record.seq == wanted);
    let Some(record) = at(seq) else {
        return Ok(missing(&page, "There is no such record."));
    };
    let (before, after) = (seq.checked_sub(1).and_then(at), at(seq + 1));
    let content = html! {
        h1 { "Record " (seq) ": " (record.event) }
        (proof(before, record, after))
        (fields(record))
        nav.neighbours aria-label="Records beside this one" {
            @if let Some(before) = before { a rel="prev" href={ "/ledger/" (before.seq) } { "← " (before.seq) " " (before.event) } }
            @if let Some(after) = after { a rel="next" href={ "/ledger/" (after.seq) } { (after.seq) " " (after.event) " →" } }
        }
    };
    let title = format!("Record {seq}");
    Ok(answer(StatusCode::OK, layout::page(&page, Place::Ledger, &title, "", &content)))
}

async fn read<L: Ledger>(
    witness: &Witness<L>,
    after: u64,
    limit: u32,
) -> Result<Vec<Record>, Problem> {
    let failed = |error: LedgerError| Problem::busy(format!("failed to read the ledger: {error}"));
    timeout(witness.app.limits.request_timeout, witness.ledger.read(after, limit))
        .await
        .map_err(|_| Problem::busy("the ledger took too long to answer"))?
        .map_err(failed)
}

/// Whether the record holds, and follows from the one before it.
fn proof(before: Option<&Record>, record: &Record, after: Option<&Record>) -> Markup {
    let verifier = before.map_or_else(
        || ChainVerifier::new(Trust::AnyKey),
        |before| ChainVerifier::after(Trust::AnyKey, before),
    );
    let holds = verifier.clone().check(record);
    let next = after.map(|after| ChainVerifier::after(Trust::AnyKey, record).check(after));
    html! {
        section.proof aria-labelledby="proof-title" {
            h2 #proof-title { "Verification" }
            @match &holds {
                Ok(()) => p.mark.good { span.shape aria-hidden="true" { "✓ " } "verified" },
                Err(broken) => p.mark.bad { span.shape aria-hidden="true" { "▲ " } "does not hold: " (broken) },
            }
            ul {
                @if holds.is_ok() {
                    li { "its hash is that of its content" }
                    li {
                        @if record.seq == 1 { "it is the first" }
                        @else { "it names the hash of " a href={ "/ledger/" (record.seq - 1) } { "record " (record.seq - 1) } }
                    }
                    li { "its signature is by the key " code { (record.key) } }
                }
                @match next {
                    Some(Ok(())) => li { "record " (record.seq + 1) " follows from it" },
                    Some(Err(broken)) => li { "what comes after it does not hold: " (broken) },
                    None => li { "it is the last one now" },
                }
            }
            p.quiet {
                "Compare the key with the one you have noted. "
                code { "rollbackd audit verify" } " checks the whole chain."
            }
        }
    }
}

fn fields(record: &Record) -> Markup {
    let own = [
        ("time", record.timestamp.as_str()),
        ("actor", &record.actor),
        ("target", &record.target),
        ("result", &record.result),
        ("version", record.version.as_deref().unwrap_or("–")),
    ];
    let chain =
        [("previous", &record.previous), ("hash", &record.hash), ("signature", &record.signature)];
    html! {
        dl.fields {
            @for (name, value) in own { dt { (name) } dd { (value) } }
            @for (name, value) in &record.extra { dt { (name) } dd { (extra(name, value)) } }
            @for (name, value) in chain { dt { (name) } dd { code { (value) } } }
        }
    }
}

/// A text as it is; anything else as JSON, folded when it is long.
fn extra(name: &str, value: &Value) -> Markup {
    match value {
        Value::String(text) => html! { (text) },
        Value::Null => html! { "–" },
        Value::Array(_) | Value::Object(_) => {
            let text = serde_json::to_string_pretty(value).unwrap_or_default();
            html! {
                details id={ "field-" (name) } {
                    summary { (text.lines().count()) " lines" }
                    pre tabindex="0" { (text) }
                }
            }
        }
        Value::Bool(_) | Value::Number(_) => html! { (value.to_string()) },
    }
}
