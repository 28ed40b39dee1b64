//! Tables of the rotary position embedding, grown as positions are reached.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use crate::{DecoderConfig, RopeScaling};

/// Cosines and sines for positions from 0, `[positions, head_dim / 2]`.
///
/// Tables grow past `max_position_embeddings` when asked: the accumulated softprompt of a very long
/// document runs there, and the published model does the same.
#[derive(Debug)]
pub(crate) struct RopeTables {
    frequencies: Vec<f32>,
    device: Device,
    tables: Mutex<(usize, Tensor<2>, Tensor<2>)>,
}

impl RopeTables {
    pub(crate) fn new(config: &DecoderConfig, device: &Device) -> Self {
        let frequencies = frequencies(config);
        let first = config.max_position_embeddings.min(8192);
        let tables = Mutex::new(build(&frequencies, first, device));
        Self { frequencies, device: device.clone(), tables }
    }

    /// The tables for at least `positions` positions.
    pub(crate) fn upto(&self, positions: usize) -> (Tensor<2>, Tensor<2>) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.0 < positions {
            *tables = build(&self.frequencies, positions.next_power_of_two(), &self.device);
        }
        (tables.1.clone(), tables.2.clone())
    }
}

fn build(frequencies: &[f32], positions: usize, device: &Device) -> (usize, Tensor<2>, Tensor<2>) {
    // Angles are rounded to f32 before cosine and sine, as in the reference implementation.
    let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
    let (cos, sin): (Vec<f32>, Vec<f32>) =
        angles.map(|a| (f64::from(a).cos() as f32, f64::from(a).sin() as f32)).unzip();
    let tensor = |values| Tensor::from_data(TensorData::new(values, [positions, frequencies.len()]), device);
    (positions, tensor(cos), tensor(sin))
}

/// Radians a position, one for each pair of dimensions.
fn frequencies(config: &DecoderConfig) -> Vec<f32> {
    let dim = config.head_dim;
    let plain = (0..dim / 2).map(|i| 1.0 / config.rope_theta.powf((2 * i) as f64 / dim as f64));
    match &config.rope_scaling {
        RopeScaling::None => plain.map(|f| f as f32).collect(),
        RopeScaling::Linear { factor } => plain.map(|f| (f / factor) as f32).collect(),
        RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, factor)| f as f32 / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => plain
            .map(|f| {
                let wavelength = std::f64::consts::TAU / f;
                let ratio = original_max_position_embeddings / wavelength;
                let smooth = ((ratio - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                ((1.0 - smooth) * f / factor + smooth * f) as f32
            })
            .collect(),
    }
}
