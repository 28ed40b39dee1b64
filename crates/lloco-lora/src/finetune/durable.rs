//! Checkpoints: a killed run goes on as if it had never stopped.
//!
//! Each holds a PEFT adapter, AdamW's moments, the best adapter so far, and `trainer.json` with the step and the
//! settings. Order of examples and dropout follow from seed and step. See [`Checkpoints`].

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Example, TrainConfig, Trainer,
    progress::{Best, Progress},
};
use crate::{Adapter, Error, Result, StoredType, durable::Checkpoints, tensor_file};

/// Version of the checkpoint's layout.
const FORMAT: u32 = 1;

/// `trainer.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    step: usize,
    config: TrainConfig,
    /// SHA-256 of the examples.
    examples: String,
    /// SHA-256 of the held-out examples, where there are any.
    #[serde(default)]
    held_out: Option<String>,
    /// Loss and step of the best adapter.
    best: Option<(f64, usize)>,
    stale: usize,
}

impl Trainer<'_> {
    /// Writes a checkpoint into `dir` and returns its path. A step that is there already is not written again.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails; checkpoints that are there stay. [`Error::CheckpointAhead`] when there are
    /// some of later steps.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<PathBuf> {
        let state = State {
            format: FORMAT,
            step: self.step,
            config: self.config.clone(),
            examples: digest(&self.examples),
            held_out: self.held_out_digest(),
            best: self.progress.best.as_ref().map(|best| (best.nll, best.step)),
            stale: self.progress.stale,
        };
        Checkpoints::new(dir.as_ref()).write(self.step, |draft| {
            for (name, bytes) in self.adapter.files(StoredType::F32, &draft.path(""))? {
                draft.write(name, &bytes)?;
            }
            let write = |name: &str, tensors: &BTreeMap<_, _>| {
                draft.write(name, &tensor_file::write(tensors, StoredType::F32, &draft.path(name))?)
            };
            write("optimizer.safetensors", &self.optimizer.state())?;
            if let Some(best) = &self.progress.best {
                write("best.safetensors", &best.adapter.parameters())?;
            }
            let json = serde_json::to_vec_pretty(&state);
            let path = draft.path("trainer.json");
            draft.write("trainer.json", &json.map_err(|e| Error::Malformed { path, detail: e.to_string() })?)
        })
    }

    /// Goes on from the newest checkpoint in `dir`. Returns whether there was one; without one nothing changes. The
    /// learning rate may be lower than the one that the checkpoint was written with.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] when it was written with other settings, on other examples or with others held out;
    /// others when it is damaged. The trainer is then as before.
    pub fn resume(&mut self, dir: impl AsRef<Path>) -> Result<bool> {
        let Some((_, path)) = Checkpoints::new(dir.as_ref()).newest()? else { return Ok(false) };
        let file = path.join("trainer.json");
        let json = fs::read(&file).map_err(Error::read(&file))?;
        let malformed = |detail: String| Error::Malformed { path: file.clone(), detail };
        let fields: Value = serde_json::from_slice(&json).map_err(|e| malformed(e.to_string()))?;
        let mismatch = |field: &str, expected: String, found: String| {
            Err(Error::CheckpointMismatch { path: path.clone(), field: field.to_owned(), expected, found })
        };
        let format = fields.get("format").unwrap_or(&Value::Null);
        if *format != FORMAT {
            return mismatch("format", format!("{FORMAT} (this program reads no other)"), format.to_string());
        }
        let state: State = serde_json::from_value(fields).map_err(|e| malformed(e.to_string()))?;
        let mut own = self.config.clone();
        if own.learning_rate <= state.config.learning_rate {
            own.learning_rate = state.config.learning_rate;
        }
        if let Some((field, expected, found)) = difference(&own, &state.config) {
            return mismatch(&field, expected, found);
        }
        let examples = digest(&self.examples);
        if state.examples != examples {
            return mismatch("examples", examples, state.examples);
        }
        // What did best on other examples is no measure for these.
        let held_out = self.held_out_digest();
        if state.held_out != held_out {
            let [expected, found] = [held_out, state.held_out].map(|digest| digest.unwrap_or("none".into()));
            return mismatch("held_out", expected, found);
        }
        let (model, device) = (self.decoder.config(), self.decoder.device());
        let adapter = Adapter::load(&path, model, device)?;
        let mut optimizer = self.optimizer.clone();
        let moments = path.join("optimizer.safetensors");
        optimizer.restore(tensor_file::read(&moments)?, &adapter.parameters(), &moments, device)?;
        let best = state.best.map(|(nll, step)| {
            let path = path.join("best.safetensors");
            let tensors = tensor_file::read(&path)?;
            let adapter = Adapter::from_parameters(adapter.config().clone(), model, tensors, &path, device)?;
            Ok::<_, Error>(Best { adapter, nll, step })
        });
        self.progress = Progress { best: best.transpose()?, stale: state.stale };
        (self.adapter, self.optimizer, self.step) = (adapter, optimizer, state.step);
        tracing::info!(step = self.step, path = %path.display(), "resumed");
        Ok(true)
    }

    fn held_out_digest(&self) -> Option<String> {
        (!self.held_out.is_empty()).then(|| digest(&self.held_out))
    }
}

/// The first setting that differs, as (name, expected, found).
fn difference(expected: &TrainConfig, found: &TrainConfig) -> Option<(String, String, String)> {
    let fields = |config| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let found = fields(found);
    let differs = |(name, value): (String, Value)| {
        let other = found.get(&name).unwrap_or(&Value::Null);
        (value != *other).then(|| (name, value.to_string(), other.to_string()))
    };
    fields(expected).into_iter().find_map(differs)
}

/// SHA-256 of examples, in hexadecimal. Shared summary vectors are read once.
fn digest(examples: &[Example]) -> String {
    let mut hash = Sha256::new();
    let mut seen: HashMap<*const f32, sha2::digest::Output<Sha256>> = HashMap::new();
    let number = |hash: &mut Sha256, n: usize| hash.update((n as u64).to_le_bytes());
    for example in examples {
        number(&mut hash, example.prefix.len());
        for vectors in &example.prefix {
            let own = seen.entry(vectors.values().as_ptr()).or_insert_with(|| {
                vectors
                    .values()
                    .iter()
                    .fold(Sha256::new(), |hash, value| hash.chain_update(value.to_le_bytes()))
                    .finalize()
            });
            hash.update(*own);
        }
        for ids in [&example.prompt_ids, &example.answer_ids] {
            number(&mut hash, ids.len());
            ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        if let Some(teacher) = &example.teacher {
            number(&mut hash, teacher.top());
            teacher.pairs().for_each(|(id, p)| {
                hash.update(id.to_le_bytes());
                hash.update(p.to_le_bytes());
            });
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
