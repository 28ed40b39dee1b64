//! Ctrl-C: the first one asks, the second one kills.

use std::{
    io::{self, Write as _},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::Result;

/// A flag that the first Ctrl-C sets; the second ends the process. To be called once in a process.
///
/// # Errors
/// When the system refuses the signal handler.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
        // The request counts whether it can be acknowledged or not.
        let _ = writeln!(io::stderr(), "\nstopping after this step; once more to stop at once");
    })?;
    Ok(flag)
}
