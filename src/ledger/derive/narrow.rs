//! Whether a narrow regression is one: by its slice's counts and the rest's evidence.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Missing, breadth, number, same, session, text};
use crate::domain::counts::Counts;
use crate::domain::narrow::{Breadth, Excess, Standout, is_clear};

/// How a narrow regression is recorded: the slice, by what it stands out, and the rest's watch,
/// which is recorded like that of a rule.
#[must_use]
pub fn narrow_json(standout: &Standout, rest: &Value) -> Value {
    let Standout { slice, of_slice, of_all } = standout;
    json!({
        "slice": { "label": slice.label, "value": slice.value },
        "excess_share": standout.excess_share(),
        "traffic_share": standout.traffic_share(),
        "of_slice": excess_json(of_slice),
        "of_all": excess_json(of_all),
        "rest": rest,
    })
}

fn excess_json(Excess { started, failed, expected }: &Excess) -> Value {
    json!({ "started": started, "failed": failed, "expected": expected })
}

/// Whether a narrow regression is one, by its slice's counts and the rest's evidence.
pub(super) fn again(
    fields: &Map<String, Value>,
    recorded: &Breadth,
    wholes: &BTreeMap<String, Counts>,
    differences: &mut Vec<String>,
) -> Result<(), Missing> {
    let Some(written) = fields.get("narrow") else {
        return match recorded {
            Breadth::Narrow(_) => Err(Missing::of("narrow")),
            Breadth::Wide | Breadth::Unknown => Ok(()),
        };
    };
    let slice = breadth(written.get("slice")).ok_or(Missing::of("slice"))?;
    if slice != *recorded {
        differences.push(format!("{recorded:?} is recorded, and {slice:?}"));
    }
    let Breadth::Narrow(slice) = slice else { return Err(Missing::of("slice")) };
    let rest = written.get("rest").ok_or(Missing::of("rest"))?;
    let rule = text(rest, "rule")?;
    let name = format!("{rule} without {slice}");
    let (watch, verdict) = session(rest, &name, differences)?;
    if !is_clear(&watch, number(rest, "threshold_log10")?) {
        let verdict = verdict.name();
        differences.push(format!("{name}: {verdict} is derived, so the regression is wide"));
    }
    let (of_slice, of_all) = (excess(written, "of_slice")?, excess(written, "of_all")?);
    let standout = Standout { slice, of_slice, of_all };
    let shares =
        [("excess_share", standout.excess_share()), ("traffic_share", standout.traffic_share())];
    for (field, derived) in shares {
        let recorded = number(written, field)?;
        if !same(recorded, derived) {
            differences.push(format!("{name}: {field} {recorded} is recorded, {derived} derived"));
        }
    }
    if !standout.stands_out() {
        differences.push(format!("{} does not stand out", standout.slice));
    }
    // What the whole counted and no slice has is in the whole alone.
    let (whole, rest) = (wholes.get(rule).ok_or(Missing::of("rest"))?, watch.total().candidate);
    let all = |slice: u64, rest: u64, whole: u64| whole.max(slice.saturating_add(rest));
    if of_all.started != all(of_slice.started, rest.started, whole.started)
        || of_all.failed != all(of_slice.failed, rest.failed, whole.failed)
    {
        differences.push(format!("{} and the rest are not the whole", standout.slice));
    }
    Ok(())
}

fn excess(narrow: &Value, field: &str) -> Result<Excess, Missing> {
    let part = narrow.get(field).ok_or(Missing::of(field))?;
    let whole = |name: &str| part.get(name).and_then(Value::as_u64).ok_or(Missing::of(field));
    let (started, failed) = (whole("started")?, whole("failed")?);
    Ok(Excess { started, failed, expected: number(part, "expected")? })
}
