//! Products of few rows with bf16 weights, by `vdpbf16ps`: x rounded to bf16, sums in f32.

use super::cpu::Isa;
use super::cut::{Cut, Work};
use super::shared::Shared;
use super::simd::PairUnit;
use super::tiles::Halves;
use std::ops::Range;

/// `x`, of `rows` times `k` numbers, times the transpose of the packed weight, into `out` `[rows, n]`, on
/// [`Isa::Avx512Bf16`] or better.
pub(crate) fn linear<'a>(
    x: &'a Halves,
    units: &'a [PairUnit],
    out: &'a mut [f32],
    [rows, k, n]: [usize; 3],
) -> Work<'a> {
    assert!(Isa::best() >= Isa::Avx512Bf16);
    let out = Shared::new(out);
    // Rows of x within half a second-level cache.
    let cut = Cut::new([rows, k, n], (256 * 1024 / k).clamp(1, 480), [32, 4]);
    cut.work(move |rows, panels| run(&Task { x, units, out: &out, rows, panels, n }))
}

/// One thread's share: all outputs of `panels` for `rows`.
struct Task<'a> {
    x: &'a Halves,
    units: &'a [PairUnit],
    out: &'a Shared<'a, f32>,
    rows: Range<usize>,
    panels: Range<usize>,
    n: usize,
}

#[cfg(target_arch = "x86_64")]
fn run(task: &Task<'_>) {
    // SAFETY: the CPU has these instructions, as `linear` has checked.
    unsafe { dot::task(task) }
}

#[cfg(not(target_arch = "x86_64"))]
fn run(_: &Task<'_>) {
    unreachable!("bf16 dot products on another architecture");
}

#[cfg(target_arch = "x86_64")]
mod dot {
    use super::{PairUnit, Task};
    use crate::kernels::simd::LANES;
    use std::arch::x86_64::*;

    /// All outputs of a task by `vdpbf16ps`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn task(task: &Task<'_>) {
        let mut panel = task.panels.start;
        while panel < task.panels.end {
            panel += match (task.panels.end - panel, task.rows.len()) {
                (4.., 1..=4) => columns::<4>(task, panel),
                (2.., _) => columns::<2>(task, panel),
                _ => columns::<1>(task, panel),
            };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn columns<const P: usize>(task: &Task<'_>, panel: usize) -> usize {
        let mut row = task.rows.start;
        while row < task.rows.end {
            row += match (task.rows.end - row, P) {
                (12.., 1 | 2) => sums::<12, P>(task, row, panel),
                (6.., 1 | 2) => sums::<6, P>(task, row, panel),
                (4.., _) => sums::<4, P>(task, row, panel),
                (2.., _) => sums::<2, P>(task, row, panel),
                _ => sums::<1, P>(task, row, panel),
            };
        }
        P
    }

    /// `R` rows by `P` panels with the sums in registers; returns `R`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn sums<const R: usize, const P: usize>(task: &Task<'_>, row: usize, panel: usize) -> usize {
        let steps = task.x.depth();
        let x: [&[[u32; 16]]; R] = std::array::from_fn(|r| bytemuck::cast_slice(task.x.row(row + r)));
        let w: [&[PairUnit]; P] = std::array::from_fn(|p| &task.units[(panel + p) * steps * LANES..][..steps * LANES]);
        let mut sums = [[_mm512_setzero_ps(); P]; R];
        for step in 0..steps {
            for pair in 0..LANES {
                let mut units = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    // SAFETY: a unit is 64 bytes, aligned.
                    units[p] = unsafe { _mm512_load_si512(std::ptr::from_ref(&w[p][step * LANES + pair]).cast()) };
                }
                for r in 0..R {
                    let pair = _mm512_set1_epi32(x[r][step][pair] as i32);
                    for p in 0..P {
                        // SAFETY: the vectors of integers and of bf16 are the same 64 bytes.
                        let (x, w): (__m512bh, __m512bh) = unsafe {
                            (
                                std::mem::transmute::<__m512i, __m512bh>(pair),
                                std::mem::transmute::<__m512i, __m512bh>(units[p]),
                            )
                        };
                        sums[r][p] = _mm512_dpbf16_ps(sums[r][p], x, w);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                let column = (panel + p) * LANES;
                let width = LANES.min(task.n - column);
                let mut block = [0.0_f32; LANES];
                // SAFETY: a block is sixteen f32; and the tasks of one product have no row and column in common.
                let out = unsafe {
                    _mm512_storeu_ps(block.as_mut_ptr(), *sum);
                    task.out.piece((row + r) * task.n + column, width)
                };
                out.copy_from_slice(&block[..width]);
            }
        }
        R
    }
}
