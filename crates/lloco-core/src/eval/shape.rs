//! What summaries look like as vectors: do they differ from one another, are they as long as embeddings?

use lloco_decoder::Decoder;
use lloco_lora::durable::values;
use serde::Serialize;

use crate::{Result, store::SummaryRows};

/// Rows of a summary that its effective rank is computed from, at most: evenly spaced ones.
const ROWS: usize = 256;
/// Rows of the embedding table that are on the host together.
const PIECE: usize = 4096;

/// Geometry of summary vectors, as means over documents.
///
/// Summaries that have collapsed, all rows alike, have a cosine near 1 and an effective rank near 1; a model that was
/// trained on embeddings reads rows of a very different norm badly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SummaryShape {
    /// Vectors of a document.
    pub vectors: f64,
    /// Effective rank of a document's vectors, of at most 256 of them: `e` to the entropy of the singular values, which
    /// are scaled to sum to 1 (Roy and Vetterli, 2007).
    pub effective_rank: f64,
    /// Mean cosine of two different vectors of a document.
    pub cosine: f64,
    /// Mean norm of a vector, divided by the mean norm of the rows of the model's embedding table.
    pub norm_ratio: f64,
}

impl SummaryShape {
    /// The means over documents' summaries; all 0 for none.
    pub(crate) fn of(summaries: &[SummaryRows], embedding_norm: f64) -> Self {
        let mut sum = Self::default();
        let full = summaries.iter().filter(|summary| summary.rows() > 0);
        let count = full.clone().count().max(1) as f64;
        for summary in full {
            let rows: Vec<&[f32]> = summary.data().chunks_exact(summary.hidden()).collect();
            let norms: Vec<f64> = rows.iter().map(|row| dot(row, row).sqrt()).collect();
            sum.vectors += rows.len() as f64;
            sum.effective_rank += effective_rank(&rows);
            sum.cosine += cosine(&rows, &norms);
            sum.norm_ratio += norms.iter().sum::<f64>() / norms.len() as f64 / embedding_norm;
        }
        Self {
            vectors: sum.vectors / count,
            effective_rank: sum.effective_rank / count,
            cosine: sum.cosine / count,
            norm_ratio: sum.norm_ratio / count,
        }
    }
}

/// Mean norm of the rows of a model's embedding table.
pub(crate) fn embedding_norm(decoder: &Decoder) -> Result<f64> {
    let ids: Vec<u32> = (0..decoder.config().vocab_size).map(|id| id as u32).collect();
    let mut sum = 0.0;
    for ids in ids.chunks(PIECE) {
        let norms = decoder.embed(ids)?.square().sum_dim(2).sqrt();
        sum += values("norms of embeddings", norms)?.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum / ids.len().max(1) as f64)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Mean cosine of two different rows; 1 for a single one. Rows of norm 0 count as orthogonal to all.
fn cosine(rows: &[&[f32]], norms: &[f64]) -> f64 {
    let n = rows.len() as f64;
    if n < 2.0 {
        return 1.0;
    }
    // The square of the sum of unit rows is the sum over all pairs, a row with itself included.
    let mut total = vec![0.0; rows.first().map_or(0, |row| row.len())];
    let mut own = 0.0;
    for (row, norm) in rows.iter().zip(norms).filter(|(_, norm)| **norm > 0.0) {
        own += 1.0;
        total.iter_mut().zip(*row).for_each(|(sum, value)| *sum += f64::from(*value) / norm);
    }
    (total.iter().map(|value| value * value).sum::<f64>() - own) / (n * (n - 1.0))
}

fn effective_rank(rows: &[&[f32]]) -> f64 {
    let n = rows.len().min(ROWS);
    let rows: Vec<&[f32]> = (0..n).filter_map(|i| rows.get(i * rows.len() / n).copied()).collect();
    let gram: Vec<Vec<f64>> = rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
    let singular: Vec<f64> = eigenvalues(gram).into_iter().map(|value| value.max(0.0).sqrt()).collect();
    let sum: f64 = singular.iter().sum();
    let shares = singular.iter().map(|value| value / sum).filter(|share| *share > 0.0);
    shares.map(|share| -share * share.ln()).sum::<f64>().exp()
}

/// Eigenvalues of a symmetric matrix, by Jacobi rotations.
fn eigenvalues(mut matrix: Vec<Vec<f64>>) -> Vec<f64> {
    let n = matrix.len();
    let size: f64 = matrix.iter().flatten().map(|value| value * value).sum();
    for _ in 0..30 {
        let off: f64 = (0..n).map(|i| matrix[i][..i].iter().map(|value| value * value).sum::<f64>()).sum();
        if off <= 1e-18 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut matrix, p, q);
            }
        }
    }
    (0..n).map(|i| matrix[i][i]).collect()
}

/// Makes the element `(p, q)` zero.
fn rotate(matrix: &mut [Vec<f64>], p: usize, q: usize) {
    let off = matrix[p][q];
    if off == 0.0 {
        return;
    }
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cos = 1.0 / (t * t + 1.0).sqrt();
    let sin = t * cos;
    for row in matrix.iter_mut() {
        let (a, b) = (row[p], row[q]);
        (row[p], row[q]) = (cos * a - sin * b, sin * a + cos * b);
    }
    let (above, below) = matrix.split_at_mut(q);
    for (a, b) in above[p].iter_mut().zip(below[0].iter_mut()) {
        (*a, *b) = (cos * *a - sin * *b, sin * *a + cos * *b);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn shape(rows: &[[f32; 4]]) -> SummaryShape {
        SummaryShape::of(&[SummaryRows::new(rows.len(), 4, rows.concat()).unwrap()], 2.0)
    }

    #[test]
    fn equal_rows_have_collapsed() {
        let found = shape(&[[1.0, 2.0, 2.0, 0.0]; 9]);
        assert!((found.effective_rank - 1.0).abs() < 1e-4, "{found:?}");
        assert!((found.cosine - 1.0).abs() < 1e-9 && (found.norm_ratio - 1.5).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn orthogonal_rows_have_full_rank() {
        let mut rows = [[0.0; 4]; 4];
        rows.iter_mut().enumerate().for_each(|(i, row)| row[i] = 3.0);
        let found = shape(&rows);
        assert!((found.effective_rank - 4.0).abs() < 1e-6 && found.cosine.abs() < 1e-9, "{found:?}");
        // Twice the same directions change nothing but the cosine: 4 of 28 pairs are equal.
        let twice = shape(&[rows, rows].concat());
        assert!((twice.effective_rank - 4.0).abs() < 1e-4 && (twice.cosine - 1.0 / 7.0).abs() < 1e-9, "{twice:?}");
    }

    #[test]
    fn eigenvalues_are_those_of_the_matrix() {
        // Singular values 3 and 1 of [[2, 1], [1, 2]].
        let found = shape(&[[2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]]);
        let expected = -(0.75_f64 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln());
        assert!((found.effective_rank - expected.exp()).abs() < 1e-9, "{found:?}");
        let mut values = eigenvalues(vec![vec![4.0, 1.0, 0.0], vec![1.0, 3.0, 1.0], vec![0.0, 1.0, 2.0]]);
        values.sort_by(f64::total_cmp);
        for (found, expected) in values.iter().zip([3.0 - 3.0_f64.sqrt(), 3.0, 3.0 + 3.0_f64.sqrt()]) {
            assert!((found - expected).abs() < 1e-9, "{values:?}");
        }
    }

    #[test]
    fn nothing_has_no_shape() {
        assert_eq!(SummaryShape::of(&[], 1.0), SummaryShape::default());
        let zero = shape(&[[0.0; 4]; 3]);
        assert!(zero.cosine == 0.0 && zero.norm_ratio == 0.0 && zero.effective_rank.is_finite(), "{zero:?}");
    }
}
