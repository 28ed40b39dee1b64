//! Dropout whose mask is never stored: each number's fate follows from seed and place.

use super::rows::each_run;
use crate::dropout::Mask;

/// `x` with a share of its numbers set to zero, the others scaled up. Its own gradient, too.
pub(crate) fn dropout(x: &[f32], mask: Mask, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    each_run(out, Mask::AT_ONCE, |first, out| {
        let start = first * Mask::AT_ONCE;
        mask.fill(first, out);
        for (out, x) in out.iter_mut().zip(&x[start..]) {
            *out *= x;
        }
    });
}
