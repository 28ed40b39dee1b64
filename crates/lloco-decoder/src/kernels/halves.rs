//! Products of bf16 with bf16, summed in f32: tile registers (AMX), or `vdpbf16ps` (AVX512-BF16).
//!
//! Activations are rounded to bf16 once a call; that is this path's tolerance, 2^-9 of each. Both kernels read the same
//! packed panels as [`super::linear`].

use super::cpu::{Isa, Kernel};
use super::cut::{Cut, Work};
use super::shared::Shared;
use super::simd::{LANES, PairUnit, Simd};
use bytemuck::Zeroable;
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Rows and columns of a tile of sums.
const SIDE: usize = 16;

/// Bytes of a tile: sixteen rows of 64 bytes.
const TILE: usize = 1024;

/// Inputs of one tile product.
const DEPTH: usize = 32;

/// Up to so many rows, `vdpbf16ps` beats tiles, which work on 32 rows whatever they hold.
const FEW: usize = 8;

/// `x`, of `rows` times `k` numbers, times the transpose of the packed weight, into `out` `[rows, n]`, on [`Isa::Avx512Bf16`] or
/// [`Isa::Amx`].
pub(crate) fn linear<'a>(
    isa: Isa,
    x: &'a Halves,
    units: &'a [PairUnit],
    out: &'a mut [f32],
    [rows, k, n]: [usize; 3],
) -> Work<'a> {
    let out = Shared::new(out);
    cut([rows, k, n]).work(move |rows, panels| {
        let task = Task { x, units, out: &out, rows, panels, n };
        if isa >= Isa::Amx && task.rows.len() > FEW { task.tiles(hardware()) } else { task.dots(isa) }
    })
}

/// Tasks of whole tiles, their rows of x within half a second-level cache.
fn cut(sizes: [usize; 3]) -> Cut {
    Cut::new(sizes, 256 * 1024 / sizes[1], 2 * SIDE)
}

/// Rows of x in bf16, padded with zeros to whole tiles.
pub(crate) struct Halves {
    numbers: Vec<Step>,
    /// Tile steps of a row.
    steps: usize,
}

/// A row's share in one tile.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Step([bf16; DEPTH]);

impl Halves {
    pub(crate) fn new(isa: Isa, x: &[f32], rows: usize, k: usize) -> Self {
        let steps = k.div_ceil(DEPTH);
        let mut numbers = vec![Step::zeroed(); rows.next_multiple_of(2 * SIDE) * steps];
        let convert = |(to, x): (&mut [Step], &[f32])| isa.run(Convert { x, to });
        let all = numbers.par_chunks_exact_mut(steps).zip(x.par_chunks_exact(k));
        all.with_min_len(16 * 1024 / k + 1).for_each(convert);
        Self { numbers, steps }
    }
}

struct Convert<'a> {
    x: &'a [f32],
    to: &'a mut [Step],
}

impl Kernel for Convert<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (to, x) in self.to.iter_mut().zip(self.x.chunks(DEPTH)) {
            for (to, x) in to.0.iter_mut().zip(x) {
                let bits = x.to_bits();
                // Round to nearest, ties to even; a NaN keeps its sign and becomes quiet.
                let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
                *to = bf16::from_bits(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded });
            }
        }
    }
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

impl Task<'_> {
    /// Two by two tiles of sums at a time.
    fn tiles(&self, engine: impl Engine) {
        engine.start();
        let steps = self.x.steps;
        let panel = |p: usize| &self.units[p * steps * SIDE..][..steps * SIDE];
        let mut sums = [[0.0; 2 * SIDE]; 2 * SIDE];
        for p in self.panels.clone().step_by(2) {
            // A lone last panel is multiplied twice.
            let last = (p + 1).min(self.panels.end - 1);
            for row in self.rows.clone().step_by(2 * SIDE) {
                let x = &self.x.numbers[row * steps..][..2 * SIDE * steps];
                engine.product(x, [panel(p), panel(last)], &mut sums);
                let columns = p * LANES..self.n.min((last + 1) * LANES);
                for (r, sums) in (row..self.rows.end).zip(&sums) {
                    // SAFETY: the tasks of one product have no row and column in common, and the piece ends here.
                    let out = unsafe { self.out.piece(r * self.n + columns.start, columns.len()) };
                    out.copy_from_slice(&sums[..columns.len()]);
                }
            }
        }
        engine.stop();
    }

    #[cfg(target_arch = "x86_64")]
    fn dots(&self, isa: Isa) {
        assert!(isa >= Isa::Avx512Bf16 && isa <= Isa::best());
        // SAFETY: the CPU has these instructions.
        unsafe { dot::task(self) }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn dots(&self, isa: Isa) {
        unreachable!("{isa:?} on another architecture");
    }
}

/// What multiplies tiles. Between `start` and `stop` a thread's tile registers are set up.
trait Engine: Copy {
    fn start(self);
    /// Sums of 32 rows of `x` and two panels.
    fn product(self, x: &[Step], panels: [&[PairUnit]; 2], sums: &mut [[f32; 2 * SIDE]; 2 * SIDE]);
    fn stop(self);
}

#[cfg(target_arch = "x86_64")]
fn hardware() -> impl Engine {
    amx::Tiles::new()
}

#[cfg(not(target_arch = "x86_64"))]
fn hardware() -> impl Engine {
    emulated::Tiles
}

/// What the instruction does, in plain code: checks the walk over tiles on machines without them.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(crate) mod emulated {
    use super::*;

    #[derive(Clone, Copy)]
    pub(super) struct Tiles;

    impl Engine for Tiles {
        fn start(self) {}

        fn product(self, x: &[Step], panels: [&[PairUnit]; 2], sums: &mut [[f32; 2 * SIDE]; 2 * SIDE]) {
            let steps = x.len() / (2 * SIDE);
            for (row, sums) in x.chunks_exact(steps).zip(sums) {
                for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(SIDE)) {
                    sums.fill(0.0);
                    let pairs = row.iter().flat_map(|step| step.0.as_chunks::<2>().0);
                    for (x, unit) in pairs.zip(panel.iter()) {
                        for (sum, w) in sums.iter_mut().zip(&unit.0) {
                            *sum += x[0].to_f32() * w[0].to_f32();
                            *sum += x[1].to_f32() * w[1].to_f32();
                        }
                    }
                }
            }
        }

        fn stop(self) {}
    }

    /// [`super::linear`] with tiles in plain code.
    pub(crate) fn linear(x: &[f32], units: &[PairUnit], out: &mut [f32], [rows, k, n]: [usize; 3]) {
        let x = Halves::new(Isa::best(), x, rows, k);
        let out = Shared::new(out);
        let task = |rows, panels| Task { x: &x, units, out: &out, rows, panels, n }.tiles(Tiles);
        cut([rows, k, n]).work(task).run();
    }
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use super::{Engine, Isa, PairUnit, SIDE, Step, TILE};
    use std::arch::asm;

    /// The tile registers. A value is the proof that they may be used.
    #[derive(Clone, Copy)]
    pub(super) struct Tiles(());

    impl Tiles {
        pub(super) fn new() -> Self {
            assert!(Isa::best() >= Isa::Amx);
            Self(())
        }
    }

    /// What `ldtilecfg` reads: palette 1, eight tiles of sixteen rows of 64 bytes.
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    static CONFIG: Config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    impl Engine for Tiles {
        #[inline]
        fn start(self) {
            // SAFETY: the CPU has tiles, the system allows them (`Isa::best`), and the configuration is 64 valid bytes.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) }
        }

        #[inline]
        fn product(self, x: &[Step], panels: [&[PairUnit]; 2], sums: &mut [[f32; 2 * SIDE]; 2 * SIDE]) {
            let steps = x.len() / (2 * SIDE);
            assert_eq!(x.len(), 2 * SIDE * steps);
            assert!(panels.iter().all(|panel| panel.len() == SIDE * steps));
            if steps == 0 {
                return *sums = [[0.0; 2 * SIDE]; 2 * SIDE];
            }
            let row = size_of::<Step>() * steps;
            let to: *mut f32 = sums.as_mut_ptr().cast();
            // SAFETY: `start` has configured the tiles on this thread. Tile loads read 16 rows of 64 bytes: of x at
            // `step`, rows 0..16 and 16..32, of the panels 1024 bytes in a row, all within the lengths checked above;
            // stores write the four quarters of `sums`, 16 rows of 64 bytes, 128 apart.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{a0} + {row}*1]",
                    "tileloadd tmm6, [{b0} + {unit}*1]",
                    "tileloadd tmm7, [{b1} + {unit}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a1} + {row}*1]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a0}, 64",
                    "add {a1}, 64",
                    "add {b0}, {tile}",
                    "add {b1}, {tile}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{to} + {across}*1], tmm0",
                    "tilestored [{to} + {across}*1 + 64], tmm1",
                    "tilestored [{to} + {across}*1 + 2048], tmm2",
                    "tilestored [{to} + {across}*1 + 2112], tmm3",
                    a0 = inout(reg) x.as_ptr() => _,
                    a1 = inout(reg) x.as_ptr().add(SIDE * steps) => _,
                    b0 = inout(reg) panels[0].as_ptr() => _,
                    b1 = inout(reg) panels[1].as_ptr() => _,
                    steps = inout(reg) steps => _,
                    row = in(reg) row,
                    unit = in(reg) 64_usize,
                    tile = const TILE,
                    to = in(reg) to,
                    across = in(reg) 4 * 2 * SIDE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }

        #[inline]
        fn stop(self) {
            // SAFETY: as in `start`; leaves the registers in their initial state, which the system need not save.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod dot {
    use super::{LANES, Task};
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
        let steps = task.x.steps;
        let x: [&[[u32; 16]]; R] =
            std::array::from_fn(|r| bytemuck::cast_slice(&task.x.numbers[(row + r) * steps..][..steps]));
        let w: [&[super::PairUnit]; P] =
            std::array::from_fn(|p| &task.units[(panel + p) * steps * LANES..][..steps * LANES]);
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
