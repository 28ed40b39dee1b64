//! What a run needs to survive being killed: numbered checkpoints that appear whole or not at all, and tensors in files.
//!
//! [`Trainer`](crate::Trainer) keeps its checkpoints with these; so can other trainings over adapters.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

pub use crate::directory::Draft;
pub use crate::tensor_file::{read as read_tensors, values, write as tensor_bytes};
use crate::{Error, Result};

/// The checkpoints of a run: directories `step-00000123`. The newest one counts; the one before it is kept.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Those in `dir`, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Step and path of the newest complete checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be read.
    pub fn newest(&self) -> Result<Option<(usize, PathBuf)>> {
        Ok(self.steps()?.pop_last())
    }

    /// Refuses a directory whose run is further than `step`: its checkpoints would be taken for this run's.
    ///
    /// # Errors
    /// [`Error::CheckpointAhead`].
    pub fn check_not_behind(&self, step: usize) -> Result<()> {
        match self.newest()? {
            Some((found, path)) if found > step => Err(Error::CheckpointAhead { path, found, step }),
            _ => Ok(()),
        }
    }

    /// Writes the checkpoint of `step`, whose files `fill` puts into the draft, and removes those before the last two.
    /// A step that is there already is not written again.
    ///
    /// # Errors
    /// [`Error::CheckpointAhead`], [`Error::Io`] when writing fails; the checkpoints that are there stay.
    pub fn write(&self, step: usize, fill: impl FnOnce(&Draft) -> Result<()>) -> Result<PathBuf> {
        self.check_not_behind(step)?;
        let target = self.dir.join(format!("step-{step:08}"));
        if target.exists() {
            return Ok(target);
        }
        let draft = Draft::new(&target)?;
        fill(&draft)?;
        draft.publish()?;
        for (step, path) in self.steps()?.into_iter().rev().skip(2) {
            // A checkpoint that stays only costs space.
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(step, path = %path.display(), %error, "cannot remove an old checkpoint");
            }
        }
        tracing::info!(step, path = %target.display(), "saved checkpoint");
        Ok(target)
    }

    /// The complete checkpoints by step.
    fn steps(&self) -> Result<BTreeMap<usize, PathBuf>> {
        let dir: &Path = &self.dir;
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(Error::read(dir)(e)),
        };
        let mut steps = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(Error::read(dir))?.path();
            let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
            steps.extend(step.map(|step| (step, path)));
        }
        Ok(steps)
    }
}
