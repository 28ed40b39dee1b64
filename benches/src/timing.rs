//! Timing: criterion groups that keep their medians, and two pieces of work in alternation.

use std::{
    cell::RefCell,
    env,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, measurement::WallTime};

/// The middle value, or the upper of the two in the middle; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A criterion group of slow work: ten samples, as many iterations each as fit into five seconds.
pub struct Group<'c> {
    group: BenchmarkGroup<'c, WallTime>,
    name: String,
}

impl<'c> Group<'c> {
    /// Opens the group `name`.
    pub fn new(criterion: &'c mut Criterion, name: &str) -> Self {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
        Self { group, name: name.into() }
    }

    /// Whether the command line asks for `case`: it names no part of `group/case`, or this one.
    pub fn wants(&self, case: &str) -> bool {
        let name = format!("{}/{case}", self.name);
        let mut filters = env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
    }

    /// Times `work`, which handles `elements` of something; returns the median seconds, or `None` where the command
    /// line's filter leaves it out.
    pub fn time(&mut self, case: &str, elements: u64, mut work: impl FnMut()) -> Option<f64> {
        let seconds = RefCell::new(Vec::new());
        self.group.throughput(Throughput::Elements(elements));
        self.group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                (0..iterations).for_each(|_| work());
                let elapsed = start.elapsed();
                seconds.borrow_mut().push(elapsed.as_secs_f64() / iterations as f64);
                elapsed
            });
        });
        let seconds = seconds.into_inner();
        (!seconds.is_empty()).then(|| median(seconds))
    }

    /// As [`time`](Self::time), for work of several seconds: three runs and no statistics, where criterion would take ten
    /// at least.
    pub fn time_long(&self, case: &str, mut work: impl FnMut()) -> Option<f64> {
        let mut once = |_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        };
        let seconds = self.wants(case).then(|| median((0..3).map(&mut once).collect()))?;
        println!("{}/{case}: {seconds:.2} s, median of three", self.name);
        Some(seconds)
    }
}

/// Two pieces of work, timed in turns so that a slow minute of the machine falls on both.
#[derive(Debug, Clone, Copy)]
pub struct Alternation {
    /// Median seconds of the first.
    pub first: f64,
    /// Median seconds of the second.
    pub second: f64,
    /// Median of `second / first` over the pairs: how many times faster the first is.
    pub ratio: f64,
}

/// Runs `first` and `second` in turns, `pairs` times.
///
/// # Errors
/// The first error of either.
pub fn alternate<E>(
    pairs: usize,
    mut first: impl FnMut() -> Result<f64, E>,
    mut second: impl FnMut() -> Result<f64, E>,
) -> Result<Alternation, E> {
    let pairs = (0..pairs).map(|_| Ok((first()?, second()?))).collect::<Result<Vec<(f64, f64)>, E>>()?;
    Ok(Alternation {
        first: median(pairs.iter().map(|pair| pair.0).collect()),
        second: median(pairs.iter().map(|pair| pair.1).collect()),
        ratio: median(pairs.iter().map(|pair| pair.1 / pair.0).collect()),
    })
}
