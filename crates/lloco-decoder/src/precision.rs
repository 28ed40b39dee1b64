//! Which numbers a device computes with.

use burn::{
    backend::DispatchDevice,
    tensor::{DType, Device, FloatDType},
};

use crate::WeightType;
#[cfg(feature = "flex")]
use crate::kernels;

/// Settles [`WeightType::Auto`] where it depends on the device alone.
pub(crate) fn resolve(weights: WeightType, device: &Device) -> WeightType {
    #[cfg(feature = "flex")]
    if kernels::is_flex(device) {
        return weights;
    }
    match weights {
        WeightType::Auto if on_cpu(device) || !device.supports_dtype(DType::BF16) => WeightType::F32,
        WeightType::Auto => WeightType::Bf16,
        chosen => chosen,
    }
}

/// What activations are: halves where a device computes with them.
pub(crate) fn activations(weights: WeightType, device: &Device) -> FloatDType {
    if on_cpu(device) || weights == WeightType::F32 { FloatDType::F32 } else { FloatDType::BF16 }
}

/// What a cache holds: halves where kernels read them or activations are halves anyway.
pub(crate) fn cached(weights: WeightType, device: &Device) -> FloatDType {
    #[cfg(feature = "flex")]
    if kernels::is_flex(device) && weights != WeightType::F32 {
        return FloatDType::F16;
    }
    activations(weights, device)
}

/// Whether a device is the processor: activations stay f32 there, whatever the weights are.
pub(crate) fn on_cpu(device: &Device) -> bool {
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[allow(unreachable_patterns, reason = "which devices exist depends on the features")]
        _ => false,
    }
}
