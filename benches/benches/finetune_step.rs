//! A finetuning step on summaries, against the same step on the text that they stand for: the claim is 11.52 times the
//! throughput (paper, section 4.6).
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::{process::ExitCode, time::Instant};

use criterion::Criterion;
use lloco_benches::{Group, Share, Subject};

/// Segments of the document; each is 50 summary vectors or 1,536 tokens.
const SEGMENTS: usize = 6;
const PROMPT: usize = 150;
const ANSWER: usize = 50;
const CLAIM: f64 = 11.52;

fn finetune_step(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let mut step = subject.finetuning(50 * SEGMENTS, PROMPT, ANSWER).unwrap();
    let mut group = Group::new(criterion, "finetune_step");
    let positions = 50 * SEGMENTS + PROMPT + ANSWER;
    let Some(seconds) = group.time("300 summary vectors and 200 tokens", positions as u64, || step().unwrap()) else {
        return;
    };
    let limit = subject.product_rate();
    let share = |positions, seconds| Share::of_products(subject.finetuning_operations(positions) / seconds, limit);
    println!("on summaries: {seconds:.2} s, {}", share(positions, seconds));
    // Minutes: once is enough. Beyond the model's window, which a cost does not mind.
    let positions = 1536 * SEGMENTS + PROMPT + ANSWER;
    let mut full = subject.finetuning(0, positions - ANSWER, ANSWER).unwrap();
    let start = Instant::now();
    full().unwrap();
    let text = start.elapsed().as_secs_f64();
    println!("on text: {text:.2} s, {}", share(positions, text));
    println!(
        "a step: {seconds:.2} s on summaries, {text:.2} s on {} tokens of text (the window has {}): {:.2} times the \
         throughput",
        1536 * SEGMENTS,
        subject.window(),
        text / seconds
    );
    assert!(text / seconds >= CLAIM, "the claim is {CLAIM} times");
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(finetune_step)
}
