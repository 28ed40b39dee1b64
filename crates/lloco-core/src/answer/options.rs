//! How to ask.

use lloco_decoder::GenerateConfig;

/// How to ask.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AskOptions {
    /// Ask only documents of this group.
    pub group: Option<String>,
    /// Read the summaries of these documents, all of one group and in this order, instead of searching. `positions` does
    /// not bound them.
    pub documents: Vec<String>,
    /// Documents whose summaries the model reads, at most. All come from the best document's group.
    pub top_k: usize,
    /// Positions that the summaries of several documents may take together; by default what the model's window leaves
    /// beside question and answer. The best document is read whatever it takes.
    pub positions: Option<usize>,
    /// Whether the model reads the best passage of each document as text, too, behind the summaries: what a summary has not
    /// kept word for word. Takes the passages' positions more.
    pub passages: bool,
    /// How the answer is generated.
    pub generation: GenerateConfig,
}

impl Default for AskOptions {
    fn default() -> Self {
        let generation = GenerateConfig::greedy(64);
        Self { group: None, documents: Vec::new(), top_k: 1, positions: None, passages: false, generation }
    }
}

impl AskOptions {
    /// Asks only documents of this group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Reads the summaries of these documents, in this order, instead of searching.
    #[must_use]
    pub fn documents<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> Self {
        self.documents = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the summaries of up to `k` documents.
    #[must_use]
    pub fn top_k(mut self, k: usize) -> Self {
        self.top_k = k;
        self
    }

    /// Reads summaries of at most so many positions, the best document's excepted.
    #[must_use]
    pub fn positions(mut self, positions: usize) -> Self {
        self.positions = Some(positions);
        self
    }

    /// Reads each document's best passage behind the summaries.
    ///
    /// ```
    /// use lloco_core::AskOptions;
    /// let options = AskOptions::default().group("contracts").passages(true);
    /// assert!(options.passages);
    /// ```
    #[must_use]
    pub fn passages(mut self, passages: bool) -> Self {
        self.passages = passages;
        self
    }

    /// Sets how the answer is generated.
    #[must_use]
    pub fn generation(mut self, generation: GenerateConfig) -> Self {
        self.generation = generation;
        self
    }
}
