//! How sure a mean over questions is: percentile bootstrap.

use serde::Serialize;

use crate::random::SplitMix64;

const RESAMPLES: usize = 2_000;

/// A statistic and its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The statistic of the items themselves.
    pub value: f64,
    /// 2.5 % of the resamples lie below.
    pub low: f64,
    /// 2.5 % of the resamples lie above.
    pub high: f64,
}

impl Interval {
    /// The mean of some values, `None` if there is none.
    ///
    /// To compare two systems on the same questions, give it the differences of their scores.
    pub fn of_mean(values: &[f64], seed: u64) -> Option<Self> {
        Self::of(values, seed, |sample| sample.iter().copied().sum::<f64>() / sample.len() as f64)
    }

    /// Any statistic of a sample, such as the geometric mean of mean scores; `None` without items. The same seed gives
    /// the same interval.
    pub fn of<T>(items: &[T], seed: u64, statistic: impl Fn(&[&T]) -> f64) -> Option<Self> {
        if items.is_empty() {
            return None;
        }
        let mut sample: Vec<&T> = items.iter().collect();
        let value = statistic(&sample);
        let mut random = SplitMix64::new(seed);
        let mut resamples: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                sample.clear();
                sample.extend((0..items.len()).filter_map(|_| items.get(random.below(items.len()))));
                statistic(&sample)
            })
            .collect();
        resamples.sort_by(f64::total_cmp);
        Some(Self { value, low: quantile(&resamples, 0.025), high: quantile(&resamples, 0.975) })
    }
}

/// Linear interpolation between the two nearest of some sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * sorted.len().saturating_sub(1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let low = sorted.get(below).copied().unwrap_or(f64::NAN);
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    low + part * (high - low)
}

#[cfg(test)]
mod tests {
    use super::Interval;
    use crate::random::SplitMix64;

    #[test]
    fn equal_values_have_no_spread() {
        let interval = Interval::of_mean(&[3.0; 20], 1).unwrap();
        assert_eq!((interval.value, interval.low, interval.high), (3.0, 3.0, 3.0));
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(Interval::of_mean(&[], 1), None);
    }

    #[test]
    fn width_is_that_of_the_normal_approximation() {
        // 400 uniform values: the mean's standard error is 1 / sqrt(12 * 400), so 95 % span 3.92 of those.
        let mut random = SplitMix64::new(5);
        let values: Vec<f64> = (0..400).map(|_| random.below(1_000_000) as f64 / 1e6).collect();
        let interval = Interval::of_mean(&values, 9).unwrap();
        let expected = 3.92 / (12.0_f64 * 400.0).sqrt();
        assert!(((interval.high - interval.low) / expected - 1.0).abs() < 0.15, "{interval:?}");
        assert!(interval.low < interval.value && interval.value < interval.high);
    }

    #[test]
    fn the_seed_decides() {
        let values = [0.0, 1.0, 5.0, 9.0, 2.0];
        assert_eq!(Interval::of_mean(&values, 4), Interval::of_mean(&values, 4));
    }
}
