//! Next-token loss straight from hidden rows: head, softmax and cross entropy over a few rows at a time, so that the
//! logits of all rows never exist together.

use super::cpu::{Isa, Kernel};
use super::pack::PackedLinear;
use super::products::linear;
use super::reuse::Buffer;
use super::rows::each_piece_of_two;
use super::simd::{LANES, Simd};

/// Numbers of a buffer of logits: 32 MiB.
const LOGITS: usize = 8 << 20;

/// The cross entropy (in nats) of each row of `hidden` `[rows, width]` against its target, under the frozen `head`
/// `[vocabulary, width]`; with `grad` `[rows, width]` also the gradient of each row's loss.
///
/// # Panics
/// If lengths do not fit, or a target is not below the vocabulary's size.
pub(crate) fn cross_entropy(
    isa: Isa,
    hidden: &[f32],
    head: &PackedLinear,
    targets: &[u32],
    losses: &mut [f32],
    mut grad: Option<&mut [f32]>,
) {
    let [words, width] = head.shape();
    let rows = targets.len();
    assert_eq!((losses.len(), hidden.len()), (rows, rows * width));
    assert!(grad.as_ref().is_none_or(|grad| grad.len() == hidden.len()));
    assert!(targets.iter().all(|&t| (t as usize) < words), "target beyond the vocabulary of {words}");
    let step = (LOGITS / words.max(1)).clamp(1, rows.max(1));
    let mut buffer = Buffer::new(step * words);
    for first in (0..rows).step_by(step) {
        let run = first..rows.min(first + step);
        let wide = run.start * width..run.end * width;
        let logits = &mut buffer[..run.len() * words];
        linear(isa, &hidden[wide.clone()], head, logits);
        let (targets, slopes) = (&targets[run.clone()], grad.is_some());
        each_piece_of_two(logits, words, &mut losses[run], 1, |i, logits, loss| {
            loss.fill(isa.run(Row { logits, target: targets[i] as usize, slopes }));
        });
        if let Some(grad) = &mut grad {
            linear(isa, logits, head.transposed(), &mut grad[wide]);
        }
    }
}

/// One row of logits; returns its loss and, with `slopes`, leaves the gradient in their place.
struct Row<'a> {
    logits: &'a mut [f32],
    target: usize,
    slopes: bool,
}

impl Kernel for Row<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let wanted = self.logits[self.target];
        let (blocks, rest) = self.logits.as_chunks_mut::<LANES>();
        let mut max = s.splat(f32::NEG_INFINITY);
        for block in blocks.iter() {
            max = s.max(s.load(block), max);
        }
        let max = rest.iter().fold(s.max_lane(max), |max, x| max.max(*x));
        let mut sum = s.splat(0.0);
        for block in blocks.iter() {
            sum = s.add(sum, s.exp(s.sub(s.load(block), s.splat(max))));
        }
        let sum = s.sum(sum) + rest.iter().map(|x| (x - max).exp()).sum::<f32>();
        let log = max + sum.ln();
        if self.slopes {
            for block in blocks.iter_mut() {
                let p = s.exp(s.sub(s.load(block), s.splat(log)));
                s.store(block, p);
            }
            rest.iter_mut().for_each(|x| *x = (*x - log).exp());
            self.logits[self.target] -= 1.0;
        }
        log - wanted
    }
}
