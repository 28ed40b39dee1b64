//! What happens during the long verbs.

use std::{fmt, ops::ControlFlow, sync::Arc};

use crate::{Error, Result};

/// A step of a verb that takes long. An observer may show it, and may ask to stop.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another segment of a document was compressed and stored.
    Compressed {
        /// The document.
        document: &'a str,
        /// Bytes of this verb's texts done so far.
        done: u64,
        /// Bytes of this verb's texts.
        total: u64,
    },
    /// More passages were embedded for retrieval.
    Embedded {
        /// Passages done so far.
        done: usize,
        /// Passages of this verb.
        total: usize,
    },
    /// Questions were made of another passage.
    Studied {
        /// The document.
        document: &'a str,
        /// Bytes of the group's texts studied so far.
        done: u64,
        /// Bytes of the group's texts.
        total: u64,
    },
    /// The model has read another question's text itself, to be learned from.
    Taught {
        /// Questions done so far.
        done: usize,
        /// Questions of this verb.
        total: usize,
    },
    /// Another question was read and answered for the control table.
    Evaluated {
        /// Readings done, a question counting once for each row.
        done: usize,
        /// Readings of the table.
        total: usize,
    },
    /// A finetuning step is done.
    Finetuned {
        /// Steps done.
        step: usize,
        /// Steps of the run.
        of: usize,
        /// Mean loss of an answer token in this step.
        loss: f64,
        /// Positions read in this step, summary vectors included.
        positions: usize,
    },
    /// The held-out questions of a finetuning run were scored.
    HeldOut {
        /// Steps done.
        step: usize,
        /// Mean loss of an answer token.
        loss: f64,
        /// Whether no scoring before was better.
        best: bool,
    },
}

/// Called after each step; `Break` stops the verb there, with everything done so far kept.
#[derive(Clone)]
pub(crate) struct Observer(Arc<Callback>);

type Callback = dyn Fn(&Event<'_>) -> ControlFlow<()> + Send + Sync;

impl Observer {
    pub(crate) fn new(observer: impl Fn(&Event<'_>) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(observer))
    }

    pub(crate) fn flow(&self, event: &Event<'_>) -> ControlFlow<()> {
        (self.0)(event)
    }

    /// [`Error::Interrupted`] when the observer asks to stop.
    pub(crate) fn tell(&self, event: &Event<'_>) -> Result<()> {
        match self.flow(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(|_| ControlFlow::Continue(()))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
