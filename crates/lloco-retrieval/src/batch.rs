//! Tokenised texts of unequal length, sorted and padded into rectangles.

use burn::tensor::TensorData;

/// A few texts of similar length, right-padded to the longest.
pub(crate) struct Batch {
    /// Where each text stands in the caller's list.
    places: Vec<usize>,
    lengths: Vec<usize>,
    /// `[batch, seq_len]`, row by row; 0 behind a text's end.
    ids: Vec<i32>,
    length: usize,
}

impl Batch {
    /// Cuts texts into batches of at most `tokens` positions each, padding included (one
    /// text that is longer makes a batch of its own). Longest first, so that a batch
    /// holds little padding and the first one shows whether memory suffices.
    pub(crate) fn plan(texts: &[Vec<u32>], tokens: usize) -> Vec<Self> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&place| std::cmp::Reverse(texts[place].len()));
        let mut batches = Vec::new();
        let mut rest = order.as_slice();
        while let Some(&longest) = rest.first() {
            let length = texts[longest].len().max(1);
            let (now, later) = rest.split_at((tokens / length).clamp(1, rest.len()));
            batches.push(Self::new(texts, now.to_vec(), length));
            rest = later;
        }
        batches
    }

    fn new(texts: &[Vec<u32>], places: Vec<usize>, length: usize) -> Self {
        let mut ids = vec![0; places.len() * length];
        for (row, &place) in ids.chunks_exact_mut(length).zip(&places) {
            for (slot, &id) in row.iter_mut().zip(&texts[place]) {
                *slot = id as i32;
            }
        }
        Self { lengths: places.iter().map(|&place| texts[place].len()).collect(), places, ids, length }
    }

    /// `[batch, seq_len]`
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.places.len(), self.length]
    }

    pub(crate) fn places(&self) -> &[usize] {
        &self.places
    }

    /// Token ids `[batch, seq_len]`.
    pub(crate) fn ids(&self) -> TensorData {
        TensorData::new(self.ids.clone(), self.shape())
    }

    /// Attention mask `[batch, 1, seq_len, seq_len]`, true at padding; none without padding.
    pub(crate) fn mask(&self) -> Option<TensorData> {
        let [rows, length] = self.shape();
        if self.lengths.iter().all(|&own| own == length) {
            return None;
        }
        let mask = self
            .lengths
            .iter()
            .flat_map(|&own| {
                let row: Vec<bool> = (0..length).map(|place| place >= own).collect();
                row.repeat(length)
            })
            .collect();
        Some(TensorData::new::<bool, _>(mask, [rows, 1, length, length]))
    }

    /// Weights `[batch, 1, seq_len]` whose product with the hidden states is each text's mean.
    pub(crate) fn mean_weights(&self) -> TensorData {
        let [rows, length] = self.shape();
        let weights = self
            .lengths
            .iter()
            .flat_map(|&own| (0..length).map(move |place| if place < own { 1.0 / own as f32 } else { 0.0 }))
            .collect();
        TensorData::new::<f32, _>(weights, [rows, 1, length])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn texts(lengths: &[usize]) -> Vec<Vec<u32>> {
        let text = |(n, &length): (usize, &usize)| vec![n as u32 + 1; length];
        lengths.iter().enumerate().map(text).collect()
    }

    #[test]
    fn every_text_is_in_one_batch() {
        let texts = texts(&[3, 9, 1, 4, 4, 30, 2]);
        let batches = Batch::plan(&texts, 12);
        let mut places: Vec<_> = batches.iter().flat_map(|b| b.places().to_vec()).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6]);
        for batch in &batches {
            let [rows, length] = batch.shape();
            assert!(rows == 1 || rows * length <= 12, "{rows} x {length}");
        }
    }

    #[test]
    fn padding_is_masked_and_weightless() {
        let batches = Batch::plan(&texts(&[2, 3]), 100);
        assert_eq!(batches.len(), 1);
        let batch = &batches[0];
        assert_eq!(batch.places(), [1, 0]);
        assert_eq!(batch.ids().as_slice::<i32>().unwrap(), [2, 2, 2, 1, 1, 0]);
        let mask = batch.mask().unwrap();
        let mask: Vec<bool> = mask.iter::<bool>().collect();
        assert_eq!(mask[..9], [false; 9]);
        assert_eq!(mask[9..], [false, false, true].repeat(3));
        let weights: Vec<f32> = batch.mean_weights().iter::<f32>().collect();
        assert_eq!(weights[3..], [0.5, 0.5, 0.0]);
    }

    #[test]
    fn equal_lengths_need_no_mask() {
        assert!(Batch::plan(&texts(&[5, 5, 5]), 100)[0].mask().is_none());
    }
}
