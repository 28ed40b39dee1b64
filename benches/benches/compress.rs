//! Compression of a long document, and its share of the rate that matrix products reach alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, Subject, limit};
use lloco_core::WeightType;

fn compress(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let limit = limit::product_rate(WeightType::Bf16, subject.decoder().device());
    let mut group = Group::new(criterion, "compress");
    for segments in [1, 4] {
        let ids = subject.document(segments * 1536).unwrap();
        let case = format!("{} tokens", ids.len());
        let Some(seconds) = group.time(&case, ids.len() as u64, || drop(subject.compress(&ids).unwrap())) else {
            continue;
        };
        // Each segment is read with its 50 summary tokens, behind the summaries of those before it.
        let cost: f64 = (0..segments).map(|done| subject.cost().read(1536 + 50, 50 * done)).sum();
        println!(
            "{case}: {:.1} tokens/s, {:.1} GFLOP/s, {:.0} % of the product rate alone ({:.1} GFLOP/s)",
            ids.len() as f64 / seconds,
            cost / seconds / 1e9,
            100.0 * cost / seconds / limit,
            limit / 1e9
        );
    }
}

criterion_group!(benches, compress);
criterion_main!(benches);
