//! The kernels that benches time alone. Not part of the public interface: it may change at any time.

use std::{hint::black_box, time::Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::{
    Decoder, Error, Result, WeightType,
    ops::{self, Seen},
    precision::on_cpu,
    weight::Weight,
};

/// Bytes that a decoded token reads: the projections of all layers and the output head. Training adds transposed copies.
pub fn weight_bytes(decoder: &Decoder) -> usize {
    decoder.matrices().map(Weight::bytes).sum()
}

/// Bytes of one number in a KV cache.
pub fn cached_bytes(decoder: &Decoder) -> usize {
    DType::from(decoder.cache_dtype()).size()
}

/// A frozen projection of random weights.
#[derive(Debug)]
pub struct Projection(Weight);

impl Projection {
    /// Weights `[rows, columns]`, held as `weights`.
    ///
    /// # Errors
    /// For weights that the device does not compute with.
    pub fn random(rows: usize, columns: usize, weights: WeightType, device: &Device) -> Result<Self> {
        Self::new(Weight::new(values(rows, columns, device), [rows, columns], weights, device)?)
    }

    /// Weights `[rows, columns]`, held as the decoder's first matrix is.
    ///
    /// # Errors
    /// For a decoder without layers.
    pub fn as_in(decoder: &Decoder, rows: usize, columns: usize) -> Result<Self> {
        let values = values(rows, columns, decoder.device());
        Self::new(decoder.matrices().next().and_then(|first| first.alike(values, [rows, columns])))
    }

    fn new(weight: Option<Weight>) -> Result<Self> {
        let mismatch = || Error::Mismatch { what: "random weights", expected: "finite".into(), found: "others".into() };
        weight.map(Self).ok_or_else(mismatch)
    }

    /// `x` `[batch, seq, columns]` -> `[batch, seq, rows]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.0.product(x)
    }
}

/// Floating-point operations a second of products of inputs of type `dtype` with what `weights` makes: a square projection
/// of a width that suits the kernel, and on a GPU is enough to fill it.
///
/// # Errors
/// Those of `weights`.
pub fn product_rate(device: &Device, dtype: DType, weights: impl FnOnce(usize) -> Result<Projection>) -> Result<f64> {
    let (rows, width) = if on_cpu(device) { (1024, 1536) } else { (8192, 8192) };
    let weights = weights(width)?;
    let x = Tensor::<3>::random([1, rows, width], Distribution::Default, device).cast(dtype);
    Ok(best(10, || {
        wait(weights.forward(x.clone()));
        (2 * rows * width * width) as f64
    }))
}

/// Waits until a tensor is computed.
pub fn wait(tensor: Tensor<3>) {
    let device = tensor.device();
    // A device without a queue has nothing to wait for. One with a queue need not write what is dropped before.
    let _ = device.sync();
    black_box(tensor);
}

/// The best rate of several runs of work that tells its amount.
pub fn best(runs: usize, mut work: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = work();
        amount / start.elapsed().as_secs_f64()
    };
    (0..runs).map(rate).fold(0.0, f64::max)
}

fn values(rows: usize, columns: usize, device: &Device) -> Vec<f32> {
    let values = Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 0.02), device);
    values.into_data().iter::<f32>().collect()
}

/// Causal grouped-query attention: `q` `[batch, seq_q, heads, dim]`, `k` and `v` `[batch, kv_heads, seq_k, dim]` ->
/// `[batch, seq_q, heads * dim]`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
    ops::attention(q, k, v, &Seen { padding: [].into(), causal: true, rounded: true, pieces: [].into() })
}
