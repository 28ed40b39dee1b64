//! Weights of the same function that no block of four bits could hold.
//!
//! Numbers that come from blocks of sixteen levels fit such blocks again without loss. So that rounding has something to
//! round, each input channel of a projection is divided by a factor of its own, which the operation before it takes on: the
//! norm, the other factor of SwiGLU, or the value projection.

use lloco_benches::Result;
use lloco_decoder::DecoderConfig;

use crate::plain::Named;

/// Rescales all seven projections of every layer.
///
/// # Errors
/// When a tensor is missing.
pub(crate) fn rescale(tensors: &mut [Named], model: &DecoderConfig) -> Result<()> {
    let (dim, group) = (model.head_dim, model.num_attention_heads / model.num_key_value_heads);
    for layer in 0..model.num_hidden_layers {
        let mut of = |name: &str, scaled: &dyn Fn(usize, usize) -> f32| {
            let name = format!("model.layers.{layer}.{name}.weight");
            let found = tensors.iter_mut().find(|(found, ..)| *found == name);
            let (_, shape, values) = found.ok_or_else(|| format!("no tensor {name}"))?;
            let width = shape.last().copied().unwrap_or(1);
            values.iter_mut().enumerate().for_each(|(i, value)| *value *= scaled(i / width, i % width));
            Ok::<(), String>(())
        };
        // Channels of four sites in a layer.
        let factor = |site: usize, channel: usize| factor(4 * layer + site, channel);
        of("input_layernorm", &|_, column| factor(0, column))?;
        of("self_attn.q_proj", &|_, column| 1.0 / factor(0, column))?;
        of("self_attn.k_proj", &|_, column| 1.0 / factor(0, column))?;
        of("self_attn.v_proj", &|row, column| factor(1, row) / factor(0, column))?;
        // Heads of a group read the values of one.
        let value = |column: usize| column / dim / group * dim + column % dim;
        of("self_attn.o_proj", &|_, column| 1.0 / factor(1, value(column)))?;
        of("post_attention_layernorm", &|_, column| factor(2, column))?;
        of("mlp.gate_proj", &|_, column| 1.0 / factor(2, column))?;
        of("mlp.up_proj", &|row, column| factor(3, row) / factor(2, column))?;
        of("mlp.down_proj", &|_, column| 1.0 / factor(3, column))?;
    }
    Ok(())
}

/// From 0.8 to 1.25, by chance but the same in every run.
fn factor(site: usize, channel: usize) -> f32 {
    let mixed = ((site as u64) << 32 | channel as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let share = (mixed >> 40) as f32 / (1 << 24) as f32;
    0.8 * (1.25_f32 / 0.8).powf(share)
}
