//! Checkpoints: a killed run goes on as if it had never stopped.
//!
//! Each holds the weights, AdamW's moments and `trainer.json` with the step, the place in the data, and the curriculum.
//! All that is drawn at random follows from the seed and these two numbers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lloco_lora::{
    StoredType,
    durable::{Checkpoints, read_tensors, tensor_bytes},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CompressorTrainer, origin::Origin};
use crate::{Compressor, Error, Result};

/// Version of the checkpoint's layout.
const FORMAT: u32 = 1;

/// `trainer.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    step: usize,
    /// Draws from the data.
    drawn: u64,
    curriculum: Value,
    /// SHA-256 of the data.
    data: String,
    /// What the run began with, if not with new weights.
    #[serde(default)]
    origin: Option<Origin>,
}

impl CompressorTrainer<'_> {
    /// Writes a checkpoint below `dir` and returns its path. A step that is there already is not written again.
    ///
    /// # Errors
    /// When writing fails, or `dir` holds a run that is further; the checkpoints that are there stay.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<PathBuf> {
        let state = State {
            format: FORMAT,
            step: self.step,
            drawn: self.drawn,
            curriculum: self.curriculum_value()?,
            data: self.corpus.digest().to_owned(),
            origin: self.origin.clone(),
        };
        let written = checkpoints(dir.as_ref()).write(self.step, |draft| {
            self.compressor.write(draft, StoredType::F32)?;
            let name = "optimizer.safetensors";
            draft.write(name, &tensor_bytes(&self.optimizer.state(), StoredType::F32, &draft.path(name))?)?;
            let path = draft.path("trainer.json");
            let json = serde_json::to_vec_pretty(&state);
            let json = json.map_err(|e| lloco_lora::Error::Malformed { path, detail: e.to_string() })?;
            draft.write("trainer.json", &json)
        });
        Ok(written?)
    }

    /// Goes on from the newest checkpoint below `dir`. Returns whether there was one; without one nothing changes. The
    /// curriculum may have more stages than the one that the checkpoint was written under, and lower learning rates in those
    /// that are not done.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] when it was written under another curriculum, for another model, on other data or from
    /// another start; others when it is damaged. The trainer is then as before.
    pub fn resume(&mut self, dir: impl AsRef<Path>) -> Result<bool> {
        let dir = dir.as_ref();
        let Some((_, path)) = checkpoints(dir).newest()? else { return Ok(false) };
        let file = path.join("trainer.json");
        let json = fs::read(&file).map_err(|source| Error::Io { path: file.clone(), source })?;
        let malformed = |e: serde_json::Error| Error::Malformed { path: file.clone(), detail: e.to_string() };
        let fields: Value = serde_json::from_slice(&json).map_err(malformed)?;
        let mismatch = |field: &str, expected: String, found: String| Error::CheckpointMismatch {
            path: path.clone(),
            field: field.to_owned(),
            expected,
            found,
        };
        let format = fields.get("format").unwrap_or(&Value::Null);
        if *format != FORMAT {
            return Err(mismatch("format", format!("{FORMAT} (this program reads no other)"), format.to_string()));
        }
        let state: State = serde_json::from_value(fields).map_err(malformed)?;
        let mut own = self.curriculum_value()?;
        let stages = state.curriculum.get("stages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(own) = own.get_mut("stages").and_then(Value::as_array_mut) {
            own.truncate(stages.len());
            // Stages that are done are what they were.
            let left = self.curriculum.stage_of(state.step).map_or(usize::MAX, |(stage, _)| stage);
            own.iter_mut().zip(stages).skip(left).for_each(|(own, found)| allow_lower_rates(own, found));
        }
        if let Some((field, expected, found)) = difference("curriculum", &own, &state.curriculum) {
            return Err(mismatch(&field, expected, found));
        }
        if state.data != self.corpus.digest() {
            return Err(mismatch("data", self.corpus.digest().to_owned(), state.data));
        }
        if state.origin != self.origin {
            let [expected, found] = [&self.origin, &state.origin].map(|origin| Origin::name(origin.as_ref()));
            return Err(mismatch("origin", expected, found));
        }
        let compressor = Compressor::load(&path, self.decoder, &self.compressor.config.base)?;
        let mut optimizer = self.optimizer.clone();
        let moments = path.join("optimizer.safetensors");
        let parameters = compressor.weights.parameters();
        optimizer.restore(read_tensors(&moments)?, &parameters, &moments, self.decoder.device())?;
        (self.compressor, self.optimizer, self.step, self.drawn) = (compressor, optimizer, state.step, state.drawn);
        tracing::info!(step = self.step, path = %path.display(), "resumed");
        Ok(true)
    }

    fn curriculum_value(&self) -> Result<Value> {
        let path = PathBuf::from("curriculum");
        serde_json::to_value(&self.curriculum).map_err(|e| Error::Malformed { path, detail: e.to_string() })
    }
}

/// Where a run keeps its checkpoints.
pub(crate) fn checkpoints(dir: &Path) -> Checkpoints {
    Checkpoints::new(dir.join("checkpoints"))
}

/// Takes each learning rate of a stage as it was for that of `own`, where this is the same or lower.
fn allow_lower_rates(own: &mut Value, found: &Value) {
    const RATES: &str = "learning_rates";
    let (Some(rates), Some(before)) = (own.get_mut(RATES).and_then(Value::as_object_mut), found.get(RATES)) else {
        return;
    };
    for (name, rate) in rates {
        if let Some(before) = before.get(name).filter(|before| rate.as_f64() <= before.as_f64()) {
            *rate = before.clone();
        }
    }
}

/// The first value that differs, as (name, expected, found).
fn difference(name: &str, expected: &Value, found: &Value) -> Option<(String, String, String)> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) if expected.len() == found.len() => {
            expected.iter().find_map(|(key, value)| {
                difference(&format!("{name}.{key}"), value, found.get(key).unwrap_or(&Value::Null))
            })
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| difference(&format!("{name}[{i}]"), a, b))
        }
        _ => (expected != found).then(|| (name.to_owned(), expected.to_string(), found.to_string())),
    }
}
