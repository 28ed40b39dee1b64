//! The learning rate of each step, as Hugging Face's trainer computes it.

use std::f64::consts::PI;

use super::{Schedule, TrainConfig};

impl TrainConfig {
    /// The learning rate of a step, from 0, in a run of `steps`. It rises linearly from 0 over
    /// `ceil(steps * warmup_ratio)` steps and then falls as the schedule says.
    pub fn learning_rate_at(&self, step: usize, steps: usize) -> f64 {
        let warmup = (steps as f64 * self.warmup_ratio).ceil() as usize;
        if step < warmup {
            return self.learning_rate * step as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        self.learning_rate
            * match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Linear => (1.0 - progress).max(0.0),
                Schedule::Cosine => 0.5 * (1.0 + (PI * progress.min(1.0)).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_zero() {
        let config = TrainConfig { learning_rate: 1.0, warmup_ratio: 0.2, ..TrainConfig::default() };
        let rate = |step| config.learning_rate_at(step, 10);
        assert_eq!([rate(0), rate(1), rate(2)], [0.0, 0.5, 1.0]);
        assert!((rate(6) - 0.5).abs() < 1e-12);
        assert!(rate(9) > 0.0 && rate(10) < 1e-12);
        let linear = TrainConfig { schedule: Schedule::Linear, ..config.clone() };
        assert!((linear.learning_rate_at(4, 10) - 0.75).abs() < 1e-12);
        let constant = TrainConfig { schedule: Schedule::Constant, warmup_ratio: 0.0, ..config };
        assert_eq!([constant.learning_rate_at(0, 4), constant.learning_rate_at(3, 4)], [1.0, 1.0]);
    }
}
