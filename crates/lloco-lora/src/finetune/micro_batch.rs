//! Unequal examples as one left-padded tensor.

use burn::tensor::{Int, Tensor, TensorData};
use lloco_decoder::{Decoder, LinearAdapter, Pass};

use super::{Example, Scored, cross_entropy};
use crate::{Adapter, Result};

/// Examples that share a forward pass.
pub(crate) struct MicroBatch<'a> {
    pub(crate) examples: Vec<&'a Example>,
}

impl<'a> MicroBatch<'a> {
    /// Divides examples into passes of at most `size`, those of similar length together, so that little is padded.
    pub(crate) fn divide(examples: &[&'a Example], size: usize) -> Vec<Self> {
        let mut examples = examples.to_vec();
        examples.sort_by_key(|example| example.positions());
        examples.chunks(size.max(1)).map(|examples| Self { examples: examples.to_vec() }).collect()
    }

    /// The loss of the answers' tokens under `weight`, each example's one after the other.
    ///
    /// `seam` is what the projections see: the adapter itself, or the adapter behind dropout. A tracked adapter gives
    /// tracked scores.
    pub(crate) fn score(
        &self,
        decoder: &Decoder,
        adapter: &Adapter,
        seam: &dyn LinearAdapter,
        weight: f64,
        tracked: bool,
    ) -> Result<Scored> {
        let longest = self.examples.iter().map(|example| example.positions()).max().unwrap_or(0);
        let padding: Vec<usize> = self.examples.iter().map(|example| longest - example.positions()).collect();
        let inputs = self.examples.iter().zip(&padding).map(|(example, &pad)| {
            let rows = decoder.embed_prompt(&example.prompt(decoder.device()), adapter)?;
            let [_, _, width] = rows.dims();
            let blank = || Tensor::zeros([1, pad, width], (&rows.device(), rows.dtype()));
            Ok(if pad == 0 { rows } else { Tensor::cat(vec![blank(), rows], 1) })
        });
        let mut input = Tensor::cat(inputs.collect::<Result<Vec<_>>>()?, 0);
        if tracked {
            input = input.autodiff();
        }
        // Only the newest rows predict an answer's token; the last layer computes no others.
        let answers: Vec<&[u32]> = self.examples.iter().map(|example| example.answer_ids.as_slice()).collect();
        let rows = answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
        let hidden = decoder.forward(input, Pass::new().adapter(seam).padding(&padding).last_rows(rows))?;
        let [batch, rows, width] = hidden.dims();
        let picks = answers
            .iter()
            .enumerate()
            .flat_map(|(b, answer)| (rows - answer.len()..rows).map(move |row| b * rows + row));
        let picks: Vec<i64> = picks.map(|row| row as i64).collect();
        let count = picks.len();
        let picks = Tensor::<1, Int>::from_data(TensorData::new(picks, [count]), decoder.device());
        let hidden = hidden.reshape([batch * rows, width]).select(0, picks);
        cross_entropy(decoder, adapter, hidden, &answers.concat(), weight)
    }

    /// Loss of each example's tokens, from the flat list that [`score`](Self::score) gives.
    pub(crate) fn by_example<'s>(
        &self,
        nll: &'s [f32],
    ) -> impl Iterator<Item = (&'a Example, &'s [f32])> + use<'_, 's, 'a> {
        let mut rest = nll;
        self.examples.iter().map(move |&example| {
            let (own, others) = rest.split_at(example.answer_ids.len().min(rest.len()));
            rest = others;
            (example, own)
        })
    }
}
