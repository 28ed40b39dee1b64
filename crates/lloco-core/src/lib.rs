//! Under construction.

pub mod dataset;
mod digest;
pub mod error;
pub mod eval;
mod random;
pub mod source;
pub mod store;

pub use digest::Digest;
pub use error::{Attempt, Error, Result, Route};
pub use source::{ModelSource, Progress, Resolver};
pub use store::{LocalStore, Store};
