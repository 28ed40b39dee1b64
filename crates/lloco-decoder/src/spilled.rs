//! Keys and values that are at hand for one layer at a time.

use std::{
    env,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
};

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};

use crate::{Decoder, Error, Result, attention::Context, cache::LayerCache, zeros};

/// Rows by which the memory for the layer that runs grows beyond what was announced, so that it seldom does.
const STAGED: usize = 1024;

/// Rows that room is made for before they are there.
const MOST: usize = 8192;

/// Keys and values of all layers, kept as bytes. A layer that runs gets its own on the device, with room for the new
/// rows; of these the first are kept.
///
/// What is kept lies as `[layer, keys or values, batch, kv_heads, capacity, head_dim]`, so that what a layer needs of a head is
/// one run of bytes.
#[derive(Debug)]
pub(crate) struct Spilled {
    kept: Kept,
    /// Rows of each head that there is room for.
    capacity: usize,
    /// Rows of each head that the layer that runs gets room for from the start.
    announced: usize,
    /// Bytes beyond which what is kept goes to a file.
    in_memory: usize,
    /// Sequences times heads.
    heads: usize,
    layers: usize,
    /// Of one row of a head.
    row_bytes: usize,
    /// Memory for keys and values of the layer that runs: it goes from one to the next.
    stage: [Option<Bytes>; 2],
    /// `[batch, kv_heads, head_dim]`.
    shape: [usize; 3],
    dtype: DType,
    device: Device,
}

/// Bytes, zero at first.
#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    /// Without a name: it is gone when this is.
    File(File),
}

impl Spilled {
    pub(crate) fn new(decoder: &Decoder, batch: usize, announced: usize, in_memory: usize) -> Self {
        let config = decoder.config();
        let dtype = DType::from(decoder.cache_dtype());
        Self {
            kept: Kept::Memory(Vec::new()),
            capacity: 0,
            announced: announced.min(MOST),
            in_memory,
            heads: batch * config.num_key_value_heads,
            layers: config.num_hidden_layers,
            row_bytes: config.head_dim * dtype.size(),
            stage: [None, None],
            shape: [batch, config.num_key_value_heads, config.head_dim],
            dtype,
            device: decoder.device().clone(),
        }
    }

    /// [`LayerCache::attend`] for layer `index`, with new rows `[q, k, v]`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub(crate) fn attend(&mut self, index: usize, [q, k, v]: [Tensor<3>; 3], context: &Context) -> Result<Tensor<3>> {
        let (past, new) = (context.past, k.dims()[1]);
        self.reserve(past, past + context.kept).map_err(failed)?;
        let [keys, values] = [0, 1].map(|part| self.load(index, part, past, past + new));
        let mut layer = LayerCache::with([keys.map_err(failed)?, values.map_err(failed)?]);
        let mixed = layer.attend(q, k, v, context);
        for (part, tensor) in layer.into_parts().into_iter().enumerate() {
            if let Some(tensor) = tensor {
                self.store(index, part, tensor, past..past + context.kept).map_err(failed)?;
            }
        }
        Ok(mixed)
    }

    /// A layer's keys or values: the first `past` rows as kept, room for those up to `end`.
    fn load(&mut self, layer: usize, part: usize, past: usize, end: usize) -> io::Result<Tensor<4>> {
        let [batch, heads, dim] = self.shape;
        let enough = |stage: &Bytes| stage.len() >= self.heads * end * self.row_bytes;
        // One that is too small goes before the next one comes.
        let stage = self.stage[part].take().filter(enough);
        let mut stage = stage.unwrap_or_else(|| {
            let room = if end > self.announced { end.next_multiple_of(STAGED) } else { self.announced };
            zeros([batch, heads, room, dim], self.dtype, &self.device).into_data().into_bytes()
        });
        let length = stage.len() / self.heads;
        for (head, room) in stage.chunks_exact_mut(length).enumerate() {
            let at = self.place(layer, part, head);
            self.kept.read(at, &mut room[..past * self.row_bytes])?;
        }
        let data = TensorData::from_bytes(stage, [batch, heads, length / self.row_bytes, dim], self.dtype);
        Ok(Tensor::from_data(data, (&self.device, self.dtype)))
    }

    /// Keeps some rows of a layer's keys or values.
    fn store(&mut self, layer: usize, part: usize, from: Tensor<4>, rows: Range<usize>) -> io::Result<()> {
        let stage = from.into_data().into_bytes();
        let rows = rows.start * self.row_bytes..rows.end * self.row_bytes;
        for (head, room) in stage.chunks_exact(stage.len() / self.heads).enumerate() {
            let at = self.place(layer, part, head) + rows.start as u64;
            self.kept.write(at, &room[rows.clone()])?;
        }
        self.stage[part] = Some(stage);
        Ok(())
    }

    /// Where a head's rows begin.
    fn place(&self, layer: usize, part: usize, head: usize) -> u64 {
        self.piece((layer * 2 + part) * self.heads + head, self.capacity)
    }

    /// Where piece `index` begins, if each has room for `capacity` rows.
    fn piece(&self, index: usize, capacity: usize) -> u64 {
        index as u64 * (capacity * self.row_bytes) as u64
    }

    /// Makes room for `end` rows; `past` are kept.
    fn reserve(&mut self, past: usize, end: usize) -> io::Result<()> {
        if end <= self.capacity {
            return Ok(());
        }
        let (capacity, pieces) = (end.next_power_of_two(), self.layers * 2 * self.heads);
        let mut kept = Kept::new(self.piece(pieces, capacity), self.in_memory)?;
        let mut rows = vec![0; past * self.row_bytes];
        for index in 0..if past > 0 { pieces } else { 0 } {
            self.kept.read(self.piece(index, self.capacity), &mut rows)?;
            kept.write(self.piece(index, capacity), &rows)?;
        }
        (self.kept, self.capacity) = (kept, capacity);
        Ok(())
    }
}

impl Kept {
    /// So many zeros: in memory up to `in_memory`, and where no file can be made.
    fn new(bytes: u64, in_memory: usize) -> io::Result<Self> {
        if bytes > in_memory as u64 {
            let file = tempfile::tempfile().and_then(|file| file.set_len(bytes).map(|()| file));
            match file {
                Ok(file) => return Ok(Self::File(file)),
                Err(error) => warn(&error),
            }
        }
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self::Memory(vec![0; bytes]))
    }

    /// Reads as many bytes as `into` has, from `at` on.
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => (&bytes[at as usize..]).read_exact(into),
            Self::File(file) => {
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(into)
            }
        }
    }

    /// Writes `from` to the bytes from `at` on. If the file cannot be written, all of it moves to memory.
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        if let Self::File(file) = self {
            let Err(error) = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(from)) else { return Ok(()) };
            warn(&error);
            let mut bytes = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            *self = Self::Memory(bytes);
        }
        if let Self::Memory(bytes) = self {
            bytes[at as usize..][..from.len()].copy_from_slice(from);
        }
        Ok(())
    }
}

fn warn(error: &io::Error) {
    let directory = env::temp_dir();
    tracing::warn!(%error, directory = %directory.display(), "no room for keys and values in a file: they stay in memory");
}

fn failed(source: io::Error) -> Error {
    Error::Io { path: env::temp_dir(), source }
}
