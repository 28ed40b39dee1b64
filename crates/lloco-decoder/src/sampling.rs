//! Choosing the next token from its scores.

use std::cmp::Ordering;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// Divides the scores; 0 means greedy: always the best token.
    pub temperature: f32,
    /// Keep only the `k` best tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of best tokens whose probabilities reach `p`; 1 keeps all.
    pub top_p: f32,
    /// Divides positive and multiplies negative scores of tokens already seen; 1 changes nothing
    /// (arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Seed of the random draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Always the best token.
    pub fn greedy() -> Self {
        Self::default()
    }

    /// Draws at a temperature, from `seed`.
    pub fn temperature(temperature: f32, seed: u64) -> Self {
        Self { temperature, seed, ..Self::default() }
    }

    /// Keeps only the `k` best tokens.
    #[must_use]
    pub fn with_top_k(mut self, k: usize) -> Self {
        self.top_k = k;
        self
    }

    /// Keeps the smallest set of best tokens whose probabilities reach `p`.
    #[must_use]
    pub fn with_top_p(mut self, p: f32) -> Self {
        self.top_p = p;
        self
    }

    /// Penalises tokens already seen.
    #[must_use]
    pub fn with_repetition_penalty(mut self, penalty: f32) -> Self {
        self.repetition_penalty = penalty;
        self
    }
}

/// Draws tokens one after another; owns the random state.
///
/// ```
/// use lloco_decoder::{Sampler, Sampling};
/// let mut sampler = Sampler::new(Sampling::greedy())?;
/// assert_eq!(sampler.sample(&mut [0.1, 2.0, -1.0], &[])?, 1);
/// # Ok::<_, lloco_decoder::Error>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: StdRng,
    /// Tokens so far.
    chosen: usize,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a setting out of range.
    pub fn new(sampling: Sampling) -> Result<Self> {
        let check = |field, value: f32, fine: bool, expected| match fine {
            true => Ok(()),
            false => Err(Error::InvalidSetting { field, value: value.to_string(), expected }),
        };
        let Sampling { temperature, top_p, repetition_penalty, .. } = sampling;
        check("temperature", temperature, temperature.is_finite() && temperature >= 0.0, "0 or more")?;
        check("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0, at most 1")?;
        let fine = repetition_penalty.is_finite() && repetition_penalty > 0.0;
        check("repetition_penalty", repetition_penalty, fine, "above 0")?;
        let rng = StdRng::seed_from_u64(sampling.seed);
        Ok(Self { sampling, rng, chosen: 0 })
    }

    /// The next token, from its `scores` `[vocab]` (changed in place) and the tokens `seen` so far.
    ///
    /// A score of negative infinity rules a token out, one of infinity is the best there is.
    ///
    /// # Errors
    /// [`Error::NoScores`] if a score is NaN, or all tokens are ruled out.
    pub fn sample(&mut self, scores: &mut [f32], seen: &[u32]) -> Result<u32> {
        self.penalise(scores, seen);
        let best = best(scores).ok_or(Error::NoScores { position: self.chosen })?;
        self.chosen += 1;
        // Beside infinity, no other score has a weight.
        if self.sampling.temperature == 0.0 || scores[best] == f32::INFINITY {
            return Ok(best as u32);
        }
        let mut candidates: Vec<(u32, f32)> = (0..).zip(scores.iter().copied()).collect();
        let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal);
        if self.sampling.top_k > 0 && self.sampling.top_k < candidates.len() {
            candidates.select_nth_unstable_by(self.sampling.top_k, descending);
            candidates.truncate(self.sampling.top_k);
        }
        candidates.sort_unstable_by(descending);
        Ok(self.draw(&candidates))
    }

    fn penalise(&self, scores: &mut [f32], seen: &[u32]) {
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
            }
        }
    }

    /// Draws from candidates in descending order of score.
    fn draw(&mut self, candidates: &[(u32, f32)]) -> u32 {
        let Some(&(first, top)) = candidates.first() else { return 0 };
        let weight = |score: f32| f64::from((score - top) / self.sampling.temperature).exp();
        let total: f64 = candidates.iter().map(|c| weight(c.1)).sum();
        let mut kept = 0.0;
        let nucleus = f64::from(self.sampling.top_p) * total;
        let end = candidates.iter().position(|c| {
            kept += weight(c.1);
            kept >= nucleus
        });
        let nucleus = candidates.get(..=end.unwrap_or(candidates.len() - 1)).unwrap_or(candidates);
        let mut target = self.rng.random::<f64>() * kept;
        for &(id, score) in nucleus {
            target -= weight(score);
            if target <= 0.0 {
                return id;
            }
        }
        nucleus.last().map_or(first, |c| c.0)
    }
}

/// Index of the largest score, the first one of equals. `None` if one is NaN, or none is above negative infinity.
fn best(scores: &[f32]) -> Option<usize> {
    let (mut best, mut top) = (None, f32::NEG_INFINITY);
    for (i, &score) in scores.iter().enumerate() {
        if score > top {
            (best, top) = (Some(i), score);
        } else if score.is_nan() {
            return None;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampling: Sampling, scores: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling).expect("valid settings");
        (0..n).map(|_| sampler.sample(&mut scores.to_vec(), &[]).expect("numbers")).collect()
    }

    #[test]
    fn same_seed_same_draws() {
        let scores = [0.0, 0.5, 1.0, 0.2];
        let sampling = Sampling::temperature(1.0, 7);
        assert_eq!(draws(sampling.clone(), &scores, 50), draws(sampling, &scores, 50));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let scores = [0.0, 1.0f32.ln_1p()]; // weights 1 and 2
        let ones = draws(Sampling::temperature(1.0, 1), &scores, 6000).iter().filter(|&&id| id == 1).count();
        assert!((3800..4200).contains(&ones), "expected about 4000 of 6000, found {ones}");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let scores = [3.0, 2.0, 1.0, 0.0];
        assert!(draws(Sampling::temperature(2.0, 3).with_top_k(2), &scores, 200).iter().all(|&id| id < 2));
        assert!(draws(Sampling::temperature(1.0, 3).with_top_p(0.5), &scores, 200).iter().all(|&id| id == 0));
    }

    #[test]
    fn penalty_avoids_what_was_seen() {
        let mut sampler = Sampler::new(Sampling::greedy().with_repetition_penalty(2.0)).expect("valid settings");
        assert_eq!(sampler.sample(&mut [1.5, 1.0, -1.0], &[0]).expect("numbers"), 1);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for bad in [
            Sampling::temperature(-1.0, 0),
            Sampling::temperature(f32::NAN, 0),
            Sampling::greedy().with_top_p(0.0),
            Sampling::greedy().with_repetition_penalty(0.0),
        ] {
            assert!(matches!(Sampler::new(bad), Err(Error::InvalidSetting { .. })));
        }
    }

    #[test]
    fn scores_that_are_no_numbers_are_refused_and_infinite_ones_obeyed() {
        let (no, all) = (f32::NEG_INFINITY, f32::INFINITY);
        for sampling in [Sampling::greedy(), Sampling::temperature(1.0, 0).with_top_k(2), Sampling::temperature(0.5, 3)]
        {
            let mut sampler = Sampler::new(sampling.with_repetition_penalty(1.5)).expect("valid settings");
            let mut choose = |scores: &[f32]| sampler.sample(&mut scores.to_vec(), &[0, 2]);
            assert_eq!(choose(&[no, 1.0, no]).expect("numbers"), 1);
            assert_eq!(choose(&[0.0, all, 5.0]).expect("numbers"), 1);
            assert_eq!(choose(&[no, no, all]).expect("numbers"), 2);
            for scores in [&[f32::NAN, 0.0, 1.0][..], &[0.0, 1.0, f32::NAN], &[all, f32::NAN], &[no, no], &[]] {
                assert!(matches!(choose(scores), Err(Error::NoScores { position: 3 })), "{scores:?}");
            }
        }
    }
}
