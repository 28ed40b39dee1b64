//! Products with packed frozen weights: each type of weight has its kernel, and each kernel reads x in its own way.

use super::blocks::{Bytes, FineNibbles, Nibbles};
use super::cpu::Isa;
use super::cut::Work;
use super::dots;
use super::integer::{self, Rows};
use super::matmul::Write;
use super::norm::{Norm, rms_norm, rms_norm_halves};
use super::pack::{Inputs, PackedLinear, Panels};
use super::reuse::Buffer;
use super::swiglu::swiglu;
use super::tiles::{self, Halves, Weights};
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
    of_input(isa, x, None, products);
}

/// [`linears`] of the rows of `x` behind an RMSNorm.
///
/// # Panics
/// As [`linear`].
pub(crate) fn normed_linears<const N: usize>(
    isa: Isa,
    x: &[f32],
    norm: Norm<'_>,
    products: [(&PackedLinear, &mut [f32]); N],
) {
    of_input(isa, x, Some(norm), products);
}

fn of_input<const N: usize>(isa: Isa, x: &[f32], norm: Option<Norm<'_>>, products: [(&PackedLinear, &mut [f32]); N]) {
    let k = products.first().map_or(0, |(w, _)| w.shape()[1]);
    assert!(norm.is_none_or(|norm| norm.gamma.len() == k), "norm in front of linears of {k} inputs");
    let x = Input::new(isa, x, norm, k);
    Work::run_together(products.map(|(w, out)| x.times(w, out)));
}

/// Adds to `out` `[rows, rows_out]` what [`linear`] would write there.
///
/// # Panics
/// As [`linear`].
pub(crate) fn add_linear(isa: Isa, x: &[f32], w: &PackedLinear, out: &mut [f32]) {
    let [n, k] = w.shape();
    let rows = x.len().checked_div(k).unwrap_or(0);
    assert_eq!((x.len(), out.len()), (rows * k, rows * n), "linear of shape [{n}, {k}]");
    if out.is_empty() {
        return;
    }
    if isa >= Isa::Amx
        && let Some(weights) = tiled(w, rows)
    {
        return tiles::linear(isa, &Halves::new(isa, x, rows, k), weights, out, [rows, k, n], Write::Add).run();
    }
    let mut terms = Buffer::new(out.len());
    linear(isa, x, w, &mut terms);
    out.iter_mut().zip(&*terms).for_each(|(out, term)| *out += term);
}

/// A layer's second half, added to `x` `[rows, width]`: `down(silu(gate(n)) * up(n))` with `n` the norm of `x`.
///
/// # Panics
/// As [`linear`].
pub(crate) fn add_feed_forward(isa: Isa, x: &mut [f32], norm: Norm<'_>, [gate, up, down]: [&PackedLinear; 3]) {
    let [inner, k] = gate.shape();
    let rows = x.len().checked_div(k).unwrap_or(0);
    let shapes = (up.shape(), down.shape(), norm.gamma.len(), x.len());
    assert_eq!(shapes, ([inner, k], [k, inner], k, rows * k), "feed forward of {k} and {inner} numbers");
    if x.is_empty() || inner == 0 {
        return;
    }
    if isa >= Isa::Amx
        && let (Some(gate), Some(up), Some(down)) = (tiled(gate, rows), tiled(up, rows), tiled(down, rows))
    {
        let normed = rms_norm_halves(isa, x, norm);
        let mixed = tiles::gated(isa, &normed, [gate, up], [rows, k, inner]);
        return tiles::linear(isa, &mixed, down, x, [rows, inner, k], Write::Add).run();
    }
    let [mut gates, mut ups, mut mixed] = [0; 3].map(|_| Buffer::new(rows * inner));
    normed_linears(isa, x, norm, [(gate, &mut *gates), (up, &mut *ups)]);
    swiglu(isa, &gates, &ups, &mut mixed);
    add_linear(isa, &mixed, down, x);
}

/// Rows of x, and what kernels make of them, made when one asks.
struct Input<'a> {
    isa: Isa,
    x: &'a [f32],
    norm: Option<Norm<'a>>,
    rows: usize,
    k: usize,
    normed: OnceCell<Buffer>,
    pairs: OnceCell<Vec<f32>>,
    halves: OnceCell<Halves>,
    bytes: OnceCell<Rows<Bytes>>,
    coarse: OnceCell<Rows<Nibbles>>,
    fine: OnceCell<Rows<FineNibbles>>,
}

impl<'a> Input<'a> {
    fn new(isa: Isa, x: &'a [f32], norm: Option<Norm<'a>>, k: usize) -> Self {
        Self {
            isa,
            x,
            norm,
            rows: x.len().checked_div(k).unwrap_or(0),
            k,
            normed: OnceCell::new(),
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
        if isa >= Isa::Amx
            && let Some(weights) = tiled(w, rows)
        {
            return tiles::linear(isa, self.halves(), weights, out, sizes, Write::Store);
        }
        match w.panels() {
            Panels::Bf16(units) if isa >= Isa::Avx512Bf16 => dots::linear(self.halves(), units, out, sizes),
            Panels::Bf16(units) => {
                super::linear::linear(isa, self.pairs(), units, out, [rows, k.next_multiple_of(2), n])
            }
            Panels::F32(units) => {
                super::linear::linear(isa, self.pairs(), units, out, [rows, k.next_multiple_of(2), n])
            }
            Panels::Int8(blocks) => {
                let x = self.bytes.get_or_init(|| Rows::new(isa, self.numbers(), rows, k));
                integer::linear(isa, x, blocks, out, sizes)
            }
            Panels::Q4(blocks, Inputs::Coarse) => {
                let x = self.coarse.get_or_init(|| Rows::new(isa, self.numbers(), rows, k));
                integer::linear(isa, x, blocks, out, sizes)
            }
            Panels::Q4(blocks, Inputs::Fine) => {
                let x = self.fine.get_or_init(|| Rows::new(isa, self.numbers(), rows, k));
                integer::linear(isa, x, FineNibbles::of(blocks), out, sizes)
            }
        }
    }

    /// The rows, behind the norm if there is one.
    fn numbers(&self) -> &[f32] {
        match self.norm {
            None => self.x,
            Some(Norm { gamma, eps }) => self.normed.get_or_init(|| {
                let mut out = Buffer::new(self.x.len());
                rms_norm(self.isa, self.x, gamma, eps, &mut out);
                out
            }),
        }
    }

    /// The same, rounded.
    fn halves(&self) -> &Halves {
        self.halves.get_or_init(|| match self.norm {
            None => Halves::new(self.isa, self.x, self.rows, self.k),
            Some(norm) => rms_norm_halves(self.isa, self.x, norm),
        })
    }

    /// An even number of inputs a row; the packed weights are zero beyond the last.
    fn pairs(&self) -> &[f32] {
        let numbers = self.numbers();
        if self.k.is_multiple_of(2) {
            return numbers;
        }
        let even = || numbers.chunks_exact(self.k).flat_map(|row| row.iter().copied().chain([0.0])).collect();
        self.pairs.get_or_init(even)
    }
}

/// The weights as tiles multiply them, if that is the faster way for so many rows. Tiles work on 32 rows whatever these
/// hold, and blocks must be unpacked for them. Weights in f32 are exact and stay it.
fn tiled(w: &PackedLinear, rows: usize) -> Option<Weights<'_>> {
    let (few, weights) = match w.panels() {
        Panels::Bf16(units) => (8, Weights::Halves(units)),
        Panels::Int8(blocks) => (16, Weights::Bytes(blocks)),
        Panels::Q4(blocks, _) => (16, Weights::Nibbles(blocks)),
        Panels::F32(_) => return None,
    };
    (rows > few).then_some(weights)
}
