//! The kernels on flex tensors: shapes checked, views made dense where a kernel needs that.

use super::super::attention::{self, Inputs, Sizes, Stored, View, packed};
use super::super::cpu::Isa;
use super::super::low_rank::{Factors, Second};
use super::super::norm::Norm;
use super::super::pack::PackedLinear;
use super::super::reuse::Buffer;
use super::super::rope::{self, Rotation};
use super::super::{loss, products};
use crate::ops::Seen;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::{bf16, f16};
use std::sync::Arc;

/// The losses of the rows of `hidden`, and their gradients.
pub(super) fn losses(
    hidden: FlexTensor,
    head: &PackedLinear,
    targets: &[u32],
    slopes: Option<&mut [f32]>,
) -> FlexTensor {
    let hidden = dense(hidden);
    assert_eq!(shape(&hidden), [targets.len(), head.shape()[1]], "loss: {} targets, {head:?}", targets.len());
    let mut out = Buffer::new(targets.len());
    loss::cross_entropy(Isa::best(), numbers(&hidden), head, targets, &mut out, slopes);
    tensor(out, vec![targets.len()])
}

/// `x` `[.., cols_in]` times the transpose of `w`.
pub(super) fn product(x: &FlexTensor, w: &PackedLinear) -> FlexTensor {
    let [out] = together(x, [w]);
    out
}

/// `x` `[.., cols_in]` times the transpose of each of the weights.
pub(super) fn together<const N: usize>(x: &FlexTensor, weights: [&PackedLinear; N]) -> [FlexTensor; N] {
    of_rows(x, weights, |x, products| products::linears(Isa::best(), x, products))
}

/// [`together`], of x behind a norm.
pub(super) fn normed_together<const N: usize>(
    x: &FlexTensor,
    gamma: &FlexTensor,
    eps: f64,
    weights: [&PackedLinear; N],
) -> [FlexTensor; N] {
    let norm = Norm { gamma: numbers(gamma), eps: eps as f32 };
    of_rows(x, weights, |x, products| products::normed_linears(Isa::best(), x, norm, products))
}

/// `x` with what `add(x)` adds to its numbers.
pub(super) fn with_added(x: FlexTensor, add: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut x = own(x);
    add(numbers_mut(&mut x));
    x
}

fn of_rows<const N: usize>(
    x: &FlexTensor,
    weights: [&PackedLinear; N],
    multiply: impl FnOnce(&[f32], [(&PackedLinear, &mut [f32]); N]),
) -> [FlexTensor; N] {
    let x = dense(x.clone());
    let mut outs = weights.map(|w| {
        let [rows_out, cols_in] = w.shape();
        let mut shape = shape(&x);
        let width = shape.last_mut().expect("linear: x has no dimension");
        assert_eq!(*width, cols_in, "linear: x is {width} wide, the weight is [{rows_out}, {cols_in}]");
        *width = rows_out;
        (w, Buffer::new(shape.iter().product()), shape)
    });
    multiply(numbers(&x), outs.each_mut().map(|(w, out, _)| (*w, &mut **out)));
    outs.map(|(_, out, shape)| tensor(out, shape))
}

/// A second factor, copied only if it is neither dense nor the view of a dense transpose.
pub(super) fn second(b: FlexTensor) -> FlexTensor {
    if b.is_contiguous() || is_turned(&b) { b } else { b.to_contiguous() }
}

/// Whether a matrix is the view of a dense transpose.
fn is_turned(x: &FlexTensor) -> bool {
    matches!((shape(x).as_slice(), x.layout().strides()), (&[rows, _], &[1, stride]) if stride == rows as isize)
}

/// The factors of an adapter: the first dense, the second from [`second`].
pub(super) fn factors<'a>(a: &'a FlexTensor, b: &'a FlexTensor, scale: f64) -> Factors<'a> {
    match (shape(a).as_slice(), shape(b).as_slice()) {
        (&[rank, inputs], &[outputs, r]) if r == rank => {
            let second = if b.is_contiguous() {
                Second::Rows(numbers(b))
            } else {
                let start = b.layout().start_offset();
                Second::Columns(&whole(b)[start..start + rank * outputs])
            };
            Factors { a: numbers(a), b: second, rank, inputs, outputs, scale: scale as f32 }
        }
        (a, b) => panic!("low rank: expected a [rank, in] and b [out, rank], found {a:?} and {b:?}"),
    }
}

/// `y` with what the [`factors`] add to it for `x`, which is dense, and `scale * x aT`.
pub(super) fn added(
    y: FlexTensor,
    x: &FlexTensor,
    a: &FlexTensor,
    b: &FlexTensor,
    scale: f64,
) -> (FlexTensor, FlexTensor) {
    let factors = factors(a, b, scale);
    let (mut y, mut narrow_shape) = (own(y), shape(x));
    let widths = (narrow_shape.last().copied(), shape(&y).last().copied());
    assert_eq!(widths, (Some(factors.inputs), Some(factors.outputs)), "low rank: x {:?}, y {:?}", shape(x), shape(&y));
    let narrow = factors.add(Isa::best(), numbers(x), numbers_mut(&mut y));
    narrow_shape.pop();
    narrow_shape.push(factors.rank);
    (y, tensor(narrow, narrow_shape))
}

/// `x` itself if it is dense and nobody else holds its storage, else a dense copy of what it shows.
fn own(x: FlexTensor) -> FlexTensor {
    if !x.is_contiguous() {
        return x.to_contiguous();
    }
    if x.is_unique() {
        return x;
    }
    let mut copy = Buffer::new(numbers(&x).len());
    copy.copy_from_slice(numbers(&x));
    tensor(copy, shape(&x))
}

/// The tables and positions of a rotation.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) cos: FlexTensor,
    pub(super) sin: FlexTensor,
    pub(super) offset: usize,
    pub(super) padding: Arc<[usize]>,
}

impl Turn {
    /// The numbers of a dense `x`, in rows of so many heads, turned.
    fn apply(&self, x: &FlexTensor, [seq, heads, dim]: [usize; 3], sense: f32) -> Buffer {
        let (cos, sin) = (numbers(&self.cos), numbers(&self.sin));
        let rotation = Rotation { cos, sin, seq, heads, dim, offset: self.offset, padding: &self.padding, sense };
        let mut out = Buffer::new(numbers(x).len());
        rope::rope(Isa::best(), numbers(x), rotation, &mut out);
        out
    }
}

/// Rotates `x` `[batch, seq, heads, dim]`.
pub(super) fn turn(x: FlexTensor, by: &Turn, sense: f32) -> FlexTensor {
    let x = dense(x);
    let &[_, seq, heads, dim] = shape(&x).as_slice() else {
        panic!("rope: expected [batch, seq, heads, dim], found {:?}", shape(&x));
    };
    tensor(by.apply(&x, [seq, heads, dim], sense), shape(&x))
}

/// Keys and values of one layer, `[batch, kv_heads, capacity, dim]`; the first `by.offset` rows are written.
pub(super) struct Cache {
    pub(super) keys: FlexTensor,
    pub(super) values: FlexTensor,
    pub(super) rounded: bool,
}

impl Cache {
    /// Writes `k` and `v` `[batch, seq, kv_heads * dim]` behind the rows there, keys turned, and attends with the queries
    /// `q` `[batch, rows, heads * dim]` of the newest rows.
    pub(super) fn attend<T: Stored>(&mut self, q: FlexTensor, k: FlexTensor, v: FlexTensor, by: Turn) -> FlexTensor {
        let (q, k, v) = (dense(q), dense(k), dense(v));
        let shapes = (shape(&self.keys), shape(&q), shape(&k));
        let (&[batch, kv_heads, capacity, dim], &[b, queries, wide], &[_, seq, narrow]) =
            (shapes.0.as_slice(), shapes.1.as_slice(), shapes.2.as_slice())
        else {
            panic!("cached attention: cache, q and k of {shapes:?}");
        };
        let heads = wide / dim.max(1);
        let fits = b == batch && wide == heads * dim && narrow == kv_heads * dim && queries <= seq;
        assert!(fits && shape(&v) == shapes.2, "cached attention: cache, q and k of {shapes:?}, v {:?}", shape(&v));
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "cached attention: {heads} over {kv_heads} heads");
        let past = by.offset;
        assert!(past + seq <= capacity, "cached attention: {past} + {seq} rows in a cache of {capacity}");

        let sizes = [batch, seq, kv_heads, dim];
        write::<T>(&mut self.keys, &by.apply(&k, [seq, kv_heads, dim], 1.0), past, sizes);
        write::<T>(&mut self.values, numbers(&v), past, sizes);
        let newest = Turn { offset: past + seq - queries, ..by };
        let turned = newest.apply(&q, [queries, heads, dim], 1.0);
        drop((q, k, v));

        let sizes = Sizes { batch, heads, kv_heads, queries, keys: past + seq, dim, causal: true };
        let strides = [queries * wide, dim, wide];
        let inputs = Inputs {
            sizes,
            q: View { data: &turned, offset: 0, strides, dim },
            k: view::<T>(&self.keys, dim),
            v: view::<T>(&self.values, dim),
            padding: &newest.padding,
            rounded: self.rounded,
        };
        let mut out = Buffer::new(turned.len());
        attention::attention(Isa::best(), inputs, &mut out, None);
        tensor(out, shapes.1)
    }
}

fn write<T: Stored>(cache: &mut FlexTensor, x: &[f32], from: usize, sizes: [usize; 4]) {
    if !cache.is_contiguous() {
        *cache = cache.to_contiguous();
    }
    let start = cache.layout().start_offset();
    let place = start..start + cache.layout().num_elements();
    attention::cache::append(x, &mut cache.storage_mut::<T>()[place], from, sizes);
}

fn view<T: Stored>(x: &FlexTensor, dim: usize) -> View<'_, T> {
    View { data: x.storage::<T>(), offset: x.layout().start_offset(), strides: strides(x), dim }
}

/// Queries, keys and values whose last dimensions are dense.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    pub(super) q: FlexTensor,
    pub(super) k: FlexTensor,
    pub(super) v: FlexTensor,
    pub(super) sizes: Sizes,
    pub(super) seen: Seen,
}

impl Heads {
    pub(super) fn new(q: FlexTensor, k: FlexTensor, v: FlexTensor, seen: Seen) -> Self {
        let causal = seen.causal;
        let sizes = match (shape(&q).as_slice(), shape(&k).as_slice()) {
            (&[batch, queries, heads, dim], &[b, kv_heads, keys, d])
                if (b, d) == (batch, dim) && shape(&k) == shape(&v) =>
            {
                Sizes { batch, heads, kv_heads, queries, keys, dim, causal }
            }
            (q, k) => panic!("attention: q {q:?}, k {k:?}, v {:?} do not fit", shape(&v)),
        };
        assert!(sizes.kv_heads > 0 && sizes.heads % sizes.kv_heads == 0, "attention: {sizes:?}");
        Self { q: rows(q), k: rows(k), v: rows(v), sizes, seen }
    }

    pub(super) fn inputs<T: Stored>(&self) -> Inputs<'_, T> {
        // Queries come as [batch, row, head, dim].
        let [batch, row, head] = strides(&self.q);
        let dim = self.sizes.dim;
        let q = View { strides: [batch, head, row], ..view(&self.q, dim) };
        let (k, v) = (view(&self.k, dim), view(&self.v, dim));
        Inputs { sizes: self.sizes, q, k, v, padding: &self.seen.padding, rounded: self.seen.rounded }
    }
}

pub(super) fn attend(heads: &Heads, lse: Option<&mut [f32]>) -> FlexTensor {
    let shape = shape(&heads.q);
    let mut out = Buffer::new(shape.iter().product());
    let isa = Isa::best();
    match heads.k.dtype() {
        dtype if !heads.seen.pieces.is_empty() => {
            assert_eq!(dtype, DType::F32, "packed attention");
            packed::attention(isa, heads.inputs::<f32>(), &heads.seen.pieces, &mut out, lse);
        }
        DType::F16 => attention::attention(isa, heads.inputs::<f16>(), &mut out, lse),
        DType::BF16 => attention::attention(isa, heads.inputs::<bf16>(), &mut out, lse),
        _ => attention::attention(isa, heads.inputs::<f32>(), &mut out, lse),
    }
    tensor(out, shape)
}

/// `x` itself if its last dimension is dense and no stride negative, else a dense copy.
pub(super) fn rows(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    let width = shape(&x).last().copied().unwrap_or(1);
    let usable = strides.iter().all(|&s| s >= 0) && (width == 1 || strides.last() == Some(&1));
    if usable { x } else { x.to_contiguous() }
}

/// Strides of the first three dimensions of what [`rows`] returned.
pub(super) fn strides(x: &FlexTensor) -> [usize; 3] {
    std::array::from_fn(|i| x.layout().strides()[i] as usize)
}

/// `x` itself if dense, else a dense copy.
pub(super) fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The numbers of a dense tensor, in order.
pub(super) fn numbers(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &whole(x)[start..start + x.layout().num_elements()]
}

/// The same, to write.
fn numbers_mut(x: &mut FlexTensor) -> &mut [f32] {
    let start = x.layout().start_offset();
    let place = start..start + x.layout().num_elements();
    &mut x.storage_mut::<f32>()[place]
}

/// All numbers of the storage behind a tensor.
pub(super) fn whole(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

pub(super) fn shape(x: &FlexTensor) -> Vec<usize> {
    x.layout().shape().to_vec()
}

pub(super) fn tensor(numbers: Buffer, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(numbers.into_data(shape))
}
