//! How much of the device's arithmetic a training makes use of.

use std::time::Duration;

use lloco_core::Decoder;
use serde_json::{Value, json};

/// What the device reaches in [one large product](Decoder::product_rate), which takes about a second on a CPU, and on a GPU also
/// as long as its kernels take to compile. To be measured before a training, whose report a failure would lose; the training gets
/// the memory back.
pub fn product_rate(decoder: &Decoder) -> f64 {
    let rate = decoder.product_rate();
    decoder.device().memory_cleanup();
    rate
}

/// What a `--json` line says of the arithmetic of a training's steps:
///
/// ```text
/// share = operations / step_seconds / product_rate
/// ```
///
/// `operations` are those of the steps, forward, read anew for the way back, and gradients, as [`Decoder::operations`]
/// counts them; `product_rate` is that of [`product_rate`]. Without steps there is nothing to compare it with.
pub fn arithmetic(product_rate: Option<f64>, operations: f64, stepping: Duration) -> Value {
    let seconds = stepping.as_secs_f64();
    let rate = product_rate.filter(|_| seconds > 0.0);
    let share = rate.map(|rate| operations / seconds / rate);
    json!({"operations": operations, "step_seconds": seconds, "product_rate": rate, "share": share})
}
