//! The best k of a stream of hits.

use crate::Hit;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Keeps the k best hits: highest score first, equal scores by smaller key. A NaN is no
/// score and is left out.
pub(crate) struct TopK {
    k: usize,
    /// The worst hit on top.
    heap: BinaryHeap<Reverse<Ranked>>,
}

/// A hit that compares as better when it is greater.
#[derive(PartialEq)]
struct Ranked(Hit);

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        let heap = BinaryHeap::new();
        Self { k, heap }
    }

    /// Whether a hit of this score may still get in.
    #[inline]
    pub(crate) fn admits(&self, score: f32) -> bool {
        match self.heap.peek() {
            Some(Reverse(Ranked(worst))) if self.heap.len() >= self.k => score >= worst.score,
            _ => self.k > 0 && !score.is_nan(),
        }
    }

    /// Whether a hit of any of these scores may still get in.
    pub(crate) fn admits_any(&self, scores: &[f32]) -> bool {
        let worst = match self.heap.peek() {
            Some(Reverse(Ranked(worst))) if self.heap.len() >= self.k => worst.score,
            _ => f32::NEG_INFINITY,
        };
        // No early end, so that several are compared at once.
        scores.iter().fold(false, |any, &score| any | (score >= worst))
    }

    /// Only scores above this one can still get in: the largest number below the worst score kept.
    #[cfg(feature = "bm25")]
    pub(crate) fn threshold(&self) -> f32 {
        match self.heap.peek() {
            Some(Reverse(Ranked(worst))) if self.heap.len() >= self.k => worst.score.next_down(),
            _ => f32::MIN,
        }
    }

    pub(crate) fn push(&mut self, hit: Hit) {
        if self.admits(hit.score) {
            self.heap.push(Reverse(Ranked(hit)));
            if self.heap.len() > self.k {
                self.heap.pop();
            }
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        for Reverse(Ranked(hit)) in other.heap {
            self.push(hit);
        }
        self
    }

    /// The hits kept, best first.
    pub(crate) fn into_hits(self) -> Vec<Hit> {
        let hits = self.heap.into_sorted_vec().into_iter();
        hits.map(|Reverse(Ranked(hit))| hit).collect()
    }
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let scores = self.0.score.total_cmp(&other.0.score);
        scores.then(other.0.key.cmp(&self.0.key))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best k of `hits`, best first.
pub(crate) fn best(hits: impl IntoIterator<Item = Hit>, k: usize) -> Vec<Hit> {
    let mut top = TopK::new(k);
    hits.into_iter().for_each(|hit| top.push(hit));
    top.into_hits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_first_and_ties_by_key() {
        let hit = |key, score| Hit { key, score };
        let hits = [hit(5, 1.0), hit(1, 0.5), hit(2, 1.0), hit(9, 2.0), hit(3, 1.0)];
        assert_eq!(best(hits, 3), [hit(9, 2.0), hit(2, 1.0), hit(3, 1.0)]);
        assert_eq!(best(hits, 9).len(), 5);
        assert!(best(hits, 0).is_empty());
    }
}
