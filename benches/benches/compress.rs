//! Compression of a long document, and its share of the rate that matrix products reach alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use criterion::Criterion;
use lloco_benches::{Group, Share, Subject};

fn compress(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let limit = subject.product_rate();
    let mut group = Group::new(criterion, "compress");
    for segments in [1, 4] {
        let ids = subject.document(segments * 1536).unwrap();
        let case = format!("{} tokens", ids.len());
        let work = || drop(subject.compress(&ids).unwrap());
        let seconds = match segments {
            1 => group.time(&case, ids.len() as u64, work),
            _ => group.time_long(&case, work),
        };
        let Some(seconds) = seconds else { continue };
        let rate = subject.compress_operations(ids.len()) / seconds;
        let share = Share::of_products(rate, limit);
        println!("{case}: {:.1} tokens/s, {share}", ids.len() as f64 / seconds);
        share.target(&format!("compress {case}"));
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(compress)
}
