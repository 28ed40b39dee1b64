//! Many operations in a row, with the kernels' threads woken once for all of them.

use burn::tensor::{Device, Gradients, Tensor};

#[cfg(feature = "flex")]
use crate::kernels;

/// Runs `work`, which computes on `device`. On the CPU backend `flex` the threads of the kernels stand ready until it
/// ends: waking them for each kernel takes longer than many a kernel does, and a pass is hundreds of them.
pub(crate) fn at_once<R>(device: &Device, work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "flex")]
    if kernels::is_flex(device) {
        return kernels::ready(work);
    }
    let _ = device;
    work()
}

/// [`Tensor::backward`] of a loss that was computed behind a [`Decoder`](crate::Decoder): the same gradients, sooner on
/// the CPU backend `flex`, whose threads stand ready until they are found.
///
/// ```
/// use lloco_decoder::{backward, burn::tensor::{Device, Tensor}};
/// let x = Tensor::<1>::from_floats([1.0, 2.0], &Device::default().autodiff()).require_grad();
/// let gradients = backward(&(x.clone() * x.clone()).sum());
/// assert_eq!(x.grad(&gradients).unwrap().into_data().try_to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn backward(loss: &Tensor<1>) -> Gradients {
    at_once(&loss.device(), || loss.backward())
}
