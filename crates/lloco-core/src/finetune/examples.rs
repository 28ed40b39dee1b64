//! From questions to examples, and the digest of all that an adapter depends on.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use lloco_decoder::NoAdapter;
use lloco_lora::{Example, SummaryVectors, TrainConfig, finetune::Teacher};

use crate::{
    Error, Event, Lloco, Result,
    digest::{Digest, Hasher},
    members::Asked,
    reading::Reading,
    store::{Document, Store},
};

impl Lloco {
    /// The examples to learn and those held out, and a digest of all that the resulting adapter depends on.
    pub(super) fn examples(
        &self,
        learned: &[Asked<'_>],
        held_out: &[Asked<'_>],
        training: &TrainConfig,
        distil: Option<usize>,
    ) -> Result<(Vec<Example>, Vec<Example>, String)> {
        let mut purpose = Hasher::labelled("lloco finetune 2");
        purpose.field(self.info.id().bytes());
        purpose.field(self.reader_digest()?.bytes());
        purpose.field(&serde_json::to_vec(training).unwrap_or_default());
        purpose.number(distil.map_or(0, |top| top as u64 + 1));
        let mut examples = Vec::new();
        let mut summaries: HashMap<Digest, (SummaryVectors, Digest)> = HashMap::new();
        for asked in learned.iter().chain(held_out) {
            let answer = self.prompts.answer(asked.answer())?;
            let Asked { question, documents } = asked;
            let prompt = self.prompts.question(&question.question)?;
            // The tokens and not the text: the words around a question may change.
            purpose.field(bytemuck::cast_slice(&prompt));
            purpose.field(bytemuck::cast_slice(&answer));
            purpose.number(documents.len() as u64);
            let mut example = Example::new(&question.id, prompt, answer);
            if distil.is_some() {
                purpose.field(format!("{:?}", question.passage).as_bytes());
                documents.iter().for_each(|document| purpose.field(document.text.bytes()));
            }
            for Document { id, text, .. } in documents {
                let (vectors, digest) = match summaries.entry(*text) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => {
                        let summary = self.store.summary(id, &self.info)?;
                        let digest = Digest::of(bytemuck::cast_slice(summary.data()));
                        let hidden = summary.hidden();
                        free.insert((SummaryVectors::new(summary.into_data(), hidden)?, digest))
                    }
                };
                purpose.field(digest.bytes());
                example = example.with_prefix(vectors.clone());
            }
            examples.push(example);
        }
        let held_out = examples.split_off(learned.len());
        if !held_out.is_empty() {
            purpose.number(held_out.len() as u64);
        }
        Ok((examples, held_out, purpose.finish().to_string()))
    }

    /// The examples with what the model itself predicts when it reads the text.
    pub(super) fn taught(&self, examples: Vec<Example>, asked: &[Asked<'_>], top: usize) -> Result<Vec<Example>> {
        if top == 0 {
            let (field, found, expected) = ("distil", "0".into(), "at least 1".into());
            return Err(Error::Encoder(lloco_encoder::Error::InvalidSetting { field, found, expected }));
        }
        let decoder = self.encoder.decoder();
        let mut reading = Reading::new(decoder, Arc::new(NoAdapter));
        let total = examples.len();
        let taught = examples.into_iter().zip(asked).enumerate().map(|(index, (example, asked))| {
            let text = match (asked.question.passage, asked.documents.first()) {
                (Some((start, end)), Some(document)) => {
                    let text = self.store.text(&document.text)?;
                    let passage = text.get(start..end).ok_or_else(|| Error::NoSuchPassage {
                        question: asked.question.id.clone(),
                        document: document.id.clone(),
                        start,
                        end,
                        bytes: text.len(),
                    });
                    passage?.to_owned()
                }
                _ => {
                    let text = self.text_in_window(asked, example.answer_ids.len());
                    text.map_err(|error| error.of_question(&asked.question.id))?.0
                }
            };
            let ids = self.prompts.with_text(&text, &asked.question.question)?;
            let (positions, window) = (ids.len() + example.answer_ids.len(), decoder.config().max_position_embeddings);
            if positions > window {
                return Err(Error::PromptTooLong { positions, window }.of_question(&asked.question.id));
            }
            reading.prompt(&[], &ids)?;
            let teacher = Teacher::new(decoder, &reading.rows(&example.answer_ids)?, top)?;
            self.observer.tell(&Event::Taught { done: index + 1, total })?;
            Ok(example.with_teacher(teacher))
        });
        taught.collect()
    }

    /// A digest of who reads summaries before finetuning: the adapter that came with the encoder, if there is one. The
    /// model itself is part of the encoder's identity.
    fn reader_digest(&self) -> Result<Digest> {
        let mut digest = Hasher::labelled("lloco reader 1");
        if let Some(reader) = self.encoder.reader() {
            digest.field(&serde_json::to_vec(reader.config()).unwrap_or_default());
            for (name, tensor) in reader.parameters() {
                digest.field(name.as_bytes());
                digest.field(bytemuck::cast_slice(&lloco_lora::durable::values(&name, tensor)?));
            }
        }
        Ok(digest.finish())
    }
}
