//! The trained tensors of the layers that read documents.

use std::collections::BTreeMap;

use lloco_decoder::{DecoderConfig, LinearAdapter, SavedModule, Site, burn::tensor::Tensor};
use lloco_lora::{Adapter, LoraConfig, finetune::Dropout};

use crate::Result;

/// What [`Tuning`](crate::Tuning) says, as tensors.
#[derive(Debug, Clone)]
pub(crate) enum Tuned {
    Lora(Adapter),
    Full(Deltas),
}

/// Differences from the model's own weights.
///
/// `y = x W^T + x D^T`, with `W` frozen and `D` zero at first, is the finetuning of `W`, in whatever type `W` is kept.
#[derive(Debug, Clone)]
pub(crate) struct Deltas {
    /// `[out, in]` each.
    sites: BTreeMap<Site, Tensor<2>>,
    /// The summary tokens of an AutoCompressor, `[summary_length, hidden]`.
    pub(crate) embed_summary: Option<Tensor<2>>,
}

const EMBED_SUMMARY: &str = "embed_summary.weight";

impl Deltas {
    /// Those of the first `layers` layers, and so many summary tokens, where there are any. `tensor` gives each by name
    /// and shape.
    pub(crate) fn new(
        model: &DecoderConfig,
        layers: usize,
        summary_length: Option<usize>,
        mut tensor: impl FnMut(&str, [usize; 2]) -> Result<Tensor<2>>,
    ) -> Result<Self> {
        let all = LoraConfig::default().with_all_linear().sites(model)?;
        let read = all.into_iter().filter(|(site, _)| site.layer < layers);
        let sites = read.map(|(site, shape)| Ok((site, tensor(&delta_name(site), [shape.output, shape.input])?)));
        let sites = sites.collect::<Result<_>>()?;
        let embed_summary = summary_length.map(|rows| tensor(EMBED_SUMMARY, [rows, model.hidden_size])).transpose()?;
        Ok(Self { sites, embed_summary })
    }
}

impl Tuned {
    /// The adapter, if it is one.
    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Lora(adapter) => Some(adapter),
            Self::Full(_) => None,
        }
    }

    /// The summary tokens of an AutoCompressor.
    pub(crate) fn embed_summary(&self) -> Option<&Tensor<2>> {
        match self {
            Self::Lora(adapter) => adapter.saved("embed_summary"),
            Self::Full(deltas) => deltas.embed_summary.as_ref(),
        }
    }

    /// What projections see: in training, where dropout has a seed, an adapter behind it.
    pub(crate) fn behind(&self, dropout: Option<u64>) -> Box<dyn LinearAdapter + '_> {
        match (self, dropout) {
            (Self::Lora(adapter), Some(seed)) => Box::new(Dropout { adapter, seed }),
            _ => Box::new(self),
        }
    }

    /// The same with each tensor passed through `change`, which sees its name and keeps its shape.
    pub(crate) fn map(&self, mut change: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        match self {
            Self::Lora(adapter) => Self::Lora(adapter.map(change)),
            Self::Full(Deltas { sites, embed_summary }) => {
                let sites = sites.iter().map(|(&site, delta)| (site, change(&delta_name(site), delta.clone())));
                let sites = sites.collect();
                let embed_summary = embed_summary.clone().map(|rows| change(EMBED_SUMMARY, rows));
                Self::Full(Deltas { sites, embed_summary })
            }
        }
    }
}

impl LinearAdapter for Tuned {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Lora(adapter) => adapter.apply(site, input, output),
            Self::Full(deltas) => match deltas.sites.get(&site) {
                Some(delta) => {
                    let ([batch, seq, width], [out, _]) = (input.dims(), delta.dims());
                    let rows = input.clone().reshape([batch * seq, width]);
                    let delta = delta.clone().cast(input.dtype());
                    let term = rows.matmul(delta.transpose()).reshape([batch, seq, out]);
                    let dtype = output.dtype();
                    output + term.cast(dtype)
                }
                None => output,
            },
        }
    }

    fn adapts(&self, site: Site) -> bool {
        match self {
            Self::Lora(adapter) => adapter.adapts(site),
            Self::Full(deltas) => deltas.sites.contains_key(&site),
        }
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        self.adapter()?.replaced(module)
    }
}

fn delta_name(site: Site) -> String {
    format!("{}.delta.weight", site.path())
}
