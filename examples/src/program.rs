//! From arguments to an exit code.

use std::{error::Error, io, io::Write as _, process::ExitCode};

use clap::Parser;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Result of an example: any error, told to the user as it is.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Runs an example on its arguments: 0 if all went well, 1 and the reason on the standard error stream if not.
///
/// `RUST_LOG` sets what is logged there, by default warnings.
pub fn main<A: Parser>(run: impl FnOnce(A) -> Result) -> ExitCode {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().init();
    match run(A::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no one left to tell if this fails.
            let _ = writeln!(io::stderr(), "error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, without those that it already quotes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let reason = inner.to_string();
        if !text.contains(&reason) {
            text = format!("{text}\ncaused by: {reason}");
        }
        cause = inner.source();
    }
    text
}
