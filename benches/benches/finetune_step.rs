//! A finetuning step on summaries, against the same step on the text that they stand for: the claim is 11.52 times the
//! throughput (paper, section 4.6).
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, Subject, alternate};
use std::time::Instant;

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
    if group.time("300 summary vectors and 200 tokens", positions as u64, || step().unwrap()).is_none() {
        return;
    }
    let window = subject.window();
    let text = (1536 * SEGMENTS).min(window - PROMPT - ANSWER);
    let mut full = subject.finetuning(0, text + PROMPT, ANSWER).unwrap();
    let time = |work: &mut dyn FnMut() -> lloco_benches::Result<()>| -> lloco_benches::Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let turns = alternate(3, || time(&mut step), || time(&mut full)).unwrap();
    println!(
        "a step: {:.2} s on summaries, {:.2} s on {text} tokens of text (the window has {window}): {:.2} times the \
         throughput",
        turns.first, turns.second, turns.ratio
    );
    assert!(turns.ratio >= CLAIM, "the claim is {CLAIM} times");
}

criterion_group!(benches, finetune_step);
criterion_main!(benches);
