//! Sequences of unequal length in one row of a batch, without padding; branches behind a common trunk, read once.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::operations::seen;

/// How input rows `[1, rows, hidden]` divide into trees: a trunk, and branches that each read on behind it.
///
/// A branch sees the trunk and itself, as if both had been read alone: many questions about one document cost its
/// positions once. A sequence on its own is a trunk without branches. Trees do not see each other.
///
/// ```
/// use lloco_decoder::Packing;
/// let mut packing = Packing::new();
/// let rows = packing.tree(100, &[12, 20]);
/// assert_eq!(rows, [0..100, 100..112, 112..132]);
/// assert_eq!(packing.tree(7, &[]), [132..139]);
/// assert_eq!(packing.rows(), 139);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packing {
    pieces: Vec<Piece>,
}

/// A run of rows, and the run that it reads on behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    /// Empty for none.
    pub(crate) trunk: Range<usize>,
}

impl Packing {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a trunk of so many rows, which may be 0, and branches behind it. Returns the rows of the trunk and of each
    /// branch.
    pub fn tree(&mut self, trunk: usize, branches: &[usize]) -> Vec<Range<usize>> {
        let start = self.rows();
        let trunk = start..start + trunk;
        let mut places = vec![trunk.clone()];
        self.pieces.push(Piece { rows: trunk.clone(), trunk: start..start });
        let mut next = trunk.end;
        for len in branches {
            let rows = next..next + len;
            next = rows.end;
            self.pieces.push(Piece { rows: rows.clone(), trunk: trunk.clone() });
            places.push(rows);
        }
        places
    }

    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.rows.end)
    }

    /// Its runs of rows in order; some may be empty.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The most positions that a row sees, itself included.
    pub(crate) fn longest(&self) -> usize {
        self.pieces.iter().map(|piece| piece.trunk.len() + piece.rows.len()).max().unwrap_or(0)
    }

    /// Positions that all rows see altogether.
    pub(crate) fn pairs(&self) -> f64 {
        self.pieces.iter().map(|piece| seen(piece.rows.len(), piece.trunk.len() + piece.rows.len())).sum()
    }

    /// The position of each row in what it belongs to, `[rows]`.
    pub(crate) fn positions(&self, device: &Device) -> Tensor<1, Int> {
        let positions = self.pieces.iter().flat_map(|piece| (piece.trunk.len()..).take(piece.rows.len()));
        let positions: Vec<i64> = positions.map(|position| position as i64).collect();
        let rows = positions.len();
        Tensor::from_data(TensorData::new(positions, [rows]), device)
    }
}
