//! Decoding one token behind a cache, of one sequence or of each of a batch, and its share of the memory bandwidth.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use criterion::Criterion;
use lloco_benches::{Group, Share, Subject, limit};
use lloco_core::NoAdapter;

/// Sequences, and the positions that each is behind.
const CASES: [(usize, usize); 7] = [(1, 64), (1, 1024), (1, 4096), (4, 64), (4, 1024), (8, 64), (8, 1024)];

fn decode(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let limit = limit::bandwidth_of(subject.decoder().device());
    let mut group = Group::new(criterion, "decode");
    for (batch, past) in CASES {
        let case = match batch {
            1 => format!("{past} positions"),
            _ => format!("{past} positions, {batch} sequences"),
        };
        if !group.wants(&case) {
            continue;
        }
        let mut cache = subject.prefill(batch, &subject.document(past).unwrap()).unwrap();
        let step = || subject.decode(batch, &mut cache, &NoAdapter).unwrap();
        let Some(seconds) = group.time(&case, batch as u64, step) else { continue };
        let share = Share::of_memory(subject.step_bytes(batch, past) / seconds, limit);
        println!("{case}: {:.1} tokens/s, {share}", batch as f64 / seconds);
        if batch == 1 {
            share.target(&format!("decode behind {case}"));
        }
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(decode)
}
