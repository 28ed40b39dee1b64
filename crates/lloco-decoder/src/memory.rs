//! Memory between outputs, and memory for what grows.

use burn::tensor::{DType, Device, Tensor};

/// Gives memory that is kept for the next outputs back to the system.
///
/// The kernels of the CPU backend `flex` keep as much as was in use at once, so that the next step of a training, or the
/// next text, finds it; in a process that rests afterwards it is of no use. Each thread keeps up to 2 MiB more for its next
/// attention, of which this gives back the calling thread's. A trainer's `run` ends with this. On other devices it does nothing.
///
/// ```
/// lloco_decoder::release_memory();
/// ```
pub fn release_memory() {
    #[cfg(feature = "flex")]
    crate::kernels::give_back();
}

/// Zeros of any `shape`, most of which may never be written.
///
/// On the CPU backend `flex` they lie in pages of their own, which take memory as they are written, up to 2 MiB at a time, and go
/// back to the system with the tensor; [`Tensor::zeros`] writes all of them, twice for a while. On other devices it is what that
/// function makes.
///
/// ```
/// use lloco_decoder::{burn::tensor::{DType, Device}, zeros};
///
/// let room = zeros([8192, 576], DType::F32, &Device::flex());
/// assert_eq!(room.dims(), [8192, 576]);
/// ```
pub fn zeros<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::kernels::is_flex(device) && !device.is_autodiff() {
        return crate::kernels::zeros_alone(shape, dtype, device);
    }
    Tensor::zeros(shape, (device, dtype))
}
