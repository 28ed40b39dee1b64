//! Pooled in training: independent segments of many texts in one pass, recomputed for the backward pass.

use lloco_decoder::{
    Decoder, backward,
    burn::tensor::{Tensor, s},
    mix,
};
use lloco_lora::finetune::NamedGradients;

use super::reading::lifted;
use crate::{Result, weights::Weights, windows::Windows};

/// Texts on their way through the encoder together.
pub(crate) struct Independent<'a> {
    pub(crate) decoder: &'a Decoder,
    /// Without autodiff.
    pub(crate) weights: &'a Weights,
    /// With autodiff.
    pub(crate) tracked: &'a Weights,
    pub(crate) segment_length: usize,
    pub(crate) windows: Windows<'a>,
    pub(crate) texts: Vec<&'a [u32]>,
    /// Segments in one pass.
    pub(crate) batch: usize,
    /// Its seed, in training.
    pub(crate) dropout: Option<u64>,
}

/// Segments of equal length: each the index of its text and its number there, and its ids.
type Segments<'a> = Vec<(usize, usize, &'a [u32])>;

impl Independent<'_> {
    /// The summary vectors of each text, `[n, hidden]`.
    pub(crate) fn summaries(&self) -> Result<Vec<Tensor<2>>> {
        let mut parts: Vec<Vec<(usize, Tensor<2>)>> = vec![Vec::new(); self.texts.len()];
        for (index, pass) in self.passes().into_iter().enumerate() {
            let found = self.pass(self.weights, &pass, index)?;
            for (row, &(text, number, _)) in pass.iter().enumerate() {
                let own: Tensor<2> = found.clone().slice(s![row..row + 1, .., ..]).squeeze_dim(0);
                if let Some(parts) = parts.get_mut(text) {
                    parts.push((number, own));
                }
            }
        }
        let join = |mut own: Vec<(usize, Tensor<2>)>| {
            own.sort_by_key(|&(number, _)| number);
            Tensor::cat(own.into_iter().map(|(_, rows)| rows).collect(), 0)
        };
        Ok(parts.into_iter().map(join).collect())
    }

    /// Gradients of what `slopes`, one for each text's summary vectors, say.
    pub(crate) fn backward(&self, slopes: &[Tensor<2>], gradients: &mut NamedGradients) -> Result<()> {
        let each = self.segment_length / self.windows.ratio.0.max(1);
        for (index, pass) in self.passes().into_iter().enumerate() {
            let summaries = self.pass(self.tracked, &pass, index)?;
            let [_, rows, _] = summaries.dims();
            let own = pass.iter().filter_map(|&(text, number, _)| {
                let first = number * each;
                Some(slopes.get(text)?.clone().slice(s![first..first + rows, ..]).unsqueeze())
            });
            let own: Tensor<3> = Tensor::cat(own.collect(), 0);
            let mut found = backward(&(summaries * own.autodiff()).sum());
            gradients.add(self.tracked.gradients(&mut found));
        }
        Ok(())
    }

    /// Segments that are read together.
    fn passes(&self) -> Vec<Segments<'_>> {
        let segments = self.texts.iter().enumerate().flat_map(|(text, ids)| {
            ids.chunks(self.segment_length.max(1)).enumerate().map(move |(number, ids)| (text, number, ids))
        });
        let mut segments: Segments<'_> = segments.collect();
        segments.sort_by_key(|&(_, _, ids)| ids.len());
        let equal = segments.chunk_by(|a, b| a.2.len() == b.2.len());
        equal.flat_map(|equal| equal.chunks(self.batch.max(1)).map(<[_]>::to_vec)).collect()
    }

    /// The summaries of one pass, `[batch, n, hidden]`.
    fn pass(&self, weights: &Weights, pass: &Segments<'_>, index: usize) -> Result<Tensor<3>> {
        let tracked = weights.tasks.is_autodiff();
        let rows = pass.iter().map(|&(_, _, ids)| self.decoder.embed(ids)).collect::<Result<Vec<_>, _>>()?;
        let input = lifted(Tensor::cat(rows, 0), tracked);
        let seam = weights.encoder.behind(self.dropout.map(|seed| mix(seed ^ index as u64)));
        self.windows.summarise(self.decoder, weights, &*seam, input)
    }
}
