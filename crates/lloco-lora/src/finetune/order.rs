//! Which examples come when: a function of seed and step alone, so that a resumed run goes on as if never stopped.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Divides examples into the steps of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    /// Of each example, what its documents are.
    pub(crate) documents: &'a [usize],
    /// Examples about the same documents that come one after the other: a pass reads the documents once.
    pub(crate) together: usize,
    /// Examples in a step.
    pub(crate) batch: usize,
    pub(crate) epochs: usize,
    pub(crate) seed: u64,
}

impl Order<'_> {
    /// Steps in an epoch; the last one may see fewer examples.
    pub(crate) fn steps_per_epoch(self) -> usize {
        self.documents.len().div_ceil(self.batch.max(1))
    }

    /// Steps in the run.
    pub(crate) fn steps(self) -> usize {
        self.steps_per_epoch().saturating_mul(self.epochs)
    }

    /// The epoch of a step, both from 0.
    pub(crate) fn epoch(self, step: usize) -> usize {
        step / self.steps_per_epoch().max(1)
    }

    /// Indices of the examples of a step, from 0. Each epoch has an order of its own and leaves none out.
    pub(crate) fn indices(self, step: usize) -> Vec<usize> {
        let mut rng = rng(self.seed, self.epoch(step) as u64);
        let mut order: Vec<usize> = (0..self.documents.len()).collect();
        order.shuffle(&mut rng);
        order.sort_by_key(|&example| self.documents.get(example));
        let about_the_same = order.chunk_by(|&a, &b| self.documents.get(a) == self.documents.get(b));
        let mut runs: Vec<&[usize]> = about_the_same.flat_map(|run| run.chunks(self.together.max(1))).collect();
        runs.shuffle(&mut rng);
        let start = (step % self.steps_per_epoch().max(1)) * self.batch;
        runs.into_iter().flatten().copied().skip(start).take(self.batch).collect()
    }
}

/// A generator for one stream of a seed.
fn rng(seed: u64, stream: u64) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&stream.to_le_bytes());
    StdRng::from_seed(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_example_once_in_another_order() {
        let documents: Vec<usize> = (0..21).map(|example| example % 3).collect();
        let order = Order { documents: &documents, together: 2, batch: 4, epochs: 3, seed: 7 };
        assert_eq!((order.steps_per_epoch(), order.steps()), (6, 18));
        let epochs: Vec<Vec<usize>> =
            (0..3).map(|epoch| (0..6).flat_map(|step| order.indices(epoch * 6 + step)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..21).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[0], Order { seed: 8, ..order }.indices(0));
    }

    #[test]
    fn examples_about_the_same_documents_come_together() {
        let documents: Vec<usize> = (0..24).map(|example| example % 3).collect();
        let order = Order { documents: &documents, together: 4, batch: 8, epochs: 1, seed: 7 };
        let all: Vec<usize> = (0..3).flat_map(|step| order.indices(step)).collect();
        for run in all.chunks(4) {
            assert!(run.iter().all(|&example| documents[example] == documents[run[0]]), "{all:?}");
        }
        assert_ne!(all, (0..24).collect::<Vec<_>>());
    }
}
