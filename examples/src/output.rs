//! Text for people, or one JSON line for machines, on the standard output stream.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use clap::Args;
use serde_json::Value;

/// Where results go.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print one line of JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
}

impl Output {
    /// Whether a line of JSON is printed.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Shows text at once, as it is; nothing with `--json`.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn text(&self, text: impl Display) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        write!(out, "{text}")?;
        out.flush()
    }

    /// Shows a line of text; nothing with `--json`.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn line(&self, text: impl Display) -> io::Result<()> {
        self.text(format_args!("{text}\n"))
    }

    /// Prints the line of `--json`; nothing without it.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn report(&self, report: &Value) -> io::Result<()> {
        match self.json {
            true => writeln!(io::stdout().lock(), "{report}"),
            false => Ok(()),
        }
    }
}
