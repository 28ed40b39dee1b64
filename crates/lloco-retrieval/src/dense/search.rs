//! One pass over all rows, on all cores.

use super::DenseIndex;
use super::rows::{RowType, Rows, Segment};
use crate::raw::dot::{dot_f16, dot_f32, widen};
use crate::raw::dot_i8::{Narrow, widen_i8};
use crate::raw::products::products;
use crate::topk::TopK;
use crate::{Embeddings, Filter, Hit};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that one task takes, at most.
const TASK: usize = 4096;

/// Tasks for each thread, so that none waits long for the last.
const TASKS: usize = 8;

/// Rows that are widened and multiplied at once: 48 of 384 numbers fill a third of a usual
/// 256 KiB second-level cache, with room for the queries and for the rows that come next.
const TILE: usize = 48;

/// From so many queries on, widening a row once for all of them pays.
const MANY: usize = 3;

pub(super) fn search(index: &DenseIndex, queries: &Embeddings, k: usize, filter: Option<Filter<'_>>) -> Vec<Vec<Hit>> {
    let none = || -> Vec<TopK> { queries.rows().map(|_| TopK::new(k)).collect() };
    let narrow = match index.row_type {
        RowType::I8 if queries.len() < MANY => queries.rows().map(Narrow::new).collect(),
        _ => Vec::new(),
    };
    let search = Search { index, queries, narrow, filter };
    let best = tasks(&index.segments)
        .into_par_iter()
        .fold(none, |mut best, task| {
            if queries.len() < MANY {
                search.row_by_row(&task, &mut best);
            } else {
                search.tile_by_tile(&task, &mut best);
            }
            best
        })
        .reduce(none, |a, b| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect());
    best.into_iter().map(TopK::into_hits).collect()
}

/// Some rows of one segment.
struct Task<'a> {
    segment: &'a Segment,
    rows: Range<usize>,
    /// Number of the segment's first row in the index.
    first: usize,
}

fn tasks(segments: &[Segment]) -> Vec<Task<'_>> {
    let rows: usize = segments.iter().map(Segment::len).sum();
    let size = (rows / (TASKS * rayon::current_num_threads())).next_multiple_of(TILE).clamp(TILE, TASK);
    let mut tasks = Vec::new();
    let mut first = 0;
    for segment in segments {
        let length = segment.len();
        for start in (0..length).step_by(size) {
            tasks.push(Task { segment, rows: start..length.min(start + size), first });
        }
        first += length;
    }
    tasks
}

struct Search<'a> {
    index: &'a DenseIndex,
    queries: &'a Embeddings,
    /// The queries in the form that rows of 8 bits are multiplied with.
    narrow: Vec<Narrow>,
    filter: Option<Filter<'a>>,
}

impl Search<'_> {
    fn row_by_row(&self, task: &Task<'_>, best: &mut [TopK]) {
        let dim = self.index.dim;
        let rows = task.segment.rows().part(task.rows.clone(), dim);
        match rows {
            Rows::F16(rows) => {
                for (row, place) in rows.chunks_exact(dim).zip(task.rows.clone()) {
                    for (query, best) in self.queries.rows().zip(best.iter_mut()) {
                        self.offer(task, place, dot_f16(row, query), best);
                    }
                }
            }
            Rows::F32(rows) => {
                for (row, place) in rows.chunks_exact(dim).zip(task.rows.clone()) {
                    for (query, best) in self.queries.rows().zip(best.iter_mut()) {
                        self.offer(task, place, dot_f32(row, query), best);
                    }
                }
            }
            Rows::I8 { scales, rows } => {
                for ((row, scale), place) in rows.chunks_exact(dim).zip(scales).zip(task.rows.clone()) {
                    for (query, best) in self.narrow.iter().zip(best.iter_mut()) {
                        self.offer(task, place, scale * query.dot(row), best);
                    }
                }
            }
        }
    }

    fn tile_by_tile(&self, task: &Task<'_>, best: &mut [TopK]) {
        let dim = self.index.dim;
        let mut wide = Vec::new();
        let mut scores = vec![0.0; TILE * self.queries.len()];
        for start in task.rows.clone().step_by(TILE) {
            let tile = start..task.rows.end.min(start + TILE);
            let rows = match task.segment.rows().part(tile.clone(), dim) {
                Rows::F32(rows) => rows,
                Rows::F16(rows) => {
                    wide.resize(rows.len(), 0.0);
                    widen(rows, &mut wide);
                    &wide
                }
                Rows::I8 { scales, rows } => {
                    wide.resize(rows.len(), 0.0);
                    widen_i8(rows, scales, dim, &mut wide);
                    &wide
                }
            };
            let next = tile.end..task.rows.end.min(tile.end + TILE);
            let ahead = task.segment.rows().part(next, dim).bytes();
            products(rows, self.queries.as_slice(), dim, ahead, &mut scores);
            for (scores, best) in scores.chunks_exact(tile.len()).zip(best.iter_mut()) {
                if best.admits_any(scores) {
                    for (&score, place) in scores.iter().zip(tile.clone()) {
                        self.offer(task, place, score, best);
                    }
                }
            }
        }
    }

    /// Lets a row into the best if its score suffices, it is alive and the filter agrees.
    #[inline]
    fn offer(&self, task: &Task<'_>, place: usize, score: f32, best: &mut TopK) {
        if !best.admits(score) || self.index.dead.contains(&(task.first + place)) {
            return;
        }
        if let Some(&key) = task.segment.keys().get(place)
            && self.filter.is_none_or(|filter| filter(key))
        {
            best.push(Hit { key, score });
        }
    }
}
