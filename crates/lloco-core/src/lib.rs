//! Under construction.

pub mod dataset;
pub mod eval;
mod random;
