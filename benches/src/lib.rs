//! What the benches share: the model and document they work on, timing, and the machine's own limits.
//!
//! | file | what is there |
//! |---|---|
//! | `subject` | the model, the document, and the work that is timed |
//! | `device` | the device, and the `main` of a criterion bench |
//! | `timing` | criterion groups that keep their medians, and alternating runs |
//! | `limit` | the matrix-product rate and the memory bandwidth of this machine |
//! | `share` | a rate beside that limit, and the targets |
#![allow(clippy::print_stdout, reason = "programs that print")]

mod device;
pub mod limit;
mod share;
mod subject;
mod timing;

pub use device::{again, arguments, device, run};
pub use share::Share;
pub use subject::{Answer, Result, Subject, peak_rss};
pub use timing::{Alternation, Group, alternate, median};
