//! How many positions a compressed document takes: the claim is 30 times fewer. That is a count: it has no share of the
//! machine's limit, and the time of compressing is that of the bench `compress`.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use criterion::Criterion;
use lloco_benches::{Group, Subject};

fn token_reduction(criterion: &mut Criterion) {
    let subject = Subject::load().unwrap();
    let mut group = Group::new(criterion, "token_reduction");
    for segments in [1, 4] {
        let ids = subject.document(segments * 1536).unwrap();
        let mut positions = 0;
        let case = format!("{} tokens", ids.len());
        let work = || positions = subject.compress(&ids).unwrap().dims()[0];
        let seconds = match segments {
            1 => group.time(&case, ids.len() as u64, work),
            _ => group.time_long(&case, work),
        };
        if seconds.is_none() {
            continue;
        }
        let ratio = ids.len() as f64 / positions as f64;
        println!("{case}: {positions} positions, {ratio:.2} times fewer");
        assert!(ratio >= 30.0, "the ratio is {ratio:.2}");
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(token_reduction)
}
