//! What a run has measured: `metrics.jsonl`, a line a step, and the curves in `curves.svg`.
//!
//! [`Trainer`](crate::Trainer) keeps its measurements with these; so can other trainings over adapters.
//!
//! ```
//! # let run = std::env::temp_dir().join(format!("lloco-metrics-{}", std::process::id()));
//! # std::fs::create_dir_all(&run).unwrap();
//! use lloco_lora::metrics::Metrics;
//! use serde_json::json;
//!
//! let metrics = Metrics::new(&run);
//! metrics.append(&json!({"step": 1, "loss": 2.5}))?;
//! metrics.append(&json!({"step": 2, "loss": 2.25}))?; // killed here, with a checkpoint of step 1
//! metrics.rewind(1)?;
//! metrics.append(&json!({"step": 2, "loss": 2.25}))?;
//! metrics.draw(|line| line["loss"].as_f64().map(|loss| ("loss".to_owned(), loss)))?;
//! assert_eq!(std::fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count(), 2);
//! # std::fs::remove_dir_all(&run).unwrap();
//! # Ok::<_, lloco_lora::Error>(())
//! ```

mod curves;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

use serde::Serialize;
use serde_json::Value;

use crate::{Error, Result, directory};

/// The metrics of a run's directory, which must be there.
#[derive(Debug, Clone)]
pub struct Metrics {
    dir: PathBuf,
}

impl Metrics {
    /// Those in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Adds a line: an object whose `step` says after which step it was measured. Numbers that are none become `null`.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails, [`Error::Malformed`] for what JSON cannot say.
    pub fn append(&self, line: &impl Serialize) -> Result<()> {
        let path = self.path();
        let malformed = |e: serde_json::Error| Error::Malformed { path: path.clone(), detail: e.to_string() };
        let mut json = serde_json::to_string(line).map_err(malformed)?;
        json.push('\n');
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(json.as_bytes())).map_err(Error::write(&path))
    }

    /// Drops what lies behind `step`, where the run stands: steps that a killed run did after its last checkpoint, and
    /// a line cut short, which would swallow the next one.
    ///
    /// # Errors
    /// [`Error::Io`] when reading or writing fails; the file is then as before.
    pub fn rewind(&self, step: usize) -> Result<()> {
        let bytes = self.bytes()?;
        let kept: Vec<u8> =
            lines(&bytes).filter(|(_, line)| step_of(line) <= step).flat_map(|(text, _)| text).copied().collect();
        match kept.len() == bytes.len() {
            true => Ok(()),
            false => directory::replace(&self.path(), &kept),
        }
    }

    /// Whether a line of `step` has the key `key`.
    ///
    /// # Errors
    /// [`Error::Io`] when reading fails.
    pub fn tells(&self, step: usize, key: &str) -> Result<bool> {
        Ok(lines(&self.bytes()?).any(|(_, line)| step_of(&line) == step && line.get(key).is_some()))
    }

    /// Draws curves over the steps into `curves.svg`. `points` says to which curves a line adds a value, by their names;
    /// values that are no numbers are left out.
    ///
    /// # Errors
    /// [`Error::Io`] when reading or writing fails; the drawing that is there then stays.
    pub fn draw<P>(&self, points: impl Fn(&Value) -> P) -> Result<()>
    where
        P: IntoIterator<Item = (String, f64)>,
    {
        let mut all: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (_, line) in lines(&self.bytes()?) {
            for (name, value) in points(&line).into_iter().filter(|(_, value)| value.is_finite()) {
                all.entry(name).or_default().push((step_of(&line) as f64, value));
            }
        }
        let path = self.dir.join("curves.svg");
        let svg = curves::plot(&all).map_err(|detail| Error::Malformed { path: path.clone(), detail })?;
        directory::replace(&path, svg.as_bytes())
    }

    fn path(&self) -> PathBuf {
        self.dir.join("metrics.jsonl")
    }

    /// The file as it is; empty where there is none yet.
    fn bytes(&self) -> Result<Vec<u8>> {
        let path = self.path();
        match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(Error::read(&path)),
        }
    }
}

/// The complete lines, as they stand and as what they say.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Value)> {
    let whole = bytes.split_inclusive(|&byte| byte == b'\n').filter(|text| text.ends_with(b"\n"));
    whole.filter_map(|text| Some((text, serde_json::from_slice(text).ok()?)))
}

fn step_of(line: &Value) -> usize {
    line.get("step").and_then(Value::as_u64).unwrap_or(0) as usize
}
