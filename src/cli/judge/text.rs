//! Figures as each format writes them.

use serde_json::{Value, json};

use crate::domain::narrow::Slice;

pub(super) fn document(slice: Option<&Slice>) -> Value {
    slice.map_or(Value::Null, |slice| json!({ "label": slice.label, "value": slice.value }))
}

/// A slice as a field of CSV.
pub(super) fn field(slice: Option<&Slice>) -> String {
    let text = slice.map(ToString::to_string).unwrap_or_default();
    if text.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

pub(super) fn shown(log10: Option<f64>) -> String {
    log10.map_or_else(|| "-".to_owned(), |log10| format!("{log10:.2}"))
}

pub(super) fn exact(log10: Option<f64>) -> String {
    log10.map_or_else(String::new, |log10| format!("{log10:.6}"))
}
