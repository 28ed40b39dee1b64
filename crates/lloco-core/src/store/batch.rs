//! Many files made durable together: a disk syncs a hundred files at once in little more time than one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempPath;

use super::disk::{Disk, refuse_link};
use super::layout::Layout;
use crate::error::Result;

/// Most files of a batch: a call that is interrupted repeats this much work at most.
const FILES: usize = 1024;
/// Most bytes of a batch, but for a single file that is larger.
const BYTES: usize = 64 << 20;
/// Files synced at a time.
const THREADS: usize = 16;

/// Files written aside, to be published together.
pub(super) struct Batch<'a> {
    disk: &'a Disk,
    layout: &'a Layout,
    files: Vec<(TempPath, PathBuf)>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(disk: &'a Disk, layout: &'a Layout) -> Self {
        Self { disk, layout, files: Vec::new(), bytes: 0 }
    }

    /// Whether it is time to publish.
    pub(super) const fn is_full(&self) -> bool {
        self.files.len() >= FILES || self.bytes >= BYTES
    }

    /// Writes a file aside that is to be called `path`.
    pub(super) fn add(&mut self, path: PathBuf, contents: &[u8]) -> Result<()> {
        self.files.push((self.disk.write_unsynced(&self.layout.aside(), contents)?, path));
        self.bytes += contents.len();
        Ok(())
    }

    /// Makes all files durable and gives them their names. After a failure some may have theirs;
    /// nothing refers to them yet.
    pub(super) fn publish(self) -> Result<()> {
        let Self { disk, files, .. } = self;
        let parents: BTreeSet<PathBuf> = files.iter().filter_map(|(_, path)| Some(path.parent()?.into())).collect();
        let mut grown = BTreeSet::new();
        for parent in &parents {
            refuse_link(parent)?;
            if disk.create_unsynced(parent)? {
                grown.extend(parent.parent());
            }
        }
        grown.into_iter().try_for_each(|parent| disk.sync_names(parent))?;
        for_each(&files, |(file, _)| disk.sync_file(file))?;
        for (file, path) in files {
            disk.name(file, &path)?;
        }
        for_each(&parents.into_iter().collect::<Vec<_>>(), |parent| disk.sync_names(parent))
    }
}

/// Calls `work` on every item from several threads; the first failure, if any.
fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    if items.len() < 3 {
        return items.iter().try_for_each(work);
    }
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..items.len().min(THREADS)).map(|_| scope.spawn(run)).collect();
        // A thread that panicked hands its panic on.
        let outcomes = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        outcomes.collect::<Vec<Result<()>>>().into_iter().collect()
    })
}
