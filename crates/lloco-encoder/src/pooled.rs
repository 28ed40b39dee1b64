//! Pooled: independent segments, their tokens averaged over windows.

use std::{cmp::Reverse, iter, sync::Arc};

use lloco_decoder::{
    Decoder, Pass,
    burn::tensor::{Tensor, s},
};
use lloco_lora::Adapter;
use serde::{Deserialize, Serialize};

use crate::{
    Compressor, ContextEncoder, EncoderOptions, Encoding, Error, Layout, Mode, Result, Training, weights::Weights,
    windows::Windows,
};

/// Tokens that are read at once, in as many segments.
const ROWS: usize = 1024;

/// Lengths of a pooling encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PooledConfig {
    /// Tokens a segment; a document's last may have fewer.
    pub segment_length: usize,
    /// Tokens a summary vector, each of these trained. The first is used where no other is asked for.
    pub ratios: Vec<usize>,
    /// Layers of the model that read a segment, from the first; left out, all. Documents are compressed in proportion
    /// faster with fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Whether a token sees all of its segment when it is read, and not only what stands before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bidirectional: bool,
}

impl PooledConfig {
    /// How the model reads a segment.
    pub(crate) fn pass<'a>(&self) -> Pass<'a> {
        Pass::new().layers(self.layers.unwrap_or(usize::MAX)).bidirectional(self.bidirectional)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let length = self.segment_length;
        if length == 0 || length > 1 << 20 {
            let expected = "a length between 1 and 1048576".into();
            return Err(Error::InvalidSetting { field: "segment_length", found: length.to_string(), expected });
        }
        let fits = |&ratio: &usize| ratio > 0 && length.is_multiple_of(ratio);
        if self.ratios.is_empty() || !self.ratios.iter().all(fits) {
            let (found, expected) = (format!("{:?}", self.ratios), format!("at least one, each a divisor of {length}"));
            return Err(Error::InvalidSetting { field: "ratios", found, expected });
        }
        Ok(())
    }

    /// Checks the number of layers against the model's.
    pub(crate) fn check_model(&self, layers: usize) -> Result<()> {
        match self.layers {
            Some(found) if found == 0 || found > layers => {
                let expected = format!("from 1 to the model's {layers}");
                Err(Error::InvalidSetting { field: "layers", found: found.to_string(), expected })
            }
            _ => Ok(()),
        }
    }
}

/// A context encoder that reads each segment by itself and averages its tokens, their embeddings and their hidden
/// states, over windows of a few; a connector makes a vector of both averages at the scale of embeddings.
///
/// A summary depends on its segment alone: equal segments have equal summaries, in whichever document they stand. One
/// encoding serves several ratios. Sources: ARC-Encoder, arXiv 2510.20535; SimpleCC, arXiv 2510.20797.
#[derive(Debug)]
pub struct Pooled {
    decoder: Arc<Decoder>,
    config: PooledConfig,
    /// Index of the ratio in use.
    ratio: usize,
    weights: Weights,
    scale: f64,
    training: Training,
    reader: Option<Arc<Adapter>>,
    fingerprint: String,
}

impl Pooled {
    /// The encoder of a compressor that was trained, or is to be.
    pub(crate) fn trained(compressor: &Compressor, decoder: Arc<Decoder>, options: &EncoderOptions) -> Result<Self> {
        let Mode::Pooled(config) = &compressor.config.mode else {
            let (found, expected) = (format!("{:?}", compressor.config.mode), "pooled".into());
            return Err(Error::InvalidSetting { field: "mode", found, expected });
        };
        config.check()?;
        config.check_model(decoder.config().num_hidden_layers)?;
        let first = config.ratios.first().copied().unwrap_or(1);
        let ratio = options.ratio.unwrap_or(first);
        let Some(ratio) = config.ratios.iter().position(|&trained| trained == ratio) else {
            let expected = format!("one of those trained, {:?}", config.ratios);
            return Err(Error::InvalidSetting { field: "ratio", found: ratio.to_string(), expected });
        };
        let fixed = [("segment_length", options.segment_length, config.segment_length)];
        for (field, asked, trained) in fixed {
            if let Some(asked) = asked.filter(|&asked| asked != trained) {
                let expected = format!("{trained}, as trained; leave the setting out");
                return Err(Error::InvalidSetting { field, found: asked.to_string(), expected });
            }
        }
        if let Some(found) = options.summary_length {
            let expected = "nothing: choose a ratio instead".into();
            return Err(Error::InvalidSetting { field: "summary_length", found: found.to_string(), expected });
        }
        let PooledConfig { segment_length, ratios, layers, bidirectional } = config;
        let sight = if *bidirectional { " bidirectional" } else { "" };
        let settings = format!("pooled {segment_length} {:?} {layers:?}{sight}", ratios.get(ratio));
        Ok(Self {
            fingerprint: compressor.fingerprint(&settings)?,
            config: config.clone(),
            ratio,
            reader: compressor.weights.reading().cloned().map(Arc::new),
            weights: compressor.weights.clone(),
            scale: compressor.config.embedding_scale,
            training: if compressor.config.steps > 0 { Training::Trained } else { Training::Untrained },
            decoder,
        })
    }

    /// Lengths of segments, and the trained ratios.
    pub fn config(&self) -> &PooledConfig {
        &self.config
    }

    /// Tokens a summary vector.
    pub fn ratio(&self) -> usize {
        self.config.ratios.get(self.ratio).copied().unwrap_or(1)
    }

    /// The summary vectors of each segment, `[n, hidden]`, some segments read at once.
    fn summarise(&self, segments: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        let mut summaries: Vec<Option<Tensor<2>>> = vec![None; segments.len()];
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|&i| Reverse(segments[i].len()));
        let mut rest = order.as_slice();
        while let Some(&first) = rest.first() {
            let longest = segments[first].len();
            // Behind its end a segment may go on if nothing before it looks there.
            let alike = |&&i: &&usize| !self.config.bidirectional || segments[i].len() == longest;
            let count = rest.iter().take(ROWS / longest.max(1)).take_while(alike).count().max(1);
            let (group, behind) = rest.split_at(count);
            let read: Vec<&[u32]> = group.iter().map(|&i| segments[i]).collect();
            for (&i, summary) in group.iter().zip(self.read(&read, longest)?) {
                summaries[i] = Some(summary);
            }
            rest = behind;
        }
        Ok(summaries.into_iter().flatten().collect())
    }

    /// One pass over segments of at most `longest` tokens, the longest first.
    fn read(&self, segments: &[&[u32]], longest: usize) -> Result<Vec<Tensor<2>>> {
        let Self { decoder, weights, config, ratio, scale, .. } = self;
        let windows = Windows { config, ratio: (self.ratio(), *ratio), scale: *scale };
        let ids: Vec<u32> =
            segments.iter().flat_map(|ids| ids.iter().copied().chain(iter::repeat(0)).take(longest)).collect();
        let embedded = decoder.embed(&ids)?;
        let embedded = embedded.reshape([segments.len(), longest, decoder.config().hidden_size]);
        let states = windows.read(decoder, &weights.encoder, embedded.clone())?;
        let mut summaries = Vec::with_capacity(segments.len());
        for group in segments.chunk_by(|a, b| a.len() == b.len()) {
            let (start, tokens) = (summaries.len(), group.first().map_or(0, |ids| ids.len()));
            let cut = |x: &Tensor<3>| x.clone().slice(s![start..start + group.len(), 0..tokens, ..]);
            let vectors = windows.vectors(weights, cut(&states), cut(&embedded))?;
            summaries.extend(vectors.split(1, 0).into_iter().map(|rows| rows.squeeze_dim::<2>(0)));
        }
        Ok(summaries)
    }
}

impl ContextEncoder for Pooled {
    fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn training(&self) -> Training {
        self.training
    }

    fn layout(&self) -> Layout {
        let segment_length = self.config.segment_length;
        let summary_length = segment_length / self.ratio();
        Layout { segment_length, summary_length, accumulate: true, recurrent: false }
    }

    fn reader(&self) -> Option<&Arc<Adapter>> {
        self.reader.as_ref()
    }

    fn at_once(&self) -> usize {
        (ROWS / self.config.segment_length).max(1)
    }

    fn encode_all(&self, documents: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        if documents.iter().any(|ids| ids.is_empty()) {
            return Err(Error::EmptyDocument);
        }
        let segments: Vec<&[u32]> = documents.iter().flat_map(|ids| self.segments(ids)).collect();
        let mut summaries = self.summarise(&segments)?.into_iter();
        let softprompt = |ids: &&[u32]| Tensor::cat(summaries.by_ref().take(self.segments(ids).len()).collect(), 0);
        Ok(documents.iter().map(softprompt).collect())
    }

    fn start(&self, _segments: usize) -> Box<dyn Encoding + '_> {
        Box::new(Independent { encoder: self, softprompt: Vec::new(), short: None })
    }

    fn resume(&self, softprompt: Tensor<2>, _segments: usize) -> Result<Box<dyn Encoding + '_>> {
        let ([rows, width], each) = (softprompt.dims(), self.layout().summary_length);
        let hidden = self.decoder.config().hidden_size;
        if rows == 0 || rows % each != 0 || width != hidden {
            let expected = format!("a multiple of {each} rows of width {hidden}");
            return Err(Error::SoftpromptShape { expected, found: vec![rows, width] });
        }
        let softprompt = vec![softprompt.to_device(self.decoder.device())];
        Ok(Box::new(Independent { encoder: self, softprompt, short: None }))
    }
}

/// A document on its way through a pooling encoder.
#[derive(Debug)]
struct Independent<'a> {
    encoder: &'a Pooled,
    softprompt: Vec<Tensor<2>>,
    /// Length of the last segment, if it was not a full one.
    short: Option<usize>,
}

impl Encoding for Independent<'_> {
    fn push(&mut self, segment: &[u32]) -> Result<Tensor<2>> {
        self.push_all(&[segment])?.pop().ok_or(Error::EmptyDocument)
    }

    fn push_all(&mut self, segments: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        let (layout, mut short) = (self.encoder.layout(), self.short);
        for segment in segments {
            layout.check(segment.len(), short)?;
            short = (segment.len() < layout.segment_length).then_some(segment.len());
        }
        let summaries = self.encoder.summarise(segments)?;
        self.short = short;
        self.softprompt.extend(summaries.iter().cloned());
        Ok(summaries)
    }

    fn replace_newest(&mut self, rows: Tensor<2>) -> Result<()> {
        match self.softprompt.last_mut() {
            Some(newest) if rows.dims() == newest.dims() => *newest = rows.to_device(self.encoder.decoder.device()),
            newest => {
                let expected = format!("{:?}, the newest summary's", newest.map(|rows| rows.dims()));
                return Err(Error::SoftpromptShape { expected, found: rows.dims().to_vec() });
            }
        }
        Ok(())
    }

    fn softprompt(&self) -> Option<Tensor<2>> {
        (!self.softprompt.is_empty()).then(|| Tensor::cat(self.softprompt.clone(), 0))
    }
}
