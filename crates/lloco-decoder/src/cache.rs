//! Keys and values of the positions read so far.

use burn::tensor::{DType, Tensor, s};

#[cfg(feature = "flex")]
use crate::kernels;
use crate::{
    Decoder, Result,
    attention::{Context, heads},
    ops,
    precision::on_cpu,
    spilled::Spilled,
};

/// The KV cache of a batch: for each layer keys and values `[batch, kv_heads, capacity, head_dim]`.
///
/// Appending writes behind what is there and never moves it, as long as the capacity given at the start
/// suffices; beyond it the buffers double. On the CPU backend `flex` the numbers are f16, unless the weights are
/// [`F32`](crate::WeightType::F32); elsewhere they are of the activations' type. [`truncate`](Self::truncate) forgets the newest positions.
#[derive(Debug)]
pub struct KvCache {
    place: Place,
    batch: usize,
    len: usize,
}

/// Where keys and values are between passes.
#[derive(Debug)]
enum Place {
    /// On the device.
    Device(Vec<LayerCache>),
    /// On the device while their layer runs.
    Spilled(Box<Spilled>),
}

/// The keys and values of one layer, on the device.
#[derive(Debug)]
pub(crate) struct LayerCache {
    keys: Buffer,
    values: Buffer,
}

/// `[batch, kv_heads, capacity, head_dim]`; taken out while it is written, so that it is never shared.
#[derive(Debug)]
struct Buffer(Option<Tensor<4>>);

/// A cache at one layer.
#[derive(Debug)]
pub(crate) enum AtLayer<'a> {
    Device(&'a mut LayerCache),
    Spilled(&'a mut Spilled, usize),
}

impl KvCache {
    /// An empty cache for `batch` sequences with room for `capacity` positions.
    pub fn new(decoder: &Decoder, batch: usize, capacity: usize) -> Self {
        let config = decoder.config();
        let shape = [batch, config.num_key_value_heads, capacity.max(1), config.head_dim];
        let mut buffers = zeros(2 * config.num_hidden_layers, shape, decoder).into_iter();
        let mut layer = || LayerCache { keys: Buffer(buffers.next()), values: Buffer(buffers.next()) };
        let place = Place::Device((0..config.num_hidden_layers).map(|_| layer()).collect());
        Self { place, batch, len: 0 }
    }

    /// An empty cache for a text of which few positions stay ([`Pass::keep`](crate::Pass::keep)): only the layer that runs has all
    /// that is read at hand. What stays goes to an unnamed temporary file where it takes more than `in_memory` bytes, in
    /// [`std::env::temp_dir`], which `TMPDIR` names on Unix; it stays in memory, with a warning, where there is no room for a
    /// file. The numbers are those of [`new`](Self::new).
    ///
    /// `capacity` is the most that is read at once and what stays of before it. On a GPU, whose memory is far from a file, this is
    /// what [`new`](Self::new) makes, with room for as many positions.
    pub fn spilled(decoder: &Decoder, batch: usize, capacity: usize, in_memory: usize) -> Self {
        match on_cpu(decoder.device()) {
            true => {
                let spilled = Spilled::new(decoder, batch, capacity, in_memory);
                Self { place: Place::Spilled(Box::new(spilled)), batch, len: 0 }
            }
            false => Self::new(decoder, batch, capacity),
        }
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
        self.batch
    }

    pub(crate) fn layer(&mut self, index: usize) -> Option<AtLayer<'_>> {
        match &mut self.place {
            Place::Device(layers) => layers.get_mut(index).map(AtLayer::Device),
            Place::Spilled(spilled) => Some(AtLayer::Spilled(spilled, index)),
        }
    }

    /// Counts positions that every layer has appended.
    pub(crate) fn advance(&mut self, positions: usize) {
        self.len += positions;
    }
}

impl AtLayer<'_> {
    /// [`LayerCache::attend`]; of the new rows at least the first `context.kept` stay.
    pub(crate) fn attend(self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, context: &Context) -> Result<Tensor<3>> {
        match self {
            Self::Device(layer) => Ok(layer.attend(q, k, v, context)),
            Self::Spilled(spilled, index) => spilled.attend(index, [q, k, v], context),
        }
    }
}

impl LayerCache {
    /// A layer with `keys` and `values`, each `[batch, kv_heads, capacity, head_dim]`.
    pub(crate) fn with([keys, values]: [Tensor<4>; 2]) -> Self {
        Self { keys: Buffer(Some(keys)), values: Buffer(Some(values)) }
    }

    /// Its keys and values.
    pub(crate) fn into_parts(self) -> [Option<Tensor<4>>; 2] {
        [self.keys.0, self.values.0]
    }

    /// Attention over all that is there and the new rows, which are written behind it: `q` `[batch, rows, heads * dim]` of
    /// the newest rows, `k`, `v` `[batch, seq, kv_heads * dim]`, not rotated -> `[batch, rows, heads * dim]`.
    pub(crate) fn attend(&mut self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, context: &Context) -> Tensor<3> {
        let (past, seq) = (context.past, k.dims()[1]);
        #[cfg(feature = "flex")]
        if kernels::on_flex(&q)
            && ![&q, &k, &v].iter().any(|x| x.is_autodiff())
            && let (Some(keys), Some(values)) = (self.keys.take(past, past + seq), self.values.take(past, past + seq))
        {
            let (new, tables) = ([q, k, v], [context.cos, context.sin]);
            let (mixed, [keys, values]) = kernels::cached_attention(new, [keys, values], tables, past, &context.seen);
            (self.keys.0, self.values.0) = (Some(keys), Some(values));
            return mixed;
        }
        let (dim, first) = (2 * context.cos.dims()[1], seq - context.rows);
        let q = context.turn(heads(q, dim), first);
        let k = context.turn(heads(k, dim), 0).swap_dims(1, 2);
        let k = self.keys.append(past, k);
        let v = self.values.append(past, heads(v, dim).swap_dims(1, 2));
        ops::attention(q, k, v, &context.seen)
    }
}

impl Buffer {
    /// Takes the buffer out, with room for rows up to `end`; the first `len` are written.
    fn take(&mut self, len: usize, end: usize) -> Option<Tensor<4>> {
        let buffer = self.0.take()?;
        if buffer.dims()[2] >= end {
            return Some(buffer);
        }
        let [batch, heads, _, dim] = buffer.dims();
        let spare = [batch, heads, end.next_power_of_two() - len, dim];
        let spare = Tensor::zeros(spare, (&buffer.device(), buffer.dtype()));
        Some(Tensor::cat(vec![buffer.slice(s![.., .., 0..len, ..]), spare], 2))
    }

    /// Writes rows `[batch, kv_heads, seq, head_dim]` behind the first `len`; returns a view of all.
    fn append(&mut self, len: usize, new: Tensor<4>) -> Tensor<4> {
        let end = len + new.dims()[2];
        let buffer = match self.take(len, end) {
            Some(buffer) => {
                let new = new.cast(buffer.dtype());
                buffer.slice_assign(s![.., .., len..end, ..], new)
            }
            None => new,
        };
        self.0 = Some(buffer.clone());
        buffer.slice(s![.., .., 0..end, ..])
    }
}

fn zeros(count: usize, shape: [usize; 4], decoder: &Decoder) -> Vec<Tensor<4>> {
    let (device, dtype) = (decoder.device(), DType::from(decoder.cache_dtype()));
    #[cfg(feature = "flex")]
    if kernels::is_flex(device) {
        return kernels::zeros(count, shape, dtype, device);
    }
    (0..count).map(|_| Tensor::zeros(shape, (device, dtype))).collect()
}
