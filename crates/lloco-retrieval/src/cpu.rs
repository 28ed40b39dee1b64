//! What burn's CPU backend computes number after number on one core, done faster here.
//!
//! A tensor on that backend lies in ordinary memory, and its data moves out of and into a
//! tensor without a copy. Other devices, and other number types, take burn's own operation.

use crate::raw;
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, activation};

/// Exact GELU.
pub(crate) fn gelu(tensor: Tensor<2>) -> Result<Tensor<2>> {
    let device = tensor.device();
    if !is_cpu(&device) {
        return Ok(activation::gelu(tensor));
    }
    let mut data = tensor.try_into_data().map_err(|e| Error::Device(e.to_string()))?;
    Ok(match data.as_mut_slice() {
        Ok(values) => {
            raw::gelu::gelu(values);
            Tensor::from_data(data, &device)
        }
        Err(_) => activation::gelu(Tensor::from_data(data, &device)),
    })
}

/// Whether the device is burn's pure-Rust CPU backend.
fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}
