//! Compression of a long document, and its share of the rate that matrix products reach alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, Subject};

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
        println!(
            "{case}: {:.1} tokens/s, {:.1} GFLOP/s, {:.0} % of the product rate alone ({:.1} GFLOP/s)",
            ids.len() as f64 / seconds,
            rate / 1e9,
            100.0 * rate / limit,
            limit / 1e9
        );
    }
}

criterion_group!(benches, compress);
criterion_main!(benches);
