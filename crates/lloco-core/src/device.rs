//! Devices by name, for programs that take one as an argument.

use burn::tensor::Device;

use crate::{Error, Result};

/// The device that a name stands for: `cpu`, `ndarray`, `cuda`, `wgpu`, `vulkan` or `metal`.
///
/// ```
/// # #[cfg(feature = "flex")]
/// assert!(lloco_core::device("cpu").is_ok());
/// assert!(lloco_core::device("abacus").is_err());
/// ```
///
/// # Errors
/// [`Error::DeviceUnavailable`] for another name, or a device whose feature is not compiled in.
pub fn device(name: &str) -> Result<Device> {
    let unavailable = |hint: String| Err(Error::DeviceUnavailable { name: name.to_owned(), hint });
    match name {
        #[cfg(feature = "flex")]
        "cpu" | "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(burn::tensor::DeviceIndex::Default)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[allow(unreachable_patterns, reason = "which names stand above depends on the features")]
        "cpu" | "flex" => unavailable("build with --features flex".into()),
        #[allow(unreachable_patterns, reason = "which names stand above depends on the features")]
        "ndarray" | "cuda" | "wgpu" | "vulkan" | "metal" => unavailable(format!("build with --features {name}")),
        _ => unavailable("choose one of cpu, ndarray, cuda, wgpu, vulkan, metal".into()),
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated, reason = "selectable while burn offers it")]
fn ndarray() -> Device {
    Device::ndarray()
}

/// The CPU where it is compiled in, else what burn chooses.
pub(crate) fn default_device() -> Device {
    #[cfg(feature = "flex")]
    return Device::flex();
    #[cfg(not(feature = "flex"))]
    Device::default()
}
