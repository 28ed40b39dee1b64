//! A piece of a document to learn from, and the readings that a stage makes of it.

use rand::{Rng, rngs::StdRng, seq::SliceRandom};

use super::{
    losses::{Kind, Losses},
    reading::Reading,
};
use crate::weights::Task;

/// Tokens that say where in a text a reconstruction begins.
pub(crate) const CUE: usize = 8;

/// A piece of a document: what is compressed, and what may be asked about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Sample {
    /// What errors call it.
    pub name: String,
    /// The document that it is a piece of.
    pub document: String,
    /// Token ids of the text to compress.
    pub context: Vec<u32>,
    /// Token ids of the text behind it; may be empty.
    pub continuation: Vec<u32>,
    /// Token ids of questions about the text, each with those of its answer, the end token included.
    pub questions: Vec<(Vec<u32>, Vec<u32>)>,
}

/// What decides which readings there are, beside the losses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) losses: &'a Losses,
    /// Most tokens of a reconstruction.
    pub(crate) target_tokens: usize,
    /// Parts of a text that are said again.
    pub(crate) reconstructions: usize,
    /// Other samples' summaries beside the right ones.
    pub(crate) distractors: usize,
}

/// A reading and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    /// The sample that it is about.
    pub(crate) sample: usize,
    pub(crate) reading: Reading,
}

impl Plan<'_> {
    /// The readings of the samples of one pass.
    pub(crate) fn readings(&self, samples: &[Sample], rng: &mut StdRng) -> Vec<Planned> {
        let mut planned = Vec::new();
        for (index, sample) in samples.iter().enumerate() {
            for kind in Kind::ALL.into_iter().filter(|&kind| self.losses.wants(kind)) {
                let readings = match kind {
                    Kind::Reconstruction => self.reconstructions(index, &sample.context, rng),
                    Kind::Continuation => vec![Reading {
                        prefix: self.prefix(index, samples.len(), rng),
                        task: Some(Task::Continue),
                        prompt: Vec::new(),
                        targets: sample.continuation.clone(),
                    }],
                    Kind::Answer => {
                        // All questions of a sample stand behind the same vectors, which are then read once.
                        let prefix = self.prefix(index, samples.len(), rng);
                        let questions = sample.questions.iter().map(|(prompt, answer)| Reading {
                            prefix: prefix.clone(),
                            task: None,
                            prompt: prompt.clone(),
                            targets: answer.clone(),
                        });
                        questions.collect()
                    }
                };
                let readings = readings.into_iter().filter(|reading| !reading.targets.is_empty());
                planned.extend(readings.map(|reading| Planned { kind, sample: index, reading }));
            }
        }
        planned
    }

    /// The whole text, or parts of it, each behind its first tokens.
    fn reconstructions(&self, sample: usize, context: &[u32], rng: &mut StdRng) -> Vec<Reading> {
        let most = self.target_tokens.max(1);
        let reading = |prompt: &[u32], targets: &[u32]| {
            let (prompt, targets) = (prompt.to_vec(), targets.to_vec());
            Reading { prefix: vec![sample], task: Some(Task::Reconstruct), prompt, targets }
        };
        let Some(spare) = context.len().checked_sub(most + CUE) else {
            return vec![reading(&[], context.get(..most).unwrap_or(context))];
        };
        let part = |_| {
            let (cue, rest) = context.split_at(rng.random_range(0..=spare)).1.split_at(CUE);
            reading(cue, &rest[..most])
        };
        (0..self.reconstructions.max(1)).map(part).collect()
    }

    /// A sample among its distractors, in random order.
    fn prefix(&self, sample: usize, samples: usize, rng: &mut StdRng) -> Vec<usize> {
        let mut others: Vec<usize> = (0..samples).filter(|&other| other != sample).collect();
        others.shuffle(rng);
        others.truncate(self.distractors);
        others.push(sample);
        others.shuffle(rng);
        others
    }
}

impl Planned {
    /// The same reading behind the summaries of another sample instead of the right ones: if there is one, of another
    /// document that the reading does not read already.
    pub(crate) fn misled(&self, samples: &[Sample]) -> Reading {
        let document = |index: usize| samples.get(index).map(|sample| &sample.document);
        let taken = |other: usize| self.reading.prefix.contains(&other);
        let next = (1..samples.len()).map(|step| (self.sample + step) % samples.len());
        let likeness = |&other: &usize| (taken(other), document(other) == document(self.sample));
        let other = next.min_by_key(likeness).unwrap_or(self.sample);
        let swap = |&sample: &usize| if sample == self.sample { other } else { sample };
        Reading { prefix: self.reading.prefix.iter().map(swap).collect(), ..self.reading.clone() }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn other_summaries_are_those_of_another_document_that_is_not_read_already() {
        let piece = |document: &str| Sample { document: document.into(), ..Sample::default() };
        let samples = [piece("a"), piece("a"), piece("b"), piece("c")];
        let planned = |sample: usize, prefix: &[usize]| {
            let reading = Reading { prefix: prefix.to_vec(), task: None, prompt: vec![], targets: vec![1] };
            Planned { kind: Kind::Answer, sample, reading }
        };
        let misled = |sample, prefix: &[usize], of: usize| planned(sample, prefix).misled(&samples[..of]).prefix;
        assert_eq!(misled(0, &[0], 4), [2]);
        assert_eq!(misled(0, &[2, 0], 4), [2, 3]);
        assert_eq!(misled(3, &[3], 4), [0]);
        // Where there is no better, another piece, and where there is no other, itself.
        assert_eq!(misled(0, &[0], 2), [1]);
        assert_eq!(misled(0, &[0], 1), [0]);
    }

    #[test]
    fn parts_of_a_text_are_said_again_behind_their_cues() {
        let losses = Losses { reconstruction: 1.0, ..Losses::default() };
        let plan = Plan { losses: &losses, target_tokens: 5, reconstructions: 4, distractors: 0 };
        let long = Sample { context: (100..140).collect(), ..Sample::default() };
        let short = Sample { context: (0..12).collect(), ..Sample::default() };
        let planned = plan.readings(&[long, short], &mut StdRng::seed_from_u64(3));
        let (of_long, of_short): (Vec<_>, Vec<_>) = planned.iter().partition(|planned| planned.sample == 0);
        assert_eq!((of_long.len(), of_short.len()), (4, 1));
        for Planned { reading, .. } in &of_long {
            let said: Vec<u32> = reading.prompt.iter().chain(&reading.targets).copied().collect();
            assert_eq!((reading.prompt.len(), reading.targets.len(), &reading.prefix[..]), (CUE, 5, &[0][..]));
            assert!(said.windows(2).all(|pair| pair[1] == pair[0] + 1) && said[0] >= 100 && said[12] < 140, "{said:?}");
        }
        assert!(of_long.iter().any(|planned| planned.reading.prompt != of_long[0].reading.prompt));
        // Too short for a cue and what follows it: from its beginning.
        assert_eq!(
            (&of_short[0].reading.prompt[..], &of_short[0].reading.targets[..]),
            (&[][..], &[0, 1, 2, 3, 4][..])
        );
    }
}
