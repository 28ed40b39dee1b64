//! One question and its answer, behind summary vectors.

use std::{fmt, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use lloco_decoder::{DecoderConfig, Prompt};

use super::Teacher;
use crate::{Error, Result, tensor_file};

/// What the adapter learns from: summary vectors and a prompt to read, and the answer to give.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Example {
    /// What errors and reports call the example.
    pub name: String,
    /// The summary vectors that stand before the prompt, in order: of one document, or of several.
    pub prefix: Vec<SummaryVectors>,
    /// Token ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// Token ids of the answer, the end token included.
    pub answer_ids: Vec<u32>,
    /// What the model predicts for the answer's tokens when it reads the text itself, to be learned beside the answer.
    pub teacher: Option<Arc<Teacher>>,
}

/// Summary vectors `[n, hidden]` on the host, shared between examples without copies.
#[derive(Clone, PartialEq)]
pub struct SummaryVectors {
    values: Arc<[f32]>,
    hidden: usize,
}

impl Example {
    /// An example without summary vectors.
    pub fn new(name: impl Into<String>, prompt_ids: Vec<u32>, answer_ids: Vec<u32>) -> Self {
        Self { name: name.into(), prefix: Vec::new(), prompt_ids, answer_ids, teacher: None }
    }

    /// Puts summary vectors behind those that are there.
    #[must_use]
    pub fn with_prefix(mut self, vectors: SummaryVectors) -> Self {
        self.prefix.push(vectors);
        self
    }

    /// Sets what a model predicts that has more to read: a row for each of the answer's tokens.
    #[must_use]
    pub fn with_teacher(mut self, teacher: Teacher) -> Self {
        self.teacher = Some(Arc::new(teacher));
        self
    }

    /// Whether another example stands behind the same summary vectors: the same in memory, not only in value.
    pub(crate) fn same_prefix(&self, other: &Self) -> bool {
        self.prefix.len() == other.prefix.len()
            && self.prefix.iter().zip(&other.prefix).all(|(own, other)| own.address() == other.address())
    }

    /// Whether these summary vectors stand in front: the same in memory, not only in value.
    pub(crate) fn stands_behind(&self, vectors: &SummaryVectors) -> bool {
        self.prefix.iter().any(|own| own.address() == vectors.address())
    }

    /// Summary vectors in front.
    pub(crate) fn prefix_rows(&self) -> usize {
        self.prefix.iter().map(SummaryVectors::rows).sum()
    }

    /// Tokens that all prompts begin with.
    pub(crate) fn shared_tokens(examples: &[&Self]) -> usize {
        let Some((first, others)) = examples.split_first() else { return 0 };
        let same = |other: &&Self| first.prompt_ids.iter().zip(&other.prompt_ids).take_while(|(a, b)| a == b).count();
        others.iter().map(same).min().unwrap_or(first.prompt_ids.len())
    }

    /// The summary vectors and the prompt's first `tokens`.
    pub(crate) fn beginning(&self, tokens: usize, device: &Device) -> Prompt {
        let prefix = self.prefix.iter().filter(|vectors| vectors.rows() > 0);
        let prompt = prefix.fold(Prompt::new(), |prompt, vectors| prompt.embeddings(vectors.to_tensor(device)));
        prompt.text(self.prompt_ids.get(..tokens).unwrap_or(&self.prompt_ids))
    }

    /// What the model reads behind that: everything but the answer's last token, which is only predicted.
    pub(crate) fn read(&self, tokens: usize) -> Vec<u32> {
        let answer = self.answer_ids.iter().take(self.answer_ids.len().saturating_sub(1));
        self.prompt_ids.iter().skip(tokens).chain(answer).copied().collect()
    }

    /// Positions that the model reads.
    pub(crate) fn positions(&self) -> usize {
        (self.prefix_rows() + self.prompt_ids.len() + self.answer_ids.len()).saturating_sub(1)
    }

    /// Checks that all that is read fits the model's window, with so many `others` rows of distractors.
    pub(crate) fn check_window(&self, index: usize, others: usize, model: &DecoderConfig) -> Result<()> {
        let (positions, window) = (self.positions() + others, model.max_position_embeddings);
        if positions <= window {
            return Ok(());
        }
        let (own, text) = (self.prefix_rows(), positions - others - self.prefix_rows());
        let others = if others > 0 { format!(", {others} of distractors") } else { String::new() };
        let detail = format!(
            "its reading has {positions} positions ({own} of summaries{others}, {text} of prompt and answer), the \
             model's window {window}"
        );
        Err(Error::Example { index, name: self.name.clone(), detail })
    }

    /// Checks that the example fits the model.
    pub(crate) fn check(&self, index: usize, model: &DecoderConfig) -> Result<()> {
        let fail = |detail: String| Err(Error::Example { index, name: self.name.clone(), detail });
        if self.answer_ids.is_empty() {
            return fail("it has no answer".into());
        }
        if self.positions() < self.answer_ids.len() {
            return fail("nothing stands before the answer: give it a prompt or summary vectors".into());
        }
        self.check_window(index, 0, model)?;
        let mut ids = self.prompt_ids.iter().chain(&self.answer_ids);
        if let Some(id) = ids.find(|&&id| id as usize >= model.vocab_size) {
            return fail(format!("token id {id} is beyond the vocabulary of {} entries", model.vocab_size));
        }
        let answer = self.answer_ids.len();
        if let Some(teacher) = self.teacher.as_ref().filter(|teacher| teacher.rows() != answer) {
            return fail(format!("its teacher has {} rows for {answer} tokens of the answer", teacher.rows()));
        }
        match self.prefix.iter().find(|vectors| vectors.hidden != model.hidden_size) {
            Some(vectors) => {
                let (found, expected) = (vectors.hidden, model.hidden_size);
                fail(format!("its summary vectors are {found} wide, the model {expected}: another encoder made them"))
            }
            None => Ok(()),
        }
    }
}

impl SummaryVectors {
    /// Vectors from their values, row by row.
    ///
    /// # Errors
    /// [`Error::Setting`] when the values are no whole number of rows, or not all are finite.
    pub fn new(values: impl Into<Arc<[f32]>>, hidden: usize) -> Result<Self> {
        let values = values.into();
        if hidden == 0 || values.len() % hidden != 0 {
            return Err(Error::setting("summary vectors", values.len(), format!("a multiple of the width {hidden}")));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::setting("summary vectors", value, "finite values"));
        }
        Ok(Self { values, hidden })
    }

    /// Vectors from a tensor `[n, hidden]`.
    ///
    /// # Errors
    /// When the tensor cannot be read back from its device, or as [`new`](Self::new).
    pub fn from_tensor(rows: Tensor<2>) -> Result<Self> {
        let [_, hidden] = rows.dims();
        Self::new(tensor_file::values("summary vectors", rows)?, hidden)
    }

    /// How many vectors there are.
    pub fn rows(&self) -> usize {
        self.values.len() / self.hidden
    }

    /// Width of a vector.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The values, row by row.
    pub fn values(&self) -> &Arc<[f32]> {
        &self.values
    }

    /// What tells shared vectors apart.
    pub(crate) fn address(&self) -> usize {
        self.values.as_ptr() as usize
    }

    /// The vectors on a device, `[n, hidden]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.values.to_vec(), [self.rows(), self.hidden]), device)
    }
}

impl fmt::Debug for SummaryVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SummaryVectors[{}, {}]", self.rows(), self.hidden)
    }
}
