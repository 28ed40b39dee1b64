//! Decoding one token behind a cache, and its share of the memory bandwidth.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use criterion::Criterion;
use lloco_benches::{Group, Share, Subject, limit};
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
        let share = Share::of_memory(subject.step_bytes(past) / seconds, limit);
        println!("{case}: {:.1} tokens/s, {share}", 1.0 / seconds);
        share.target(&format!("decode behind {case}"));
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(decode)
}
