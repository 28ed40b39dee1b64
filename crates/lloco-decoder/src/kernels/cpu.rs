//! Which instructions this CPU has, asked once, and the one place where a kernel enters code compiled for them.

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};
use std::sync::OnceLock;

/// An instruction set that the kernels know, poorest first. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isa {
    /// Nothing beyond the compiler's target.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW and DQ.
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
    /// Tile registers with bf16 products, and the operating system's leave to use them.
    Amx,
}

impl Isa {
    /// All of them, poorest first.
    const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The set to use: the richest that this machine can run, or one that the environment variable `LLOCO_KERNELS` names,
    /// if this machine can run that (`portable`, `avx2`, `avx512`, `avx512bf16`, `amx`). Asked once.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let Some(name) = std::env::var_os("LLOCO_KERNELS") else { return Self::richest() };
            let named = Isa::ALL.into_iter().find(|isa| name.eq_ignore_ascii_case(format!("{isa:?}")));
            match named.filter(|isa| *isa <= Self::richest()) {
                Some(isa) => isa,
                None => {
                    tracing::warn!(?name, used = ?Self::richest(), "LLOCO_KERNELS names no instructions of this CPU");
                    Self::richest()
                }
            }
        })
    }

    /// The richest set that this machine can run.
    fn richest() -> Self {
        static RICHEST: OnceLock<Isa> = OnceLock::new();
        *RICHEST.get_or_init(detect)
    }

    /// The sets that this machine can run, poorest first; tests run on each.
    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| *isa <= Isa::richest())
    }

    /// Runs `kernel` in code compiled for this set.
    ///
    /// # Panics
    /// Where the machine lacks it: [`Isa::best`] names none of those.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        assert!(self <= Isa::richest(), "{self:?} asked for, this machine has {:?}", Isa::richest());
        match self {
            Isa::Portable => kernel.run(Portable),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `self <= richest()`, so `detect` has found AVX2, FMA and F16C.
            Isa::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `self <= richest()`, so `detect` has found AVX-512 F, BW and DQ.
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => unsafe { run_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => kernel.run(Portable),
        }
    }
}

/// A computation written for any [`Simd`]. `run` must be `#[inline(always)]`, else it loses the instructions.
pub(crate) trait Kernel {
    /// What it returns.
    type Out;
    /// Does it.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: this function's own features.
    kernel.run(unsafe { Avx2::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma,f16c")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: this function's own features.
    kernel.run(unsafe { Avx512::new() })
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    if !avx2 {
        Isa::Portable
    } else if !(is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq"))
    {
        Isa::Avx2
    } else if !is_x86_feature_detected!("avx512bf16") {
        Isa::Avx512
    } else if !tiles() {
        Isa::Avx512Bf16
    } else {
        Isa::Amx
    }
}

/// Whether the CPU multiplies bf16 tiles, and the operating system saves the tile registers for this process.
#[cfg(target_arch = "x86_64")]
fn tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TILE: u32 = 1 << 24;
    const BF16: u32 = 1 << 22;
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & (TILE | BF16) != TILE | BF16 {
        return false;
    }
    permission()
}

/// Asks Linux for the tile registers; the answer holds for all threads of the process.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call without pointers; the kernel clobbers rcx and r11 and returns in rax. It refuses with a
    // negative number where it does not know the request.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn permission() -> bool {
    false
}
