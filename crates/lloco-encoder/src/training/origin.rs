//! Runs that begin with a trained compressor instead of new weights.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CompressorTrainer;
use crate::{Compressor, Error, Result};

/// What a run began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// Of all weights.
    sha256: String,
    /// Steps that were done before.
    pub(super) steps: usize,
}

impl Origin {
    fn of(compressor: &Compressor) -> Result<Self> {
        let mut hash = Sha256::new();
        compressor.hash(&mut hash, |_| true)?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { sha256, steps: compressor.config.steps })
    }

    /// What errors call it.
    pub(super) fn name(origin: Option<&Self>) -> String {
        match origin {
            Some(Self { sha256, steps }) => format!("the compressor {sha256:.12} of {steps} steps"),
            None => "new weights".into(),
        }
    }
}

impl CompressorTrainer<'_> {
    /// Begins with a trained compressor instead of new weights, on any data. Its moments are not known, so that a few
    /// steps of warm-up are in place. Comes before [`resume`](Self::resume).
    ///
    /// ```no_run
    /// # use lloco_encoder::{Compressor, CompressorTrainer, Result};
    /// # fn go_on(trainer: CompressorTrainer<'_>, decoder: &lloco_decoder::Decoder, base: &str) -> Result<()> {
    /// let mut trainer = trainer.start_from(Compressor::load("first/compressor", decoder, base)?)?;
    /// trainer.resume("second")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when its model, mode, encoder or reader are not the curriculum's, or steps were done
    /// already.
    pub fn start_from(mut self, compressor: Compressor) -> Result<Self> {
        if self.step > 0 {
            return Err(invalid("step", &self.step, &0));
        }
        let (found, expected) = (&compressor.config, &self.compressor.config);
        same("base", &found.base, &expected.base)?;
        same("mode", &found.mode, &expected.mode)?;
        same("encoder", &found.encoder, &expected.encoder)?;
        same("reader", &found.reader, &expected.reader)?;
        self.origin = Some(Origin::of(&compressor)?);
        self.compressor = compressor;
        Ok(self)
    }
}

fn same<T: Debug + PartialEq>(field: &'static str, found: &T, expected: &T) -> Result<()> {
    if found == expected { Ok(()) } else { Err(invalid(field, found, expected)) }
}

fn invalid(field: &'static str, found: &impl Debug, expected: &impl Debug) -> Error {
    Error::InvalidSetting { field, found: format!("{found:?}"), expected: format!("{expected:?}") }
}
