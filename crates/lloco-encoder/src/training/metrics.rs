//! Which curves the lines of `metrics.jsonl` draw: every loss by itself.

use serde_json::Value;

/// The losses that a line holds, by name.
pub(crate) fn losses(line: &Value) -> Vec<(String, f64)> {
    let losses = line.get("losses").and_then(Value::as_object).into_iter().flatten();
    losses.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
}
