//! Answering with 32 tokens from stored summaries, against reading the text: the claim is 7.62 times faster at 8k.
//!
//! Behind the model's window there is no text to compare with; there the summaries are timed alone, and their values,
//! which do not matter to the time, are made up. Reading the prompt is set beside the product rate, decoding beside the
//! memory bandwidth.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::{cell::Cell, process::ExitCode};

use criterion::Criterion;
use lloco_benches::{Answer, Group, Result, Share, Subject, alternate, limit};
use lloco_core::Prompt;

/// What the paper reports at best (section 4.5).
const CLAIM: f64 = 7.62;

fn answer_latency(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    // Answers, and keeps what that took.
    let answer = |prompt: &Prompt, kept: &Cell<Answer>| -> Result<f64> {
        kept.set(subject.answer(prompt)?);
        Ok(kept.get().seconds())
    };
    let (product, bandwidth) = (subject.product_rate(), limit::bandwidth_of(subject.decoder().device()));
    let shares = |what: &str, answer: Answer| {
        println!(
            "  {what}: prefill {}, decode {}",
            Share::of_products(subject.answer_operations(&answer) / answer.prefill, product),
            Share::of_memory(subject.answer_bytes(&answer) / answer.decode, bandwidth)
        );
    };
    let (short, long) = (Cell::new(Answer::default()), Cell::new(Answer::default()));
    // Question and answer need some of the window.
    let longest = subject.window() - 256;
    let mut group = Group::new(criterion, "answer_latency");
    for tokens in [2048, 4096, 8192] {
        let case = format!("{tokens} tokens");
        if !group.wants(&case) {
            continue;
        }
        let ids = subject.document(tokens.min(longest)).unwrap();
        let (summaries, text) = (subject.behind_summaries(subject.compress(&ids).unwrap()), subject.behind_text(&ids));
        group.time(&case, 32, || {
            answer(&summaries, &short).unwrap();
        });
        // Seconds each way below 8k; minutes there.
        let pairs = if tokens < 8192 { 3 } else { 1 };
        let turns = alternate(pairs, || answer(&summaries, &short), || answer(&text, &long)).unwrap();
        println!(
            "{case}: {:.2} s from {} positions, {:.2} s from {} positions of text: {:.2} times faster",
            turns.first,
            summaries.positions(),
            turns.second,
            text.positions(),
            turns.ratio
        );
        shares("from summaries", short.get());
        shares("from the text", long.get());
        assert!(tokens < 8192 || turns.ratio >= CLAIM, "the claim is {CLAIM} times");
    }
    for tokens in [32_768, 122_880] {
        let summaries = subject.behind_summaries(subject.summaries(tokens));
        let work = || {
            answer(&summaries, &short).unwrap();
        };
        if group.time_long(&format!("{tokens} tokens"), work).is_some() {
            println!(
                "{tokens} tokens: answered from {} positions; the window ends before the text",
                summaries.positions()
            );
            shares("from summaries", short.get());
        }
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(answer_latency)
}
