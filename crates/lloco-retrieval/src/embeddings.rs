use crate::{Error, Result};

/// A row-major matrix of vectors, `[rows, dim]`: what an embedder returns and an index takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    dim: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Takes `values` as rows of `dim` numbers each.
    ///
    /// # Errors
    /// `values` does not hold a whole number of rows.
    pub fn new(dim: usize, values: Vec<f32>) -> Result<Self> {
        match values.len().checked_rem(dim) {
            Some(0) => Ok(Self { dim, values }),
            rest => Err(Error::Dimension { expected: dim, found: rest.unwrap_or(values.len()) }),
        }
    }

    pub(crate) fn zeros(rows: usize, dim: usize) -> Self {
        Self { dim, values: vec![0.0; rows * dim] }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Vector number `row`, if there are so many.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        self.rows().nth(row)
    }

    /// The vectors in order.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dim.max(1))
    }

    /// All numbers, row by row.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> Option<&mut [f32]> {
        self.values.chunks_exact_mut(self.dim.max(1)).nth(row)
    }

    /// All numbers, row by row, without a copy.
    pub fn into_vec(self) -> Vec<f32> {
        self.values
    }

    /// Scales every vector to length 1; a vector of zeros stays as it is.
    pub fn normalize(&mut self) {
        for row in self.values.chunks_exact_mut(self.dim.max(1)) {
            let squares: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let scale = 1.0 / squares.sqrt().max(1e-12);
            row.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
        }
    }
}
