//! Which examples come when: a function of seed and step alone, so that a resumed run goes on as if never stopped.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Divides examples into the steps of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) examples: usize,
    /// Examples in a step.
    pub(crate) batch: usize,
    pub(crate) epochs: usize,
    pub(crate) seed: u64,
}

impl Order {
    /// Steps in an epoch; the last one may see fewer examples.
    pub(crate) fn steps_per_epoch(self) -> usize {
        self.examples.div_ceil(self.batch.max(1))
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
        let mut order: Vec<usize> = (0..self.examples).collect();
        order.shuffle(&mut rng(self.seed, self.epoch(step) as u64));
        let start = (step % self.steps_per_epoch().max(1)) * self.batch;
        order.into_iter().skip(start).take(self.batch).collect()
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
        let order = Order { examples: 21, batch: 4, epochs: 3, seed: 7 };
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
}
