//! Integer products, whichever instructions make them.

use super::super::cpu::Isa;
use super::super::pack::{Inputs, PackedLinear};
use super::super::products as raw;
use super::numbers;

#[test]
fn one_instruction_instead_of_two_changes_no_bit() {
    if !Isa::available().any(|isa| isa == Isa::Avx512Vnni) {
        eprintln!("skipped: this CPU has no AVX-512 VNNI");
        return;
    }
    for [m, k, n] in [[1, 64, 37], [7, 100, 16], [45, 416, 33]] {
        // The largest numbers of a block, and inputs, of either sign.
        let loud = |seed| numbers(m.max(n) * k, seed).iter().map(|x| if *x < 0.5 { x.signum() } else { *x }).collect();
        let (x, w): (Vec<f32>, Vec<f32>) = (loud(1), loud(2));
        let (x, w) = (&x[..m * k], &w[..n * k]);
        for packed in [
            PackedLinear::int8(n, k, w),
            PackedLinear::q4(n, k, w, Inputs::Fine),
            PackedLinear::q4(n, k, w, Inputs::Coarse),
        ] {
            let packed = packed.expect("finite");
            let [plain, vnni] = [Isa::Avx512, Isa::Avx512Vnni].map(|isa| {
                let mut out = vec![f32::NAN; m * n];
                raw::linear(isa, x, &packed, &mut out);
                out
            });
            assert_eq!(plain, vnni, "{packed:?} {m} x {k} x {n}");
        }
    }
}
