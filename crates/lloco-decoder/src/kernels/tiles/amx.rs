//! The instructions.

use super::{BLOCK, Engine, Place, Rows, SIDE, Started, Step};
use crate::kernels::cpu::Isa;
use crate::kernels::simd::PairUnit;
use std::arch::asm;
use std::marker::PhantomData;

/// Bytes of a tile: sixteen rows of 64 bytes.
const TILE: usize = 1024;

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

/// This thread's registers, set up; another thread's are not.
pub(crate) struct Ready(PhantomData<*const ()>);

impl Engine for Tiles {
    type Started = Ready;

    #[inline]
    fn start(self) -> Ready {
        // SAFETY: the CPU has tiles, the system allows them (`Isa::best`), and the configuration is 64 valid bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) }
        Ready(PhantomData)
    }
}

impl Drop for Ready {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: as in `start`; leaves the registers in their initial state, which the system need not save.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

impl Started for Ready {
    #[inline]
    fn product(&self, x: Rows<'_>, panels: [&[PairUnit]; 2], to: &Place<'_>, add: bool) {
        let depth = panels[0].len() / SIDE;
        assert!(panels.iter().all(|panel| panel.len() == SIDE * depth) && depth > 0 && x.hold(depth));
        let row = size_of::<Step>() * x.stride;
        let across = size_of::<f32>() * to.stride;
        // SAFETY: `Place::new` has checked that the block lies within the shared slice.
        let out = unsafe { to.to.at(to.start) };
        // SAFETY: `self` is the proof that the tiles are configured on this thread. Tile loads read 16 rows of 64 bytes: of x at each
        // step, rows 0..16 and 16..32, of the panels 1024 bytes in a row, all within the lengths checked above; the four
        // tiles of sums are the block's, `BLOCK` rows of 128 bytes, `across` apart, which is this place's alone.
        unsafe {
            asm!(
                "test {add}, {add}",
                "jz 3f",
                "tileloadd tmm0, [{o0} + {across}*1]",
                "tileloadd tmm1, [{o0} + {across}*1 + 64]",
                "tileloadd tmm2, [{o1} + {across}*1]",
                "tileloadd tmm3, [{o1} + {across}*1 + 64]",
                "jmp 2f",
                "3:",
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
                "tilestored [{o0} + {across}*1], tmm0",
                "tilestored [{o0} + {across}*1 + 64], tmm1",
                "tilestored [{o1} + {across}*1], tmm2",
                "tilestored [{o1} + {across}*1 + 64], tmm3",
                add = in(reg) usize::from(add),
                a0 = inout(reg) x.steps.as_ptr() => _,
                a1 = inout(reg) x.steps.as_ptr().add(SIDE * x.stride) => _,
                b0 = inout(reg) panels[0].as_ptr() => _,
                b1 = inout(reg) panels[1].as_ptr() => _,
                steps = inout(reg) depth => _,
                row = in(reg) row,
                unit = in(reg) 64_usize,
                tile = const TILE,
                o0 = in(reg) out,
                o1 = in(reg) out.add(SIDE * to.stride),
                across = in(reg) across,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
        const { assert!(BLOCK == 2 * SIDE) }
    }
}
