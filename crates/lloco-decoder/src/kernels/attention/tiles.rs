//! Keys, values and sums as the panels of products.

use super::super::simd::{Block, LANES, Simd};
use super::super::tile::Sink;
use super::Stored;

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
