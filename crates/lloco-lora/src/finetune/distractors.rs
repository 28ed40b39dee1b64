//! Other documents' summaries beside the right ones, as retrieval will bring them.
//!
//! An adapter that has only seen the right document cannot tell it from others; trained among distractors it learns to
//! (Cartridges at Scale, arXiv 2606.04557).

use std::{borrow::Cow, cmp::Reverse};

use lloco_decoder::{DecoderConfig, mix};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{Example, SummaryVectors};
use crate::{Error, Result};

/// The documents of a run's examples, to be put beside one another.
#[derive(Debug)]
pub(crate) struct Distractors {
    /// Each document's vectors once.
    documents: Vec<SummaryVectors>,
    /// Most that are put beside an example's own.
    most: usize,
    seed: u64,
}

impl Distractors {
    /// Collects the documents of `examples`.
    pub(crate) fn new(examples: &[Example], most: usize, seed: u64) -> Result<Self> {
        let mut documents: Vec<SummaryVectors> = Vec::new();
        if most > 0 {
            let all = examples.iter().flat_map(|example| &example.prefix).filter(|vectors| vectors.rows() > 0);
            documents.extend(all.cloned());
            documents.sort_by_key(SummaryVectors::address);
            documents.dedup_by_key(|vectors| vectors.address());
            // In the order of the examples: addresses differ from run to run.
            let first = |vectors: &SummaryVectors| {
                let own = |example: &Example| example.prefix.iter().position(|p| p.address() == vectors.address());
                examples.iter().enumerate().find_map(|(i, example)| Some((i, own(example)?)))
            };
            documents.sort_by_cached_key(first);
            if documents.len() < 2 {
                let found = format!("{most}, with {} documents", documents.len());
                return Err(Error::setting("distractors", found, "0, or examples about at least two documents"));
            }
        }
        Ok(Self { documents, most, seed })
    }

    /// Checks that each example fits the model's window even beside the longest documents that may come to stand there.
    pub(crate) fn check(&self, examples: &[Example], model: &DecoderConfig) -> Result<()> {
        let mut longest: Vec<&SummaryVectors> = self.documents.iter().collect();
        longest.sort_by_key(|vectors| Reverse(vectors.rows()));
        let asked = examples.iter().enumerate().filter(|(_, example)| !example.prefix.is_empty());
        for (index, example) in asked {
            let others = longest.iter().filter(|other| !example.stands_behind(other)).take(self.most);
            example.check_window(index, others.map(|other| other.rows()).sum(), model)?;
        }
        Ok(())
    }

    /// The example as a step sees it: its own documents and up to `most` others, in random order. `place` is the
    /// example's place in the run; the same place gives the same.
    pub(crate) fn beside<'e>(&self, example: &'e Example, place: u64) -> Cow<'e, Example> {
        if self.most == 0 || example.prefix.is_empty() {
            return Cow::Borrowed(example);
        }
        let mut rng = StdRng::seed_from_u64(mix(self.seed ^ mix(place ^ 0xd157)));
        let mut others: Vec<&SummaryVectors> =
            self.documents.iter().filter(|other| !example.stands_behind(other)).collect();
        others.shuffle(&mut rng);
        others.truncate(rng.random_range(0..=self.most));
        let mut example = example.clone();
        example.prefix.extend(others.into_iter().cloned());
        example.prefix.shuffle(&mut rng);
        Cow::Owned(example)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn examples() -> Vec<Example> {
        let document = |value: f32| SummaryVectors::new(vec![value; 4], 2).unwrap();
        let documents: Vec<SummaryVectors> = (0..5).map(|i| document(i as f32)).collect();
        // Two questions a document, one about two documents, one about none.
        let mut examples: Vec<Example> = (0..10)
            .map(|i| Example::new(i.to_string(), vec![1], vec![2]).with_prefix(documents[i / 2].clone()))
            .collect();
        examples[3] = examples[3].clone().with_prefix(documents[4].clone());
        examples.push(Example::new("none", vec![1], vec![2]));
        examples
    }

    #[test]
    fn the_right_documents_stay_among_distinct_others() {
        let examples = examples();
        let distractors = Distractors::new(&examples, 2, 7).unwrap();
        assert_eq!(distractors.documents.len(), 5);
        let mut seen = [0; 3];
        let mut first = 0;
        for place in 0..200 {
            let own = &examples[place % 10];
            let example = distractors.beside(own, place as u64);
            let addresses: Vec<usize> = example.prefix.iter().map(SummaryVectors::address).collect();
            assert!(own.prefix.iter().all(|vectors| addresses.contains(&vectors.address())));
            let mut distinct = addresses.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), addresses.len());
            seen[addresses.len() - own.prefix.len()] += 1;
            first += usize::from(addresses[0] == own.prefix[0].address());
            let again: Vec<usize> =
                distractors.beside(own, place as u64).prefix.iter().map(SummaryVectors::address).collect();
            assert_eq!(again, addresses);
        }
        assert!(seen.iter().all(|&count| count > 40), "{seen:?}");
        assert!((60..180).contains(&first), "the right document stands first {first} times of 200");
        assert!(distractors.beside(&examples[10], 3).prefix.is_empty());
    }

    #[test]
    fn one_document_has_no_distractors() {
        let examples = &examples()[..2];
        assert!(
            matches!(Distractors::new(examples, 1, 0), Err(Error::Setting { field, .. }) if field == "distractors")
        );
        assert!(Distractors::new(examples, 0, 0).is_ok());
    }
}
