//! Keys and values of the positions read so far.

use burn::tensor::{DType, Device, Tensor, s};

use crate::Decoder;

/// The KV cache of a batch: for each layer keys and values `[batch, kv_heads, capacity, head_dim]`.
///
/// Appending writes behind what is there and never moves it, as long as the capacity given at the start
/// suffices; beyond it the buffers double. On the CPU backend `flex` the numbers are f16, unless the weights are
/// [`F32`](crate::WeightType::F32); elsewhere they are of the activations' type. [`truncate`](Self::truncate) forgets the newest positions.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
}

/// One layer's share of the cache.
#[derive(Debug)]
pub(crate) struct LayerCache {
    keys: Buffer,
    values: Buffer,
}

/// `[batch, kv_heads, capacity, head_dim]`; taken out while it is written, so that it is never shared.
#[derive(Debug)]
struct Buffer(Option<Tensor<4>>);

impl KvCache {
    /// An empty cache for `batch` sequences with room for `capacity` positions.
    pub fn new(decoder: &Decoder, batch: usize, capacity: usize) -> Self {
        let config = decoder.config();
        let shape = [batch, config.num_key_value_heads, capacity.max(1), config.head_dim];
        let buffer = || Buffer(Some(zeros(shape, decoder)));
        let layer = || LayerCache { keys: buffer(), values: buffer() };
        Self { layers: (0..config.num_hidden_layers).map(|_| layer()).collect(), len: 0 }
    }

    /// Positions held, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all but the first `len` positions; does nothing if there are no more than that.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Sequences in the batch.
    pub(crate) fn batch(&self) -> usize {
        let first = self.layers.first().and_then(|layer| layer.keys.0.as_ref());
        first.map_or(0, |keys| keys.dims()[0])
    }

    pub(crate) fn layer(&mut self, index: usize) -> Option<&mut LayerCache> {
        self.layers.get_mut(index)
    }

    /// Counts positions that every layer has appended.
    pub(crate) fn advance(&mut self, positions: usize) {
        self.len += positions;
    }
}

impl LayerCache {
    /// Writes keys and values `[batch, kv_heads, seq, head_dim]` behind position `len`;
    /// returns views of all that is there, `[batch, kv_heads, len + seq, head_dim]`.
    pub(crate) fn append(&mut self, len: usize, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        (self.keys.append(len, keys), self.values.append(len, values))
    }
}

impl Buffer {
    fn append(&mut self, len: usize, new: Tensor<4>) -> Tensor<4> {
        let new = match &self.0 {
            Some(buffer) if buffer.dtype() != new.dtype() => new.cast(buffer.dtype()),
            _ => new,
        };
        let end = len + new.dims()[2];
        let buffer = match self.0.take() {
            Some(buffer) if buffer.dims()[2] >= end => buffer.slice_assign(s![.., .., len..end, ..], new),
            Some(buffer) => {
                let room = end.next_power_of_two() - end;
                let [batch, heads, _, dim] = new.dims();
                let spare = Tensor::zeros([batch, heads, room, dim], (&new.device(), new.dtype()));
                Tensor::cat(vec![buffer.slice(s![.., .., 0..len, ..]), new, spare], 2)
            }
            None => new,
        };
        let view = buffer.clone().slice(s![.., .., 0..end, ..]);
        self.0 = Some(buffer);
        view
    }
}

fn zeros(shape: [usize; 4], decoder: &Decoder) -> Tensor<4> {
    let device: &Device = decoder.device();
    Tensor::zeros(shape, (device, DType::from(decoder.cache_dtype())))
}
