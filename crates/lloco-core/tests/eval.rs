//! The metrics against the Python originals.
//!
//! `tests/data/eval/scores.json` is used unless the environment variable `LLOCO_GOLDEN_SCORES` names another file of
//! the same shape.

use std::path::PathBuf;

use lloco_core::eval::{Interval, Metric, Scores};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Case {
    prediction: String,
    references: Vec<String>,
    f1: f64,
    exact_match: f64,
    rouge1: f64,
    rouge2: f64,
    #[serde(rename = "rougeL")]
    rouge_l: f64,
    rouge_geometric_mean: f64,
}

fn cases() -> Vec<Case> {
    let path = std::env::var_os("LLOCO_GOLDEN_SCORES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/eval/scores.json"), PathBuf::from);
    let json = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases: Vec<Case> = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!cases.is_empty(), "{} holds no case", path.display());
    cases
}

/// Compares one metric over all cases and reports every one that differs.
fn compare(metric: &str, ours: impl Fn(&Case) -> f64, expected: impl Fn(&Case) -> f64) {
    let wrong: Vec<String> = cases()
        .iter()
        .map(|case| (case, ours(case), expected(case)))
        .filter(|(_, ours, expected)| ours.is_nan() || (ours - expected).abs() > TOLERANCE)
        .map(|(case, ours, expected)| format!("{ours} instead of {expected} for {:?}", case.prediction))
        .collect();
    assert!(wrong.is_empty(), "{metric}: {wrong:#?}");
}

fn scores(case: &Case) -> Scores {
    Scores::of(&case.prediction, &case.references)
}

#[test]
fn golden_scores_f1() {
    compare("f1", |case| scores(case).f1, |case| case.f1);
    compare("f1", |case| Metric::F1.score(&case.prediction, &case.references), |case| case.f1);
}

#[test]
fn golden_scores_exact_match() {
    compare("exact_match", |case| scores(case).exact_match, |case| case.exact_match);
}

#[test]
fn golden_scores_rouge1() {
    compare("rouge1", |case| scores(case).rouge1, |case| case.rouge1);
}

#[test]
fn golden_scores_rouge2() {
    compare("rouge2", |case| scores(case).rouge2, |case| case.rouge2);
}

#[test]
fn golden_scores_rouge_l() {
    compare("rougeL", |case| scores(case).rouge_l, |case| case.rouge_l);
}

#[test]
fn golden_scores_rouge_geometric_mean() {
    compare("geometric mean", |case| scores(case).rouge_geometric_mean(), |case| case.rouge_geometric_mean);
}

#[test]
fn a_second_reference_never_lowers_a_score() {
    for case in cases() {
        let all = scores(&case);
        for reference in &case.references {
            let one = Scores::of(&case.prediction, &[reference]);
            assert!(
                one.f1 <= all.f1 && one.rouge1 <= all.rouge1 && one.rouge2 <= all.rouge2 && one.rouge_l <= all.rouge_l
            );
        }
    }
}

/// SCROLLS reports the geometric mean of the mean scores, with its interval.
#[test]
fn a_data_set_has_one_geometric_mean() {
    let scores: Vec<Scores> = cases().iter().map(scores).collect();
    let mean = Scores::mean(&scores);
    let interval = Interval::of(&scores, 1, |sample| Scores::mean(sample.iter().copied()).rouge_geometric_mean());
    let interval = interval.expect("there are cases");
    assert!((interval.value - (mean.rouge1 * mean.rouge2 * mean.rouge_l).cbrt()).abs() < TOLERANCE);
    assert!(interval.low <= interval.value && interval.value <= interval.high);
    assert_eq!(Scores::mean(&[]), Scores::default());
}
