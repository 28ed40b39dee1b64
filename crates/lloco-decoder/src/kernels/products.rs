//! Products with packed frozen weights: each type of weight has its kernel, and each kernel reads x in its own way.

use super::blocks::{Bytes, FineNibbles, Nibbles};
use super::cpu::Isa;
use super::cut::Work;
use super::dots;
use super::integer::{self, Rows};
use super::pack::{Inputs, PackedLinear, Panels};
use super::tiles::{self, Halves, Weights};
use std::borrow::Cow;
use std::cell::OnceCell;

/// `x` `[rows, cols_in]` times the transpose of `w` `[rows_out, cols_in]`, into `out` `[rows, rows_out]`.
///
/// # Panics
/// If the lengths of `x` and `out` do not fit `w`.
pub(crate) fn linear(isa: Isa, x: &[f32], w: &PackedLinear, out: &mut [f32]) {
    linears(isa, x, [(w, out)]);
}

/// [`linear`] with several weights of as many inputs, and as many outputs. They are computed as one: x is rounded once, and
/// no thread waits between them.
///
/// # Panics
/// As [`linear`].
pub(crate) fn linears<const N: usize>(isa: Isa, x: &[f32], products: [(&PackedLinear, &mut [f32]); N]) {
    let k = products.first().map_or(0, |(w, _)| w.shape()[1]);
    let x = Input::new(isa, x, k);
    Work::run_together(products.map(|(w, out)| x.times(w, out)));
}

/// Rows of x, and what kernels make of them, made when one asks.
struct Input<'a> {
    isa: Isa,
    x: &'a [f32],
    rows: usize,
    k: usize,
    pairs: OnceCell<Cow<'a, [f32]>>,
    halves: OnceCell<Halves>,
    bytes: OnceCell<Rows<Bytes>>,
    coarse: OnceCell<Rows<Nibbles>>,
    fine: OnceCell<Rows<FineNibbles>>,
}

impl<'a> Input<'a> {
    fn new(isa: Isa, x: &'a [f32], k: usize) -> Self {
        Self {
            isa,
            x,
            rows: x.len().checked_div(k).unwrap_or(0),
            k,
            pairs: OnceCell::new(),
            halves: OnceCell::new(),
            bytes: OnceCell::new(),
            coarse: OnceCell::new(),
            fine: OnceCell::new(),
        }
    }

    fn times<'w>(&'w self, w: &'w PackedLinear, out: &'w mut [f32]) -> Work<'w> {
        let &Self { isa, x, rows, k, .. } = self;
        let [n, inputs] = w.shape();
        assert_eq!(inputs, k, "linear of shape [{n}, {inputs}] beside one of {k} inputs");
        if k == 0 {
            out.fill(0.0);
            return Work::none();
        }
        assert_eq!((rows * n, rows * k), (out.len(), x.len()), "linear of shape [{n}, {k}]");
        if out.is_empty() {
            return Work::none();
        }
        let sizes = [rows, k, n];
        let halves = || self.halves.get_or_init(|| Halves::new(isa, x, rows, k));
        if isa >= Isa::Amx
            && let Some(weights) = tiled(w.panels(), rows)
        {
            return tiles::linear(halves(), weights, out, sizes);
        }
        match w.panels() {
            Panels::Bf16(units) if isa >= Isa::Avx512Bf16 => dots::linear(halves(), units, out, sizes),
            Panels::Bf16(units) => {
                super::linear::linear(isa, self.pairs(), units, out, [rows, k.next_multiple_of(2), n])
            }
            Panels::F32(units) => {
                super::linear::linear(isa, self.pairs(), units, out, [rows, k.next_multiple_of(2), n])
            }
            Panels::Int8(blocks) => {
                let x = self.bytes.get_or_init(|| Rows::new(isa, x, rows, k));
                integer::linear(isa, x, blocks, out, sizes)
            }
            Panels::Q4(blocks, Inputs::Coarse) => {
                let x = self.coarse.get_or_init(|| Rows::new(isa, x, rows, k));
                integer::linear(isa, x, blocks, out, sizes)
            }
            Panels::Q4(blocks, Inputs::Fine) => {
                let x = self.fine.get_or_init(|| Rows::new(isa, x, rows, k));
                integer::linear(isa, x, FineNibbles::of(blocks), out, sizes)
            }
        }
    }

    /// An even number of inputs a row; the packed weights are zero beyond the last.
    fn pairs(&self) -> &[f32] {
        self.pairs.get_or_init(|| match self.k % 2 {
            0 => Cow::Borrowed(self.x),
            _ => self.x.chunks_exact(self.k).flat_map(|row| row.iter().copied().chain([0.0])).collect(),
        })
    }
}

/// The weights as tiles multiply them, if that is the faster way for so many rows. Tiles work on 32 rows whatever these
/// hold, and blocks must be unpacked for them. Weights in f32 are exact and stay it.
fn tiled(panels: &Panels, rows: usize) -> Option<Weights<'_>> {
    let (few, weights) = match panels {
        Panels::Bf16(units) => (8, Weights::Halves(units)),
        Panels::Int8(blocks) => (16, Weights::Bytes(blocks)),
        Panels::Q4(blocks, _) => (16, Weights::Nibbles(blocks)),
        Panels::F32(_) => return None,
    };
    (rows > few).then_some(weights)
}
