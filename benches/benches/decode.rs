//! Decoding one token behind a cache, and its share of the memory bandwidth.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, Subject, limit};
use lloco_core::NoAdapter;

fn decode(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let limit = limit::bandwidth_of(subject.decoder().device());
    let mut group = Group::new(criterion, "decode");
    for past in [64, 1024, 4096] {
        let case = format!("{past} positions");
        if !group.wants(&case) {
            continue;
        }
        let mut cache = subject.prefill(&subject.document(past).unwrap()).unwrap();
        let Some(seconds) = group.time(&case, 1, || subject.decode(&mut cache, &NoAdapter).unwrap()) else { continue };
        let rate = subject.step_bytes(past) / seconds;
        println!(
            "{case}: {:.1} tokens/s, {:.1} GB/s, {:.0} % of the memory bandwidth ({:.1} GB/s)",
            1.0 / seconds,
            rate / 1e9,
            100.0 * rate / limit,
            limit / 1e9
        );
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
