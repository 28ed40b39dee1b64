//! Answering with 32 tokens from stored summaries, against reading the text: the claim is 7.62 times faster at 8k.
//!
//! Behind the model's window there is no text to compare with; there the summaries are timed alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, Subject, alternate};
use lloco_core::Prompt;

const PAIRS: usize = 3;
/// What the paper reports at best (section 4.5).
const CLAIM: f64 = 7.62;

fn answer_latency(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    // Question and answer need some of the window.
    let longest = subject.window() - 256;
    let mut group = Group::new(criterion, "answer_latency");
    for tokens in [2048, 4096, 8192, 32_768, 122_880] {
        let text = tokens.min(longest);
        let case = format!("{tokens} tokens");
        let mut prompt = None;
        let answer = || {
            let prompt = prompt.get_or_insert_with(|| {
                let ids = subject.document(if tokens == 8192 { text } else { tokens }).unwrap();
                subject.behind_summaries(subject.compress(&ids).unwrap())
            });
            subject.answer(prompt).unwrap();
        };
        if group.time(&case, 32, answer).is_none() {
            continue;
        }
        let Some(summaries) = prompt else { continue };
        if tokens > 8192 {
            println!("{case}: answered from {} positions; the window ends before the text", summaries.positions());
            continue;
        }
        let text = subject.behind_text(&subject.document(text).unwrap());
        let seconds = |prompt: &Prompt| subject.answer(prompt).map(|(prefill, decode, _)| prefill + decode);
        let turns = alternate(PAIRS, || seconds(&summaries), || seconds(&text)).unwrap();
        println!(
            "{case}: {:.2} s from {} positions, {:.2} s from {} positions of text: {:.2} times faster",
            turns.first,
            summaries.positions(),
            turns.second,
            text.positions(),
            turns.ratio
        );
        assert!(tokens < 8192 || turns.ratio >= CLAIM, "the claim is {CLAIM} times");
    }
}

criterion_group!(benches, answer_latency);
criterion_main!(benches);
