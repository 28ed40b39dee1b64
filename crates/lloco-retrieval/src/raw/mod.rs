//! The two things that need `unsafe`: mapping files and calling kernels compiled for
//! processor features found at run time.
#![allow(unsafe_code)]

pub(crate) mod dot;
pub(crate) mod dot_i8;
pub(crate) mod gelu;
pub(crate) mod hamming;
pub(crate) mod map;
pub(crate) mod products;
