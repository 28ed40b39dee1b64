//! Everything that training a compressor changes, as named tensors.

use std::{collections::BTreeMap, path::Path};

use lloco_decoder::{
    Decoder, DecoderConfig,
    burn::tensor::{Device, Gradients, Tensor, TensorData},
};
use lloco_lora::Adapter;

use crate::{
    CompressorConfig, Error, Mode, Reader, Result, Tuning,
    compressor::end_rows,
    connector::Connector,
    tuned::{Deltas, Tuned},
};

/// What precedes the text that a task wants: rows of [`Weights::tasks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Say the compressed text again.
    Reconstruct = 0,
    /// Say what follows the compressed text.
    Continue = 1,
}

/// The trained tensors of a compressor.
///
/// | prefix of a name | what |
/// |---|---|
/// | `encoder.` | the adapter of the encoder, or the differences from the weights of the layers that read; `embed_summary` included |
/// | `connector.` | from pooled states to summary vectors (`Pooled` only) |
/// | `reader.` | the adapter that reads summaries, where it is one of its own |
/// | `tasks.weight` | `[2, hidden]`: rows that ask for a reconstruction, or a continuation |
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) encoder: Tuned,
    pub(crate) connector: Option<Connector>,
    pub(crate) reader: Option<Adapter>,
    pub(crate) tasks: Tensor<2>,
    /// Whether the encoder's adapter reads summaries as well.
    shared: bool,
}

const TASKS: &str = "tasks.weight";

impl Weights {
    /// Where training starts: adapters or differences that change nothing, summary tokens and task rows equal to the end token.
    pub(crate) fn init(config: &CompressorConfig, decoder: &Decoder, seed: u64) -> Result<Self> {
        let (model, device) = (decoder.config(), decoder.device());
        let (mut embed_summary, mut connector) = (None, None);
        match &config.mode {
            Mode::AutoCompressor(lengths) => {
                embed_summary = Some(end_rows(decoder, lengths.summary_length)?.squeeze_dim(0));
            }
            Mode::Pooled(pooled) => {
                connector = Some(Connector::init(model.hidden_size, pooled.ratios.len(), seed ^ 1, device));
            }
        }
        let encoder = match &config.encoder {
            Tuning::Lora(lora) => {
                let adapter = Adapter::init(lora, model, seed, device)?;
                Tuned::Lora(match embed_summary {
                    Some(rows) => adapter.with_saved("embed_summary", rows)?,
                    None => adapter,
                })
            }
            Tuning::Full => {
                let layers = config.mode.layers(model.num_hidden_layers);
                let mut deltas = Deltas::new(model, layers, None, |_, shape| Ok(Tensor::zeros(shape, device)))?;
                deltas.embed_summary = embed_summary;
                Tuned::Full(deltas)
            }
        };
        let reader = match &config.reader {
            Reader::Own(lora) => Some(Adapter::init(lora, model, seed ^ 2, device)?),
            Reader::Shared | Reader::Base => None,
        };
        let tasks = end_rows(decoder, 2)?.squeeze_dim(0);
        Ok(Self { encoder, connector, reader, tasks, shared: config.reader == Reader::Shared })
    }

    /// Weights from f32 tensors by name; `origin` is what errors call the file.
    pub(crate) fn from_tensors(
        config: &CompressorConfig,
        model: &DecoderConfig,
        mut tensors: BTreeMap<String, TensorData>,
        origin: &Path,
        device: &Device,
    ) -> Result<Self> {
        let hidden = model.hidden_size;
        let mut adapter = |prefix: &str, lora: &lloco_lora::LoraConfig| {
            let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
            let own =
                names.into_iter().filter_map(|name| Some((name[prefix.len()..].to_owned(), tensors.remove(&name)?)));
            Adapter::from_parameters(lora.clone(), model, own.collect(), origin, device)
        };
        let lora = match &config.encoder {
            Tuning::Lora(lora) => Some(adapter("encoder.", lora)?),
            Tuning::Full => None,
        };
        let reader = match &config.reader {
            Reader::Own(lora) => Some(adapter("reader.", lora)?),
            Reader::Shared | Reader::Base => None,
        };
        let mut take = |name: &str, shape: [usize; 2]| -> Result<Tensor<2>> {
            let (path, name) = (origin.to_path_buf(), name.to_owned());
            match tensors.remove(&name) {
                Some(data) if data.shape()[..] == shape => Ok(Tensor::from_data(data, device)),
                Some(data) => {
                    let (expected, found) = (shape.into(), data.shape().to_vec());
                    Err(lloco_lora::Error::ShapeMismatch { path, name, expected, found }.into())
                }
                None => Err(lloco_lora::Error::MissingTensor { path, name }.into()),
            }
        };
        let encoder = match lora {
            Some(adapter) => Tuned::Lora(adapter),
            None => {
                let summary_length = match &config.mode {
                    Mode::AutoCompressor(lengths) => Some(lengths.summary_length),
                    Mode::Pooled(_) => None,
                };
                let layers = config.mode.layers(model.num_hidden_layers);
                let take = |name: &str, shape| take(&format!("encoder.{name}"), shape);
                Tuned::Full(Deltas::new(model, layers, summary_length, take)?)
            }
        };
        let connector = match &config.mode {
            Mode::Pooled(pooled) => Some(Connector {
                score: take("connector.score.weight", [1, hidden])?,
                center: take("connector.center.weight", [1, hidden])?,
                norm: take("connector.norm.weight", [1, hidden])?,
                up: take("connector.up.weight", [hidden, hidden])?,
                down: take("connector.down.weight", [hidden, hidden])?,
                gain: take("connector.gain.weight", [pooled.ratios.len(), 1])?,
            }),
            Mode::AutoCompressor(lengths) => {
                let rows = encoder.embed_summary().map_or(0, |rows| rows.dims()[0]);
                if rows != lengths.summary_length {
                    let detail =
                        format!("`embed_summary` has {rows} rows, the configuration {}", lengths.summary_length);
                    return Err(Error::Malformed { path: origin.to_path_buf(), detail });
                }
                None
            }
        };
        let tasks = take(TASKS, [2, hidden])?;
        match tensors.into_keys().next() {
            Some(name) => Err(lloco_lora::Error::UnexpectedTensor { path: origin.to_path_buf(), name }.into()),
            None => Ok(Self { encoder, connector, reader, tasks, shared: config.reader == Reader::Shared }),
        }
    }

    /// The adapter that reads summaries, or `None` where the model itself does.
    pub(crate) fn reading(&self) -> Option<&Adapter> {
        if self.shared { self.encoder.adapter() } else { self.reader.as_ref() }
    }

    /// All tensors by name.
    pub(crate) fn parameters(&self) -> BTreeMap<String, Tensor<2>> {
        let mut all = BTreeMap::new();
        self.map(|name, tensor| {
            all.insert(name.to_owned(), tensor.clone());
            tensor
        });
        all
    }

    /// The weights with each tensor passed through `change`, which sees its name and keeps its shape.
    pub(crate) fn map(&self, mut change: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        let encoder = self.encoder.map(|name, tensor| change(&format!("encoder.{name}"), tensor));
        let connector = self.connector.as_ref().map(|connector| connector.map(&mut change));
        let reader =
            self.reader.as_ref().map(|reader| reader.map(|name, tensor| change(&format!("reader.{name}"), tensor)));
        let tasks = change(TASKS, self.tasks.clone());
        Self { encoder, connector, reader, tasks, shared: self.shared }
    }

    /// The weights with autodiff; gradients are followed for the names that `learns` accepts.
    pub(crate) fn tracked(&self, learns: impl Fn(&str) -> bool) -> Self {
        self.map(|name, tensor| match learns(name) {
            true => tensor.inner().autodiff().require_grad(),
            false => tensor.inner().autodiff(),
        })
    }

    /// Takes the gradients of [tracked](Self::tracked) weights by name.
    pub(crate) fn gradients(&self, gradients: &mut Gradients) -> BTreeMap<String, Tensor<2>> {
        let parameters = self.parameters().into_iter();
        parameters.filter_map(|(name, tensor)| Some((name, tensor.grad_remove(gradients)?))).collect()
    }
}
