//! Approximate search in two steps: the signs of a row's numbers say which rows may lie near, and of those the inner
//! products are computed.
//!
//! Signs take a bit a number, so that the first step reads a sixteenth of what rows of f16 take.

use super::DenseIndex;
use super::rows::{Rows, Segment};
use crate::raw::dot::{dot_f16, dot_f32};
use crate::raw::dot_i8::Narrow;
use crate::raw::hamming::distances;
use crate::topk::TopK;
use crate::{Embeddings, Filter, Hit};
use half::f16;
use rayon::prelude::*;

/// Rows that one task takes.
const TASK: usize = 16_384;

/// The signs of an index's rows, dead ones included.
#[derive(Debug)]
pub(super) struct Signs {
    /// `[rows, words]`
    words: Vec<u64>,
    /// Words a row.
    width: usize,
}

impl Signs {
    pub(super) fn of(index: &DenseIndex) -> Self {
        let width = index.dim.div_ceil(64);
        let mut words = vec![0; index.rows() * width];
        let mut rest = words.as_mut_slice();
        for segment in &index.segments {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(segment.len() * width);
            rest = others;
            own.par_chunks_mut(TASK * width).enumerate().for_each(|(task, words)| {
                let first = task * TASK;
                let rows = segment.rows().part(first..first + words.len() / width, index.dim);
                match rows {
                    Rows::F16(rows) => pack(rows, index.dim, words, |value: &f16| value.to_bits() >> 15 != 0),
                    Rows::F32(rows) => pack(rows, index.dim, words, |value| value.is_sign_negative()),
                    Rows::I8 { rows, .. } => pack(rows, index.dim, words, |value| *value < 0),
                }
            });
        }
        Self { words, width }
    }

    /// Takes in rows that were added.
    pub(super) fn extend(&mut self, vectors: &Embeddings) {
        let start = self.words.len();
        self.words.resize(start + vectors.len() * self.width, 0);
        let words = self.words.get_mut(start..).unwrap_or_default();
        pack(vectors.as_slice(), vectors.dim(), words, |value: &f32| value.is_sign_negative());
    }
}

/// A bit for each number, set where it is negative.
fn pack<T>(rows: &[T], dim: usize, words: &mut [u64], is_negative: impl Fn(&T) -> bool) {
    for (row, words) in rows.chunks_exact(dim.max(1)).zip(words.chunks_exact_mut(dim.div_ceil(64).max(1))) {
        for (numbers, word) in row.chunks(64).zip(words) {
            *word =
                numbers.iter().enumerate().fold(0, |word, (bit, value)| word | u64::from(is_negative(value)) << bit);
        }
    }
}

/// The best `k` of at least `candidates` rows whose signs are most like the query's.
pub(super) fn search(
    index: &DenseIndex,
    query: &[f32],
    k: usize,
    candidates: usize,
    filter: Option<Filter<'_>>,
) -> Vec<Hit> {
    let signs = index.signs.get_or_init(|| Signs::of(index));
    let mut asked = vec![0; signs.width];
    pack(query, index.dim, &mut asked, |value: &f32| value.is_sign_negative());
    let rows = index.rows();
    let mut apart = vec![0_u16; rows];
    let tasks = apart.par_chunks_mut(TASK).zip(signs.words.par_chunks(TASK * signs.width));
    tasks.for_each(|(apart, words)| distances(words, &asked, apart));
    let counts = apart
        .par_chunks(TASK)
        .fold(
            || vec![0_usize; index.dim + 1],
            |mut counts, apart| {
                for apart in apart {
                    counts.get_mut(usize::from(*apart)).into_iter().for_each(|count| *count += 1);
                }
                counts
            },
        )
        .reduce(|| vec![0; index.dim + 1], |a, b| a.iter().zip(b).map(|(a, b)| a + b).collect());

    let wanted = candidates.max(k).min(index.len());
    let mut taken = wanted;
    loop {
        // The distance within which there are so many rows.
        let mut seen = 0;
        let within = counts.iter().position(|count| {
            seen += count;
            seen >= taken
        });
        let within = within.unwrap_or(index.dim);
        let near = rows_within(index, &apart, within, filter);
        if near.len() >= wanted || within == index.dim {
            return rank(index, query, k, &near);
        }
        // Dead rows and the filter took some away.
        taken = taken.saturating_mul(4).max(1);
    }
}

/// A row that may be among the best.
#[derive(Clone, Copy)]
struct Near<'a> {
    segment: &'a Segment,
    place: usize,
    key: u64,
}

/// The live rows that the filter lets through and that differ in no more than `within` signs.
fn rows_within<'a>(index: &'a DenseIndex, apart: &[u16], within: usize, filter: Option<Filter<'_>>) -> Vec<Near<'a>> {
    let mut first = 0;
    let mut near = Vec::new();
    for segment in &index.segments {
        let apart = apart.get(first..first + segment.len()).unwrap_or_default();
        let admitted =
            apart.par_iter().zip(segment.keys()).enumerate().with_min_len(TASK).filter_map(|(place, row)| {
                let (&apart, &key) = row;
                let admits = usize::from(apart) <= within
                    && !index.dead.contains(&(first + place))
                    && filter.is_none_or(|filter| filter(key));
                admits.then_some(Near { segment, place, key })
            });
        near.par_extend(admitted);
        first += segment.len();
    }
    near
}

fn rank(index: &DenseIndex, query: &[f32], k: usize, near: &[Near<'_>]) -> Vec<Hit> {
    let narrow = Narrow::new(query);
    let score = |row: &Near<'_>| match row.segment.rows().part(row.place..row.place + 1, index.dim) {
        Rows::F16(row) => dot_f16(row, query),
        Rows::F32(row) => dot_f32(row, query),
        Rows::I8 { scales, rows } => scales.first().map_or(0.0, |scale| scale * narrow.dot(rows)),
    };
    let best = near.par_iter().with_min_len(256).fold(
        || TopK::new(k),
        |mut best, row| {
            best.push(Hit { key: row.key, score: score(row) });
            best
        },
    );
    best.reduce(|| TopK::new(k), TopK::merge).into_hits()
}
