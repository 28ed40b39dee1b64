//! What an adapter adds to a projection, `scale * (x aT) bT`, and its gradients (arXiv 2106.09685, section 4.1).

use super::cpu::{Isa, Kernel};
use super::matmul::{Write, matmul, transpose, transposed};
use super::reuse::Buffer;
use super::simd::{LANES, Simd};
use std::borrow::Cow;

/// Up to so many rows (decoding), nothing is transposed, if the second factor lies in columns. Either order gives the same
/// bits, so that a run may go on from a file.
const FEW: usize = 4;

/// The two factors of an adapter.
#[derive(Clone, Copy)]
pub(crate) struct Factors<'a> {
    /// `[rank, inputs]`.
    pub(crate) a: &'a [f32],
    pub(crate) b: Second<'a>,
    pub(crate) rank: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) scale: f32,
}

/// The second factor of an adapter, in either order.
#[derive(Clone, Copy)]
pub(crate) enum Second<'a> {
    /// `[outputs, rank]`, as files have it.
    Rows(&'a [f32]),
    /// `[rank, outputs]`, as products read it.
    Columns(&'a [f32]),
}

impl<'a> Factors<'a> {
    /// The second factor, `[outputs, rank]`.
    fn rows(&self) -> Cow<'a, [f32]> {
        match self.b {
            Second::Rows(b) => b.into(),
            Second::Columns(b) => transposed(b, self.rank, self.outputs).into(),
        }
    }

    /// The second factor, `[rank, outputs]`.
    fn columns(&self) -> Cow<'a, [f32]> {
        match self.b {
            Second::Rows(b) => transposed(b, self.outputs, self.rank).into(),
            Second::Columns(b) => b.into(),
        }
    }

    /// Adds the term of `x` `[rows, inputs]` to `y` `[rows, outputs]`. Returns `scale * x aT` `[rows, rank]`.
    pub(crate) fn add(&self, isa: Isa, x: &[f32], y: &mut [f32]) -> Buffer {
        let &Self { a, rank, inputs, outputs, scale, .. } = self;
        let rows = x.len().checked_div(inputs).unwrap_or(0);
        assert_eq!((x.len(), y.len()), (rows * inputs, rows * outputs), "{rows} rows, {inputs} to {outputs} wide");
        let mut narrow = Buffer::new(rows * rank);
        if rank == 0 || rows == 0 || outputs == 0 {
            narrow.fill(0.0);
            return narrow;
        }
        let b = self.columns();
        if rows <= FEW {
            for ((x, y), narrow) in x.chunks(inputs).zip(y.chunks_mut(outputs)).zip(narrow.chunks_mut(rank)) {
                isa.run(Dots { matrix: a, x, scale, out: narrow });
                isa.run(Sums { matrix: &b, x: narrow, out: y });
            }
            return narrow;
        }
        matmul(isa, x, &transposed(a, rank, inputs), scale, &mut narrow, [rows, inputs, rank], Write::Store);
        matmul(isa, &narrow, &b, 1.0, y, [rows, rank, outputs], Write::Add);
        narrow
    }

    /// The gradients that are wanted of x, a and b, given that of `y` and what [`add`](Self::add) returned.
    pub(crate) fn backward(
        &self,
        isa: Isa,
        x: &[f32],
        narrow: &[f32],
        grad: &[f32],
        [of_x, of_a, of_b]: [bool; 3],
    ) -> [Option<Buffer>; 3] {
        let &Self { a, rank, inputs, outputs, scale, .. } = self;
        let rows = x.len().checked_div(inputs).unwrap_or(0);
        let mut slope = Buffer::new(if of_x || of_a { rows * rank } else { 0 });
        if of_x || of_a {
            matmul(isa, grad, &self.rows(), scale, &mut slope, [rows, outputs, rank], Write::Store);
        }
        let x_grad = of_x.then(|| {
            let mut found = Buffer::new(x.len());
            matmul(isa, &slope, a, 1.0, &mut found, [rows, rank, inputs], Write::Store);
            found
        });
        let a_grad = of_a.then(|| {
            let mut found = Buffer::new(a.len());
            matmul(isa, &transposed(&slope, rows, rank), x, 1.0, &mut found, [rank, rows, inputs], Write::Store);
            found
        });
        let b_grad = of_b.then(|| {
            let [mut columns, mut found] = [0; 2].map(|_| Buffer::new(outputs * rank));
            matmul(isa, &transposed(narrow, rows, rank), grad, 1.0, &mut columns, [rank, rows, outputs], Write::Store);
            transpose(&columns, rank, outputs, &mut found);
            found
        });
        [x_grad, a_grad, b_grad]
    }
}

/// `scale * matrix x`, row by row.
struct Dots<'a> {
    matrix: &'a [f32],
    x: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, out) in self.matrix.chunks_exact(self.x.len()).zip(self.out) {
            let mut sum = s.splat(0.0);
            for (x, w) in self.x.chunks(LANES).zip(row.chunks(LANES)) {
                sum = s.fma(s.load_part(x), s.load_part(w), sum);
            }
            *out = self.scale * s.sum(sum);
        }
    }
}

/// Adds the rows of a matrix, each weighted by one of `x`.
struct Sums<'a> {
    matrix: &'a [f32],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.out.len();
        for (panel, out) in self.out.chunks_mut(LANES).enumerate() {
            let mut sum = s.load_part(out);
            for (x, row) in self.x.iter().zip(self.matrix.chunks_exact(width)) {
                sum = s.fma(s.splat(*x), s.load_part(&row[panel * LANES..][..out.len()]), sum);
            }
            s.store_part(out, sum);
        }
    }
}
