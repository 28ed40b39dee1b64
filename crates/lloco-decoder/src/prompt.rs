//! What the model reads: token ids and embedding rows, in order.

use burn::tensor::Tensor;

/// A sequence of text and embedding parts.
///
/// ```
/// use lloco_decoder::Prompt;
/// let prompt = Prompt::new().text(&[504, 2365]).text(&[30]);
/// assert_eq!(prompt.positions(), 3);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    parts: Vec<Part>,
}

/// One part of a [`Prompt`].
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a prompt has a handful of parts")]
pub enum Part {
    /// Token ids.
    Text(Vec<u32>),
    /// Embedding rows, `[n, hidden]`: a soft prompt.
    Embeddings(Tensor<2>),
}

impl Prompt {
    /// An empty prompt.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds token ids.
    #[must_use]
    pub fn text(mut self, ids: &[u32]) -> Self {
        self.parts.push(Part::Text(ids.to_vec()));
        self
    }

    /// Adds embedding rows, `[n, hidden]`.
    #[must_use]
    pub fn embeddings(mut self, rows: Tensor<2>) -> Self {
        self.parts.push(Part::Embeddings(rows));
        self
    }

    /// The parts in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Positions that the prompt takes.
    pub fn positions(&self) -> usize {
        self.parts.iter().map(Part::positions).sum()
    }

    /// The ids of all text parts, in order.
    pub fn token_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts
            .iter()
            .flat_map(|part| match part {
                Part::Text(ids) => ids.as_slice(),
                Part::Embeddings(_) => &[],
            })
            .copied()
    }
}

impl Part {
    /// Positions that the part takes.
    pub fn positions(&self) -> usize {
        match self {
            Self::Text(ids) => ids.len(),
            Self::Embeddings(rows) => rows.dims()[0],
        }
    }
}
