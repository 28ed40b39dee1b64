//! Windows of a segment's tokens, each averaged to a vector.

use lloco_decoder::{
    Decoder, LinearAdapter,
    burn::tensor::{Tensor, s},
};

use crate::{Error, PooledConfig, Result, weights::Weights};

/// How segments become summary vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows<'a> {
    pub(crate) config: &'a PooledConfig,
    /// Tokens a summary vector, and the index among the trained ratios.
    pub(crate) ratio: (usize, usize),
    /// Root mean square of the summary vectors.
    pub(crate) scale: f64,
}

impl Windows<'_> {
    /// Embedded segments `[batch, tokens, hidden]` -> their summary vectors `[batch, tokens / ratio, hidden]`, rounded
    /// up; the last window may be shorter. `seam` is what the projections see: the encoder's adapter, or that adapter
    /// behind dropout.
    pub(crate) fn summarise(
        self,
        decoder: &Decoder,
        weights: &Weights,
        seam: &dyn LinearAdapter,
        embedded: Tensor<3>,
    ) -> Result<Tensor<3>> {
        let states = self.read(decoder, seam, embedded.clone())?;
        self.vectors(weights, states, embedded)
    }

    /// The hidden states of embedded segments, both `[batch, tokens, hidden]`.
    pub(crate) fn read(self, decoder: &Decoder, seam: &dyn LinearAdapter, embedded: Tensor<3>) -> Result<Tensor<3>> {
        Ok(decoder.forward(embedded, self.config.pass().adapter(seam))?)
    }

    /// What the connector makes of windows of hidden states and embeddings.
    pub(crate) fn vectors(self, weights: &Weights, states: Tensor<3>, embedded: Tensor<3>) -> Result<Tensor<3>> {
        let Some(connector) = &weights.connector else {
            let (found, expected) = ("none".to_owned(), "one, as every pooling encoder has".to_owned());
            return Err(Error::InvalidSetting { field: "connector", found, expected });
        };
        let Self { ratio: (ratio, index), scale, .. } = self;
        let embedded = embedded.cast(states.dtype());
        let [batch, tokens, hidden] = states.dims();
        let (full, rest) = (tokens / ratio, tokens % ratio);
        let mut summaries = Vec::with_capacity(2);
        for (start, windows, length) in [(0, full, ratio), (full * ratio, 1, rest)] {
            if windows > 0 && length > 0 {
                let cut = |x: &Tensor<3>| {
                    let x = x.clone().slice(s![.., start..start + windows * length, ..]);
                    x.reshape([batch * windows, length, hidden])
                };
                let rows = connector.forward(cut(&states), cut(&embedded), index, scale);
                summaries.push(rows.reshape([batch, windows, hidden]));
            }
        }
        Ok(Tensor::cat(summaries, 1))
    }
}
