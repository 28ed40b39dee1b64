//! Other machines: poorer instructions and other numbers of threads, in processes of their own.

use std::{env, fs, process::Command};

use lloco_decoder::{GenerateConfig, NoAdapter, Prompt, WeightType};
use serde::{Deserialize, Serialize};

use super::{ALL, ODD, distance, gradients, load, random, scores, text, texts};

/// A type of weights, the shape of a model, and what it reads.
type Case = (WeightType, [usize; 3], Vec<u32>);

/// Every type with every text.
fn odd() -> Vec<Case> {
    ALL.into_iter().flat_map(|weights| texts().map(|ids| (weights, ODD, ids))).collect()
}

/// Products that are work for many threads. One model of them: a thousand threads take seconds to look for work.
fn wide() -> Vec<Case> {
    vec![(WeightType::Int8, [200, 530, 600], text(300))]
}

/// What a model makes of a text.
#[derive(Serialize, Deserialize)]
struct Found {
    scores: Vec<f32>,
    gradients: [Vec<f32>; 3],
    tokens: Vec<u32>,
}

fn report(cases: &[Case]) -> Vec<Found> {
    let found = |(weights, shape, ids): &Case| {
        let decoder = load(&random(*shape), *weights);
        let tokens = decoder.generate(&Prompt::new().text(ids), &GenerateConfig::greedy(2), NoAdapter).unwrap();
        Found {
            tokens: tokens.map(Result::unwrap).collect(),
            scores: scores(&decoder, ids),
            gradients: gradients(&decoder, ids),
        }
    };
    cases.iter().map(found).collect()
}

/// Writes a report where the parent process wants it; alone it does nothing.
fn tell(cases: &[Case]) {
    if let Some(path) = env::var_os("LLOCO_TEST_REPORT") {
        fs::write(path, serde_json::to_vec(&report(cases)).unwrap()).unwrap();
    }
}

#[test]
fn child_that_reads() {
    tell(&odd());
}

#[test]
fn child_that_reads_much() {
    tell(&wide());
}

/// The report of such a child with this in its environment.
fn told(child: &str, name: &str, value: &str) -> Vec<Found> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report");
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("machines::{child}"), "--test-threads=1"])
        .env("LLOCO_TEST_REPORT", &path)
        .env(name, value)
        .output()
        .unwrap();
    assert!(child.status.success(), "{name}={value}: {}", String::from_utf8_lossy(&child.stdout));
    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()
}

/// Sums in another order make such a difference.
const ORDER: f64 = 1e-3;

/// Checks a child's reports against this process's; `tolerance` is for weights that are rounded.
fn agree((child, cases): (&str, Vec<Case>), name: &str, values: &[&str], tolerance: f64) {
    let wanted = report(&cases);
    for value in values {
        let found = told(child, name, value);
        assert_eq!(found.len(), wanted.len());
        for (((weights, _, ids), found), wanted) in cases.iter().zip(found).zip(&wanted) {
            let what = format!("{name}={value}, {weights:?} of {}", ids.len());
            // Inputs of four-bit weights may round to the other side, half a step of 127.
            let tolerance = match weights {
                WeightType::F32 => ORDER,
                WeightType::Q4 => tolerance.max(0.03),
                _ => tolerance,
            };
            let scores = distance(&found.scores, &wanted.scores);
            assert!(scores < tolerance, "{what}: scores {scores}");
            for ((found, wanted), of) in found.gradients.iter().zip(&wanted.gradients).zip(["input", "a", "b"]) {
                let gradient = distance(found, wanted);
                assert!(gradient < tolerance, "{what}: gradient of {of} {gradient}");
            }
            assert!(found.tokens == wanted.tokens || *weights == WeightType::Q4, "{what}: {:?}", found.tokens);
        }
    }
}

/// Where the CPU lacks what a value names, the child uses what this process does, and the reports agree all the more.
#[test]
fn poorer_instructions_give_the_same() {
    let values = ["portable", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"];
    // Instructions for bf16, and tiles, round what others do not.
    agree(("child_that_reads", odd()), "LLOCO_KERNELS", &values, 0.03);
    agree(("child_that_reads_much", wide()), "LLOCO_KERNELS", &values, 0.03);
}

#[test]
fn names_of_no_instructions_change_nothing() {
    agree(("child_that_reads", odd()), "LLOCO_KERNELS", &["abacus", ""], ORDER);
}

#[test]
fn any_number_of_threads_gives_the_same() {
    agree(("child_that_reads", odd()), "RAYON_NUM_THREADS", &["0", "1"], ORDER);
    agree(("child_that_reads_much", wide()), "RAYON_NUM_THREADS", &["1", "1000"], ORDER);
}
