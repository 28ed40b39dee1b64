//! Reading text into the KV cache, and its share of the rate that matrix products reach alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use criterion::Criterion;
use lloco_benches::{Group, Share, Subject};

fn prefill(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let limit = subject.product_rate();
    let mut group = Group::new(criterion, "prefill");
    for tokens in [512, 1536, 4096] {
        let ids = subject.document(tokens).unwrap();
        let case = format!("{tokens} tokens");
        let work = || drop(subject.prefill(1, &ids).unwrap());
        let seconds = match tokens {
            ..2048 => group.time(&case, tokens as u64, work),
            _ => group.time_long(&case, work),
        };
        let Some(seconds) = seconds else { continue };
        let rate = subject.prefill_operations(tokens) / seconds;
        let share = Share::of_products(rate, limit);
        println!("{case}: {:.1} tokens/s, {share}", tokens as f64 / seconds);
        share.target(&format!("prefill {case}"));
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(prefill)
}
