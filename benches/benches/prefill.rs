//! Reading text into the KV cache, and its share of the rate that matrix products reach alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, Subject};

fn prefill(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let limit = subject.product_rate();
    let mut group = Group::new(criterion, "prefill");
    for tokens in [512, 1536, 4096] {
        let ids = subject.document(tokens).unwrap();
        let case = format!("{tokens} tokens");
        let work = || drop(subject.prefill(&ids).unwrap());
        let seconds = match tokens {
            ..2048 => group.time(&case, tokens as u64, work),
            _ => group.time_long(&case, work),
        };
        let Some(seconds) = seconds else { continue };
        let rate = subject.prefill_operations(tokens) / seconds;
        println!(
            "{case}: {:.1} tokens/s, {:.1} GFLOP/s, {:.0} % of the product rate alone ({:.1} GFLOP/s)",
            tokens as f64 / seconds,
            rate / 1e9,
            100.0 * rate / limit,
            limit / 1e9
        );
    }
}

criterion_group!(benches, prefill);
criterion_main!(benches);
