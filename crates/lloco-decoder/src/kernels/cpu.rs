//! Which instructions this CPU has, asked once, and the one place where a kernel enters code compiled for them.

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};
use std::ffi::OsStr;
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
    /// AVX-512 with dot products of integers.
    Avx512Vnni,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
    /// Tile registers with bf16 products, and the operating system's leave to use them.
    Amx,
}

impl Isa {
    /// All of them, poorest first.
    const ALL: [Isa; 6] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16, Isa::Amx];

    /// The set to use: the richest that this machine can run, or one that the environment variable `LLOCO_KERNELS` names,
    /// if this machine can run that (`portable`, `avx2`, `avx512`, `avx512vnni`, `avx512bf16`, `amx`). Asked once.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let Some(name) = std::env::var_os("LLOCO_KERNELS") else { return Self::richest() };
            Self::named(&name, Self::richest()).unwrap_or_else(|| {
                tracing::warn!(?name, used = ?Self::richest(), "LLOCO_KERNELS names no instructions of this CPU");
                Self::richest()
            })
        })
    }

    /// The set of that name, if it is not beyond `richest`.
    fn named(name: &OsStr, richest: Isa) -> Option<Self> {
        let named = Isa::ALL.into_iter().find(|isa| name.eq_ignore_ascii_case(format!("{isa:?}")));
        named.filter(|isa| *isa <= richest)
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
            Isa::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `self <= richest()`, so `detect` has found AVX-512 F, BW, DQ and VNNI.
            Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => unsafe { run_vnni(kernel) },
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
    kernel.run(unsafe { Avx512::<false>::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
fn run_vnni<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: this function's own features.
    kernel.run(unsafe { Avx512::<true>::new() })
}

/// What a CPU says of itself. Not every CPU, let alone every virtual one, that has one of these has those before it.
#[cfg(any(target_arch = "x86_64", test))]
struct Features {
    /// AVX2, FMA and F16C.
    avx2: bool,
    /// AVX-512 F, BW and DQ.
    avx512: bool,
    /// Dot products of integers.
    vnni: bool,
    /// bf16 dot products.
    bf16: bool,
    /// Tile registers with bf16 products.
    tiles: bool,
}

#[cfg(any(target_arch = "x86_64", test))]
impl Features {
    /// The richest set that a CPU with these runs. `permission` asks the operating system for the tile registers: it is asked
    /// only where nothing else is missing, and a refusal leaves all but them.
    fn richest(&self, permission: impl FnOnce() -> bool) -> Isa {
        if !self.avx2 {
            Isa::Portable
        } else if !self.avx512 {
            Isa::Avx2
        } else if !self.vnni {
            Isa::Avx512
        } else if !self.bf16 {
            Isa::Avx512Vnni
        } else if !self.tiles || !permission() {
            Isa::Avx512Bf16
        } else {
            Isa::Amx
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let features = Features {
        avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
        avx512: is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq"),
        vnni: is_x86_feature_detected!("avx512vnni"),
        bf16: is_x86_feature_detected!("avx512bf16"),
        tiles: tiles(),
    };
    features.richest(permission)
}

/// Whether the CPU multiplies bf16 tiles.
#[cfg(target_arch = "x86_64")]
fn tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TILE: u32 = 1 << 24;
    const BF16: u32 = 1 << 22;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (TILE | BF16) == TILE | BF16
}

/// Asks Linux to save the tile registers for this process; the answer holds for all its threads.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_used_where_it_and_all_before_it_are_there() {
        for bits in 0..64 {
            let [avx2, avx512, vnni, bf16, tiles, permitted] = [0, 1, 2, 3, 4, 5].map(|bit| bits >> bit & 1 == 1);
            let mut asked = false;
            let found = Features { avx2, avx512, vnni, bf16, tiles }.richest(|| {
                asked = true;
                permitted
            });
            let wanted = [avx2, avx512, vnni, bf16, tiles && permitted].into_iter().take_while(|there| *there).count();
            assert_eq!(found, Isa::ALL[wanted], "{bits:06b}");
            assert_eq!(
                asked,
                avx2 && avx512 && vnni && bf16 && tiles,
                "{bits:06b}: a CPU without tiles needs no leave"
            );
        }
    }

    #[test]
    fn names_are_those_of_sets_that_the_machine_has() {
        for (at, name) in ["portable", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"].into_iter().enumerate() {
            for (best, richest) in Isa::ALL.into_iter().enumerate() {
                let wanted = (at <= best).then_some(Isa::ALL[at]);
                assert_eq!(Isa::named(name.as_ref(), richest), wanted, "{name} of {richest:?}");
                assert_eq!(Isa::named(name.to_uppercase().as_ref(), richest), wanted, "{name} of {richest:?}");
            }
        }
        for name in ["", "abacus", "avx", "avx512 "] {
            assert_eq!(Isa::named(name.as_ref(), Isa::Amx), None, "{name}");
        }
    }
}
