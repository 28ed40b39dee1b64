//! The control table, as text and as JSON.

use lloco_core::{
    Lloco,
    dataset::QaDocument,
    eval::{EvaluateConfig, Measure},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Output, Result, memory::peak_rss_bytes};

/// Asks a group questions with known answers, and shows how well they are answered from summaries and from what summaries
/// must be better than: as Markdown, or as one line of JSON.
///
/// # Errors
/// As [`Lloco::evaluate`]; when the stream is closed.
pub fn control(
    lloco: &Lloco,
    group: &str,
    questions: &[QaDocument],
    config: &EvaluateConfig,
    output: &Output,
) -> Result {
    let table = lloco.evaluate_on(group, questions, config)?;
    output.line(&table)?;
    let cells = |row| -> Value { Measure::ALL.iter().map(|&m| (m.name(), table.cell(row, m))).map(pair).collect() };
    let rows = table.rows.iter().map(|row| json!({"row": row.to_string(), "cells": cells(row)}));
    let verdicts = table.verdicts();
    let verdicts = verdicts.iter().map(|(name, f1, nll)| json!({"difference": name, "F1": f1, "NLL": nll}));
    output.report(&json!({
        "rows": rows.collect::<Vec<_>>(), "differences": verdicts.collect::<Vec<_>>(), "table": table,
        "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    Ok(())
}

fn pair((name, cell): (&str, impl Serialize)) -> (String, Value) {
    (name.to_owned(), json!(cell))
}
