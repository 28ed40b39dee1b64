//! Attention with grouped heads, causal or not, forward. No score matrix: a task keeps one tile of scores.
//!
//! Many queries (prefill): a task takes a run of positions of all query heads that share a key head. It walks the key
//! tiles that its last position sees and keeps running maximum, sum and output
//! per row (online softmax). Few queries (decoding) are in [`super::decode`].

use super::cpu::{Isa, Kernel};
use super::shared::Shared;
use super::simd::{Block, LANES, Simd};
use super::tile::{Left, Right, Sink, product};
use rayon::prelude::*;

/// Keys of one tile.
pub(crate) const TILE: usize = 64;

/// Rows (positions times heads of a group) that a task aims at.
const ROWS: usize = 96;

/// Sizes of one attention call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    /// Whether a query sees no key behind its own position.
    pub(crate) causal: bool,
}

impl Sizes {
    /// Query heads that share a key head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The keys that query `i` sees, left padding aside: `0..visible`.
    #[inline(always)]
    pub(crate) fn visible(&self, i: usize) -> usize {
        if self.causal { (i + 1 + self.keys).saturating_sub(self.queries) } else { self.keys }
    }

    /// The first query that sees key `j`.
    pub(crate) fn first(&self, j: usize) -> usize {
        if self.causal { (j + self.queries).saturating_sub(self.keys) } else { 0 }
    }

    /// Of each dot product.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// A number that keys and values may be kept in.
pub(crate) trait Stored: Copy + Send + Sync + 'static {
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F;
    fn widen(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Block) -> S::F {
        s.load(from)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for half::bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_bf16(from)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for half::f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_f16(from)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// A `[batch, head, row, dim]` tensor read in place; only its last dimension must be dense.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) offset: usize,
    /// Of batch, head and row, in elements.
    pub(crate) strides: [usize; 3],
    pub(crate) dim: usize,
}

impl<'a, T> View<'a, T> {
    #[inline(always)]
    pub(crate) fn row(&self, batch: usize, head: usize, row: usize) -> &'a [T] {
        let at = self.offset + batch * self.strides[0] + head * self.strides[1] + row * self.strides[2];
        &self.data[at..at + self.dim]
    }
}

/// What attention reads.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a, T> {
    pub(crate) sizes: Sizes,
    pub(crate) q: View<'a, f32>,
    pub(crate) k: View<'a, T>,
    pub(crate) v: View<'a, T>,
    /// Masked keys at the start of each batch row; empty for none.
    pub(crate) padding: &'a [usize],
}

impl<T> Inputs<'_, T> {
    #[inline(always)]
    pub(crate) fn padding(&self, batch: usize) -> usize {
        self.padding.get(batch).copied().unwrap_or(0)
    }
}

/// Attention into `out` `[batch, queries, heads * dim]`; with `lse` `[batch, heads, queries]` also the logarithm of
/// each row's sum of exponentials, which the backward pass wants. A row that sees no key gives 0 and `-inf`.
pub(crate) fn attention<T: Stored>(isa: Isa, inputs: Inputs<'_, T>, out: &mut [f32], lse: Option<&mut [f32]>) {
    let sizes = inputs.sizes;
    assert_eq!(out.len(), sizes.batch * sizes.queries * sizes.heads * sizes.dim, "{sizes:?}");
    if out.is_empty() {
        return;
    }
    let mut unused = Vec::new();
    let lse = lse.unwrap_or_else(|| {
        unused.resize(sizes.batch * sizes.heads * sizes.queries, 0.0);
        &mut unused
    });
    assert_eq!(lse.len(), sizes.batch * sizes.heads * sizes.queries, "{sizes:?}");
    if super::decode::suits(&sizes) {
        return super::decode::attention(isa, inputs, out, lse);
    }
    let step = (ROWS / sizes.group()).clamp(8, ROWS).min(sizes.queries);
    let runs = sizes.queries.div_ceil(step);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let columns = key_columns(&inputs);
    // The last positions see most keys: they go first.
    (0..runs * sizes.batch * sizes.kv_heads).into_par_iter().with_max_len(1).for_each(|t| {
        let first = (runs - 1 - t / (sizes.batch * sizes.kv_heads)) * step;
        let (batch, kv_head) = (t / sizes.kv_heads % sizes.batch, t % sizes.kv_heads);
        let positions = first..sizes.queries.min(first + step);
        isa.run(Task { inputs, columns: &columns, batch, kv_head, positions, out: &out, lse: &lse });
    });
}

/// All keys as the columns of panels, tile by tile, `[batch, kv_heads, tiles, panels of a tile, dim]` blocks: as much memory
/// as the keys take in f32, for the time of one call.
fn key_columns<T: Stored>(inputs: &Inputs<'_, T>) -> Vec<Block> {
    let sizes = inputs.sizes;
    let (tiles, tile) = (sizes.keys.div_ceil(TILE), TILE / LANES * sizes.dim);
    let mut columns = vec![[0.0; LANES]; sizes.batch * sizes.kv_heads * tiles * tile];
    columns.par_chunks_exact_mut(tile).enumerate().for_each(|(t, columns)| {
        let (pair, start) = (t / tiles, t % tiles * TILE);
        let row = |j| inputs.k.row(pair / sizes.kv_heads, pair % sizes.kv_heads, start + j);
        pack_columns(columns, sizes.dim, TILE.min(sizes.keys - start), row);
    });
    columns
}

/// One run of positions of the heads that share `kv_head`.
struct Task<'a, T> {
    inputs: Inputs<'a, T>,
    columns: &'a [Block],
    batch: usize,
    kv_head: usize,
    positions: std::ops::Range<usize>,
    out: &'a Shared<'a, f32>,
    lse: &'a Shared<'a, f32>,
}

impl<T: Stored> Kernel for Task<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Inputs { sizes, q, v, .. } = self.inputs;
        let (span, dim) = (self.positions.len(), sizes.dim);
        let rows = span * sizes.group();
        let panels = dim.div_ceil(LANES);
        // Row r is position r % span of head r / span of the group.
        let at = |r: usize| (self.kv_head * sizes.group() + r / span, self.positions.start + r % span);
        let mut queries = vec![0.0; rows * dim];
        for (r, to) in queries.chunks_exact_mut(dim).enumerate() {
            let (head, position) = at(r);
            for (to, x) in to.iter_mut().zip(q.row(self.batch, head, position)) {
                *to = x * sizes.scale();
            }
        }
        let mut sums = vec![[0.0; LANES]; rows * panels];
        let mut state = vec![Softmax::new(); rows];
        let mut scores = vec![[0.0; LANES]; rows * (TILE / LANES)];
        let (tiles, tile) = (sizes.keys.div_ceil(TILE), TILE / LANES * dim);
        let columns = &self.columns[(self.batch * sizes.kv_heads + self.kv_head) * tiles * tile..][..tiles * tile];
        let mut values = vec![[0.0; LANES]; panels * TILE];
        let padding = self.inputs.padding(self.batch);
        let end = sizes.visible(self.positions.end - 1);
        for start in (padding / TILE * TILE..end).step_by(TILE) {
            let len = TILE.min(end - start);
            pack_rows(s, &mut values, TILE, len, dim, |j| v.row(self.batch, self.kv_head, start + j));
            let left = Left { data: &queries, stride: dim, depth: dim };
            let panels_of_tile = &columns[start / TILE * tile..][..tile];
            let right = Right { panels: panels_of_tile, stride: dim, count: len.div_ceil(LANES) };
            product(s, left, 0..rows, right, &mut Set { to: &mut scores, stride: TILE / LANES });
            for r in 0..rows {
                let seen = sizes.visible(self.positions.start + r % span).min(start + len).saturating_sub(start);
                let row = scores[r * (TILE / LANES)..].first_chunk_mut().expect("allocated above");
                let grown = state[r].tile(s, row, padding.saturating_sub(start)..seen);
                if grown != 1.0 {
                    for sum in &mut sums[r * panels..(r + 1) * panels] {
                        s.store(sum, s.mul(s.load(sum), s.splat(grown)));
                    }
                }
            }
            let left = Left { data: scores.as_flattened(), stride: TILE, depth: len };
            let right = Right { panels: &values, stride: TILE, count: panels };
            product(s, left, 0..rows, right, &mut Add { to: &mut sums, stride: panels });
        }
        for r in 0..rows {
            let (head, position) = at(r);
            let row = (self.batch * sizes.queries + position) * sizes.heads + head;
            // SAFETY: no other task has this position of this head, and the pieces end with the iteration.
            let (out, lse) = unsafe {
                let place = (self.batch * sizes.heads + head) * sizes.queries + position;
                (self.out.piece(row * dim, dim), self.lse.piece(place, 1))
            };
            let (scale, log) = state[r].finish();
            for (out, sum) in out.iter_mut().zip(sums[r * panels..(r + 1) * panels].as_flattened()) {
                *out = sum * scale;
            }
            lse[0] = log;
        }
    }
}

/// Running maximum and sum of exponentials of one row of scores.
#[derive(Clone, Copy)]
pub(crate) struct Softmax {
    pub(crate) max: f32,
    pub(crate) sum: f32,
}

impl Softmax {
    pub(crate) fn new() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Turns the `seen` scores into exponentials relative to the new maximum and all others into 0; returns the factor
    /// that earlier sums shrink by.
    #[inline(always)]
    pub(crate) fn tile<S: Simd>(
        &mut self,
        s: S,
        scores: &mut [Block; TILE / LANES],
        seen: std::ops::Range<usize>,
    ) -> f32 {
        if seen.is_empty() {
            scores.as_flattened_mut().fill(0.0);
            return 1.0;
        }
        scores.as_flattened_mut()[..seen.start].fill(f32::NEG_INFINITY);
        scores.as_flattened_mut()[seen.end..].fill(f32::NEG_INFINITY);
        let mut max = s.splat(self.max);
        for block in scores.iter() {
            max = s.max(s.load(block), max);
        }
        let max = s.max_lane(max);
        let mut sum = s.splat(0.0);
        for block in scores.iter_mut() {
            let e = s.exp(s.sub(s.load(block), s.splat(max)));
            s.store(block, e);
            sum = s.add(sum, e);
        }
        let shrink = if self.max == max { 1.0 } else { (self.max - max).exp() };
        self.sum = self.sum * shrink + s.sum(sum);
        self.max = max;
        shrink
    }

    /// The factor that makes sums into averages, and the logarithm of the sum of exponentials.
    pub(crate) fn finish(&self) -> (f32, f32) {
        if self.max == f32::NEG_INFINITY && self.sum == 0.0 {
            return (0.0, f32::NEG_INFINITY);
        }
        (1.0 / self.sum, self.max + self.sum.ln())
    }
}

/// Stores sums as they come.
pub(crate) struct Set<'a> {
    pub(crate) to: &'a mut [Block],
    pub(crate) stride: usize,
}

impl<S: Simd> Sink<S> for Set<'_> {
    #[inline(always)]
    fn put(&mut self, s: S, row: usize, panel: usize, sum: S::F) {
        s.store(&mut self.to[row * self.stride + panel], sum);
    }
}

/// Adds them to what is there.
pub(crate) struct Add<'a> {
    pub(crate) to: &'a mut [Block],
    pub(crate) stride: usize,
}

impl<S: Simd> Sink<S> for Add<'_> {
    #[inline(always)]
    fn put(&mut self, s: S, row: usize, panel: usize, sum: S::F) {
        let to = &mut self.to[row * self.stride + panel];
        s.store(to, s.add(s.load(to), sum));
    }
}

/// Rows as the columns of panels: `panels[j / 16][i][j % 16] = row(j)[i]`, `depth` blocks a panel; absent ones are 0.
#[inline(always)]
pub(crate) fn pack_columns<'r, T: Stored>(
    panels: &mut [Block],
    depth: usize,
    len: usize,
    row: impl Fn(usize) -> &'r [T],
) {
    for (p, panel) in panels.chunks_exact_mut(depth).take(len.div_ceil(LANES)).enumerate() {
        for lane in 0..LANES {
            let j = p * LANES + lane;
            if j < len {
                for (block, x) in panel.iter_mut().zip(row(j)) {
                    block[lane] = x.widen();
                }
            } else {
                panel.iter_mut().for_each(|block| block[lane] = 0.0);
            }
        }
    }
}

/// Rows as the rows of panels: `panels[c][j] = row(j)[16 * c..]`, `stride` blocks a panel; beyond `dim` they are 0.
#[inline(always)]
pub(crate) fn pack_rows<'r, S: Simd, T: Stored>(
    s: S,
    panels: &mut [Block],
    stride: usize,
    len: usize,
    dim: usize,
    row: impl Fn(usize) -> &'r [T],
) {
    for j in 0..len {
        let (blocks, rest) = row(j)[..dim].as_chunks::<LANES>();
        for (c, block) in blocks.iter().enumerate() {
            s.store(&mut panels[c * stride + j], T::load(s, block));
        }
        for (lane, x) in rest.iter().enumerate() {
            panels[blocks.len() * stride + j][lane] = x.widen();
        }
    }
}
