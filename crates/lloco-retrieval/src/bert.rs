//! The BERT encoder. Weights keep their checkpoint names and their `[out, in]` layout.

use crate::Result;
use crate::batch::Batch;
use crate::bert_config::{Activation, BertConfig};
use crate::cpu;
use crate::weights::Weights;
use burn::tensor::activation::{gelu_approximate, relu};
use burn::tensor::module::{attention, embedding, layer_norm};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor, s};

/// Word, position and type embeddings followed by the transformer blocks.
pub(crate) struct Bert {
    /// `[vocab, hidden]`
    words: Tensor<2>,
    /// `[positions, hidden]`, with the embedding of token type 0 already added.
    positions: Tensor<2>,
    norm: LayerNorm,
    blocks: Vec<Block>,
    device: Device,
}

struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
    activation: Activation,
}

struct Linear {
    /// `[out, in]`
    weight: Tensor<2>,
    /// `[1, out]`
    bias: Tensor<2>,
}

struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
}

impl Bert {
    pub(crate) fn load(config: &BertConfig, weights: &Weights<'_>, device: &Device) -> Result<Self> {
        let hidden = config.hidden_size;
        let table = |name, rows| weights.load(name, [rows, hidden], device);
        let words = table("embeddings.word_embeddings.weight", config.vocab_size)?;
        let positions = table("embeddings.position_embeddings.weight", config.max_position_embeddings)?;
        let types: Tensor<2> = table("embeddings.token_type_embeddings.weight", config.type_vocab_size)?;
        Ok(Self {
            words,
            positions: positions + types.slice(s![0..1, ..]),
            norm: LayerNorm::load("embeddings.LayerNorm", config, weights, device)?,
            blocks: (0..config.num_hidden_layers)
                .map(|layer| Block::load(layer, config, weights, device))
                .collect::<Result<_>>()?,
            device: device.clone(),
        })
    }

    /// Last hidden states `[batch, seq_len, hidden]` of a padded batch.
    pub(crate) fn forward(&self, batch: &Batch) -> Result<Tensor<3>> {
        let [rows, length] = batch.shape();
        let ids = Tensor::<2, Int>::from_data(batch.ids(), &self.device);
        let mask = batch.mask().map(|mask| Tensor::<4, Bool>::from_data(mask, &self.device));
        let words = embedding(self.words.clone(), ids);
        let positions = self.positions.clone().slice(s![0..length, ..]);
        let [_, _, hidden] = words.dims();
        // Everything but attention works on rows, whichever text they belong to.
        let states = (words + positions.unsqueeze()).reshape([rows * length, hidden]);
        let mut states = self.norm.forward(states);
        for block in &self.blocks {
            states = block.forward(states, [rows, length], &mask)?;
        }
        Ok(states.reshape([rows, length, hidden]))
    }
}

impl Block {
    fn load(layer: usize, config: &BertConfig, weights: &Weights<'_>, device: &Device) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |name: &str, input, output| {
            let name = format!("encoder.layer.{layer}.{name}");
            Linear::load(&name, input, output, weights, device)
        };
        let norm = |name: &str| {
            let name = format!("encoder.layer.{layer}.{name}");
            LayerNorm::load(&name, config, weights, device)
        };
        Ok(Self {
            query: linear("attention.self.query", hidden, hidden)?,
            key: linear("attention.self.key", hidden, hidden)?,
            value: linear("attention.self.value", hidden, hidden)?,
            attention_output: linear("attention.output.dense", hidden, hidden)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", hidden, inner)?,
            output: linear("output.dense", inner, hidden)?,
            output_norm: norm("output.LayerNorm")?,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// `[batch * seq_len, hidden]` -> `[batch * seq_len, hidden]`
    fn forward(&self, states: Tensor<2>, shape: [usize; 2], mask: &Option<Tensor<4, Bool>>) -> Result<Tensor<2>> {
        let context = self.attend(&states, shape, mask);
        let attended = self.attention_output.forward(context) + states;
        let attended = self.attention_norm.forward(attended);
        let inner = self.intermediate.forward(attended.clone());
        let inner = self.activate(inner)?;
        let output = self.output.forward(inner) + attended;
        Ok(self.output_norm.forward(output))
    }

    fn activate(&self, inner: Tensor<2>) -> Result<Tensor<2>> {
        match self.activation {
            Activation::Gelu => cpu::gelu(inner),
            Activation::GeluTanh => Ok(gelu_approximate(inner)),
            Activation::Relu => Ok(relu(inner)),
        }
    }

    fn attend(&self, states: &Tensor<2>, [rows, length]: [usize; 2], mask: &Option<Tensor<4, Bool>>) -> Tensor<2> {
        let [positions, hidden] = states.dims();
        let split = |linear: &Linear| -> Tensor<4> {
            linear.forward(states.clone()).reshape([rows, length, self.heads, hidden / self.heads]).swap_dims(1, 2)
        };
        let context = attention(
            split(&self.query),
            split(&self.key),
            split(&self.value),
            mask.clone(),
            None,
            AttentionModuleOptions::default(),
        );
        context.swap_dims(1, 2).reshape([positions, hidden])
    }
}

impl Linear {
    fn load(name: &str, input: usize, output: usize, weights: &Weights<'_>, device: &Device) -> Result<Self> {
        let weight = weights.load(&format!("{name}.weight"), [output, input], device)?;
        let bias: Tensor<1> = weights.load(&format!("{name}.bias"), [output], device)?;
        Ok(Self { weight, bias: bias.unsqueeze() })
    }

    /// `[rows, in]` -> `[rows, out]`
    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        // A 2-D product with a transposed view reads the weight in place.
        input.matmul(self.weight.clone().transpose()) + self.bias.clone()
    }
}

impl LayerNorm {
    fn load(name: &str, config: &BertConfig, weights: &Weights<'_>, device: &Device) -> Result<Self> {
        let shape = [config.hidden_size];
        Ok(Self {
            weight: weights.load(&format!("{name}.weight"), shape, device)?,
            bias: weights.load(&format!("{name}.bias"), shape, device)?,
            epsilon: config.layer_norm_eps,
        })
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        layer_norm(input, self.weight.clone(), Some(self.bias.clone()), self.epsilon)
    }
}
