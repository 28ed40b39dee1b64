//! Arguments that open a library, and documents to put into one.

use std::path::{Path, PathBuf};

use clap::Args;
use lloco_core::{Lloco, LlocoBuilder, ModelSource, dataset::QaDocument, store::NewDocument};

use crate::{EncoderArgs, ModelArgs, Result, interrupt, progress};

/// A store, and the models that read and search it.
#[derive(Debug, Clone, Args)]
pub struct LibraryArgs {
    /// The library's directory
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,

    /// A directory or org/name of a BERT-family embedder [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "DIR|ID")]
    pub embedder: Option<String>,

    /// `--model`, `--device`, `--weights`
    #[command(flatten)]
    pub model: ModelArgs,

    /// A trained compressor's directory, or `none` for the model's own summary tokens
    /// [default: none, but for the default model models/smollm2-135m-lloco]
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    pub compressor: Option<PathBuf>,

    /// Lengths of segments and summaries
    #[command(flatten)]
    pub encoder: EncoderArgs,
}

impl LibraryArgs {
    /// The library's settings, with progress bars and Ctrl-C. To be called once in a process.
    ///
    /// # Errors
    /// When the device is not available.
    pub fn builder(&self) -> Result<LlocoBuilder> {
        let builder = Lloco::builder()
            .store(&self.store)
            .model(self.model.source())
            .embedder(embedder(self.embedder.as_deref()))
            .encoder(self.encoder.into())
            .device(self.model.device()?)
            .weights(self.model.weights)
            .resolver(progress::resolver())
            .on_event(progress::observer(interrupt::flag()?));
        Ok(match (&self.compressor, &self.model.model) {
            (Some(none), _) if none.as_os_str() == "none" => builder,
            (Some(directory), _) => builder.compressor(directory),
            (None, None) => builder.compressor(trained_compressor()),
            (None, Some(_)) => builder,
        })
    }
}

/// The chosen embedder, or the default one.
pub fn embedder(name: Option<&str>) -> ModelSource {
    name.map_or_else(ModelSource::default_embedder, ModelSource::from)
}

/// The compressor that comes with this project, trained for the default model.
pub fn trained_compressor() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/smollm2-135m-lloco")
}

/// A data set's documents as a library takes them; those that it only asks about are elsewhere.
pub fn documents<'a>(data: &'a [QaDocument], group: &'a str) -> Vec<NewDocument<'a>> {
    data.iter()
        .filter(|document| !document.text.is_empty())
        .map(|document| NewDocument::new(&document.id, &document.text).group(group).title(&document.title))
        .collect()
}
