//! Dropout (arXiv 1207.0580) that a seed repeats.

use burn::tensor::{Tensor, TensorData};

use crate::ops::like;

/// Which numbers are dropped: a function of seed and place alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    seed: u64,
    /// Of 65,536.
    dropped: u16,
}

impl Mask {
    /// Numbers that one 64-bit word decides.
    pub(crate) const AT_ONCE: usize = 4;

    fn new(rate: f64, seed: u64) -> Self {
        Self { seed, dropped: (rate * 65536.0).round().clamp(0.0, 65535.0) as u16 }
    }

    /// The factors, 0 or `1 / (1 - rate)`, of `out.len()` numbers from word `first` on.
    pub(crate) fn fill(self, first: usize, out: &mut [f32]) {
        let kept = (65536.0 / (65536.0 - f64::from(self.dropped))) as f32;
        for (word, factors) in (first as u64..).zip(out.chunks_mut(Self::AT_ONCE)) {
            let bits = mix(self.seed.wrapping_add((word + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            for (place, factor) in factors.iter_mut().enumerate() {
                let draw = (bits >> (16 * place)) as u16;
                *factor = if draw < self.dropped { 0.0 } else { kept };
            }
        }
    }
}

/// `x` with a share `rate` of its elements, 0 to below 1, set to zero and the others divided by `1 - rate`.
///
/// The same seed drops the same places, on every device, so that a pass can be repeated. The shape stays.
///
/// ```
/// use lloco_decoder::{burn::tensor::{Device, Tensor}, dropout};
///
/// let x = Tensor::<1>::ones([8], &Device::default());
/// let drop = |seed| dropout(x.clone(), 0.5, seed).into_data();
/// assert_eq!(drop(1), drop(1));
/// ```
pub fn dropout<const D: usize>(x: Tensor<D>, rate: f64, seed: u64) -> Tensor<D> {
    let mask = Mask::new(rate, seed);
    if mask.dropped == 0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if crate::kernels::on_flex(&x) {
        return crate::kernels::dropout(x, mask);
    }
    let mut factors = vec![0.0; x.shape().num_elements()];
    mask.fill(0, &mut factors);
    let factors = Tensor::<D>::from_data(TensorData::new(factors, x.dims()), &x.device().inner());
    let factors = like(&factors, &x).cast(x.dtype());
    x * factors
}

/// Well-mixed bits of a number, for seeds: the output function of SplitMix64 (Steele, Lea, Flood 2014).
///
/// ```
/// // The seed of a run's third step.
/// let seed = lloco_decoder::mix(42 ^ lloco_decoder::mix(3));
/// assert_ne!(seed, lloco_decoder::mix(42 ^ lloco_decoder::mix(4)));
/// ```
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn drawn(len: usize, rate: f64, seed: u64) -> Vec<f32> {
        let x = Tensor::<1>::ones([len], &Device::default());
        dropout(x, rate, seed).into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn a_share_is_dropped_and_the_rest_makes_good() {
        for (rate, seed) in [(0.05, 1), (0.5, 2), (0.9, 3)] {
            let factors = drawn(100_003, rate, seed);
            let dropped = factors.iter().filter(|&&factor| factor == 0.0).count() as f64 / 100_003.0;
            assert!((dropped - rate).abs() < 0.01, "{rate}: {dropped}");
            let kept = (1.0 / (1.0 - rate)) as f32;
            assert!(factors.iter().all(|&factor| factor == 0.0 || (factor / kept - 1.0).abs() < 1e-3), "{rate}");
        }
    }

    #[test]
    fn places_follow_from_the_seed_whatever_the_length() {
        let long = drawn(70_001, 0.3, 7);
        assert_eq!(long[..33], drawn(33, 0.3, 7));
        assert_ne!(long[..33], drawn(33, 0.3, 8));
        assert_eq!(drawn(9, 0.0, 7), [1.0; 9]);
    }

    #[test]
    fn the_gradient_is_dropped_in_the_same_places() {
        let x = Tensor::<1>::ones([50_000], &Device::default().autodiff()).require_grad();
        let y = dropout(x.clone(), 0.4, 5);
        let mut gradients = y.clone().sum().backward();
        let gradient = x.grad_remove(&mut gradients).expect("x is tracked");
        assert_eq!(gradient.into_data(), y.inner().into_data());
    }
}
