//! Which values a curriculum may have.

use std::path::Path;

use super::{Curriculum, LearningRates, OptimizerConfig};
use crate::{Error, Mode, Result};

impl Curriculum {
    /// Checks that every value is in its range; `origin` is what errors call the file.
    pub(crate) fn check(&self, origin: &Path) -> Result<()> {
        let bad = |field: String, found: String, expected: &str| {
            Err(Error::Curriculum { path: origin.to_path_buf(), field, found, expected: expected.into() })
        };
        let range = |field: &str, value: f64, good: bool, expected: &str| match good {
            true => Ok(()),
            false => bad(field.to_owned(), value.to_string(), expected),
        };
        let count = |field: &str, value: usize, least: usize| {
            range(field, value as f64, (least..=1 << 20).contains(&value), "a whole number of sensible size")
        };
        if let Err(Error::InvalidSetting { field, found, expected }) = self.mode.check() {
            return bad(format!("mode.{field}"), found, &expected);
        }
        if let Err(Error::InvalidSetting { field, found, expected }) = self.encoder.check(&self.reader) {
            return bad(field.to_owned(), found, &expected);
        }
        let share = |value: f64| (0.0..1.0).contains(&value);
        let OptimizerConfig { beta_1, beta_2, epsilon, weight_decay, max_grad_norm } = self.optimizer;
        range("optimizer.beta_1", beta_1.into(), share(beta_1.into()), "from 0 up to, not including, 1")?;
        range("optimizer.beta_2", beta_2.into(), share(beta_2.into()), "from 0 up to, not including, 1")?;
        range("optimizer.epsilon", epsilon.into(), epsilon > 0.0 && epsilon.is_finite(), "above 0")?;
        range("optimizer.weight_decay", weight_decay, share(weight_decay), "from 0 up to, not including, 1")?;
        let norm = max_grad_norm > 0.0 && max_grad_norm.is_finite();
        range("optimizer.max_grad_norm", max_grad_norm, norm, "above 0")?;
        count("micro_batch", self.micro_batch, 1)?;
        count("save_every", self.save_every, 1)?;
        if self.stages.is_empty() {
            return bad("stages".into(), "[]".into(), "at least one stage");
        }
        for (index, stage) in self.stages.iter().enumerate() {
            let field = |name: &str| format!("stages[{index}].{name}");
            for (name, value, least) in [
                ("steps", stage.steps, 1),
                ("batch", stage.batch, 1),
                ("context", stage.context, 2),
                ("target_tokens", stage.target_tokens, 1),
                ("reconstructions", stage.reconstructions, 1),
                ("questions", stage.questions, 1),
                ("continuation", stage.continuation, 0),
                ("substeps", stage.substeps, 1),
                ("segments_per_substep", stage.segments_per_substep, 1),
                ("longest_segment", stage.longest_segment.unwrap_or(2), 2),
                ("documents", stage.documents.unwrap_or(1), 1),
                ("warmup_steps", stage.warmup_steps, 0),
            ] {
                count(&field(name), value, least)?;
            }
            let losses = &stage.losses;
            for (name, value) in [
                ("next_token", losses.next_token),
                ("reconstruction", losses.reconstruction),
                ("continuation", losses.continuation),
                ("answer", losses.answer),
                ("kl", losses.kl),
                ("binding", losses.binding),
                ("binding_margin", losses.binding_margin),
            ] {
                let good = (0.0..=100.0).contains(&value);
                range(&field(&format!("losses.{name}")), value, good, "from 0 to 100")?;
            }
            count(&field("losses.kl_top"), losses.kl_top, 1)?;
            if !losses.reads() && losses.next_token == 0.0 {
                return bad(field("losses"), "all 0".into(), "at least one loss above 0");
            }
            if losses.binding > 0.0 && (self.micro_batch < 2 || stage.batch < 2) {
                return bad(
                    field("losses.binding"),
                    losses.binding.to_string(),
                    "micro_batch and batch of at least 2: another document is needed",
                );
            }
            if stage.distractors > 0 && stage.distractors >= self.micro_batch.min(stage.batch) {
                return bad(field("distractors"), stage.distractors.to_string(), "fewer than micro_batch and batch");
            }
            let LearningRates { encoder, connector, reader } = stage.learning_rates;
            for (name, rate) in [("encoder", encoder), ("connector", connector), ("reader", reader)] {
                let good = (0.0..=1.0).contains(&rate);
                range(&field(&format!("learning_rates.{name}")), rate, good, "from 0 to 1")?;
            }
            if encoder + connector + reader == 0.0 {
                return bad(field("learning_rates"), "all 0".into(), "at least one above 0");
            }
            range(&field("final_rate"), stage.final_rate, (0.0..=1.0).contains(&stage.final_rate), "from 0 to 1")?;
            match &self.mode {
                Mode::AutoCompressor(_) if !stage.ratios.is_empty() => {
                    let expected = "nothing: an AutoCompressor's ratio follows from its lengths";
                    return bad(field("ratios"), format!("{:?}", stage.ratios), expected);
                }
                Mode::Pooled(pooled) => {
                    if losses.next_token > 0.0 {
                        let expected = "0: a pooling encoder predicts no text";
                        return bad(field("losses.next_token"), losses.next_token.to_string(), expected);
                    }
                    let known = |ratio: &usize| pooled.ratios.contains(ratio);
                    if stage.ratios.is_empty() || !stage.ratios.iter().all(known) {
                        let expected = format!("some of the mode's ratios {:?}", pooled.ratios);
                        return bad(field("ratios"), format!("{:?}", stage.ratios), &expected);
                    }
                }
                Mode::AutoCompressor(_) if losses.next_token > 0.0 && encoder == 0.0 => {
                    let expected = "0, or a learning rate of the encoder above 0: nothing else learns from it";
                    return bad(field("losses.next_token"), losses.next_token.to_string(), expected);
                }
                Mode::AutoCompressor(_) => {}
            }
        }
        Ok(())
    }
}
