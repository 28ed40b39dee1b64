//! How much of the device's arithmetic a training makes use of.

use std::time::Duration;

use lloco_core::Decoder;
use serde_json::{Value, json};

/// What a `--json` line says of the arithmetic of a training's steps:
///
/// ```text
/// share = operations / step_seconds / product_rate
/// ```
///
/// `operations` are those of the steps, forward, read anew for the way back, and gradients, as [`Decoder::operations`]
/// counts them; `product_rate` is what the device reaches in [one large product](Decoder::product_rate). That is measured here,
/// for about a second; without steps there is nothing to compare it with.
pub fn arithmetic(decoder: &Decoder, operations: f64, stepping: Duration) -> Value {
    let seconds = stepping.as_secs_f64();
    let rate = (seconds > 0.0).then(|| decoder.product_rate());
    let share = rate.map(|rate| operations / seconds / rate);
    json!({"operations": operations, "step_seconds": seconds, "product_rate": rate, "share": share})
}
