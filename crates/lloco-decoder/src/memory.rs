//! Memory between outputs.

/// Gives memory that is kept for the next outputs back to the system.
///
/// The kernels of the CPU backend `flex` keep as much as was in use at once, so that the next step of a training, or the
/// next text, finds it; in a process that rests afterwards it is of no use. A trainer's `run` ends with this. On other
/// devices it does nothing.
///
/// ```
/// lloco_decoder::release_memory();
/// ```
pub fn release_memory() {
    #[cfg(feature = "flex")]
    crate::kernels::give_back();
}
