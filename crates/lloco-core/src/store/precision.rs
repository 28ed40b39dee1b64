//! Summary rows in memory, and how they are stored: f16, f32, or int8 with a scale for each row.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Summary vectors, `[rows, hidden]`, row by row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SummaryRows {
    rows: usize,
    hidden: usize,
    data: Vec<f32>,
}

impl SummaryRows {
    /// Takes `rows * hidden` values.
    ///
    /// # Errors
    /// [`Error::SummaryShape`] if there are more or fewer.
    pub fn new(rows: usize, hidden: usize, data: Vec<f32>) -> Result<Self> {
        if rows.checked_mul(hidden) != Some(data.len()) {
            let expected = "rows x hidden values".into();
            return Err(Error::SummaryShape { rows, hidden, values: data.len(), expected });
        }
        Ok(Self { rows, hidden, data })
    }

    /// How many vectors.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Their width.
    #[must_use]
    pub const fn hidden(&self) -> usize {
        self.hidden
    }

    /// The values, `[rows, hidden]`.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values by value.
    #[must_use]
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
}

/// How summaries are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// IEEE half precision, 2 bytes a value; relative error up to 2^-11.
    #[default]
    F16,
    /// Single precision, 4 bytes a value; exact.
    F32,
    /// One byte a value and a scale for each row; error up to 1/254 of the row's largest value.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Values as they are stored, little-endian.
pub(super) struct Packed {
    pub(super) values: Vec<u8>,
    /// One f32 a row, for int8 only.
    pub(super) scales: Option<Vec<u8>>,
}

impl Precision {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }

    /// Rows after one trip through storage.
    ///
    /// # Errors
    /// [`Error::SummaryValue`] for a value that is not finite, or beyond f16.
    pub fn round(self, rows: &SummaryRows) -> Result<SummaryRows> {
        let packed = self.pack(rows)?;
        let mut data = Vec::with_capacity(rows.data.len());
        self.unpack(&packed.values, packed.scales.as_deref().unwrap_or_default(), rows.hidden, &mut data);
        SummaryRows::new(rows.rows, rows.hidden, data)
    }

    /// The largest absolute error and the root mean square error relative to that of the values,
    /// of one trip through storage.
    ///
    /// # Errors
    /// As [`Precision::round`].
    pub fn loss(self, rows: &SummaryRows) -> Result<(f32, f64)> {
        let rounded = self.round(rows)?;
        let errors = rows.data.iter().zip(&rounded.data).map(|(a, b)| (a - b).abs());
        let largest = errors.clone().fold(0.0, f32::max);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let (error, size): (f64, f64) = (errors.map(square).sum(), rows.data.iter().copied().map(square).sum());
        Ok((largest, if size == 0.0 { 0.0 } else { (error / size).sqrt() }))
    }

    pub(super) fn pack(self, rows: &SummaryRows) -> Result<Packed> {
        let limit = if self == Self::F16 { f16::MAX.to_f32() } else { f32::MAX };
        if let Some(at) = rows.data.iter().position(|value| !value.is_finite() || value.abs() > limit) {
            let value = rows.data.get(at).copied().unwrap_or_default();
            return Err(Error::SummaryValue { row: at / rows.hidden.max(1), value, precision: self });
        }
        Ok(match self {
            Self::F16 => {
                let halves = rows.data.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes());
                Packed { values: halves.collect(), scales: None }
            }
            Self::F32 => {
                let values = rows.data.iter().flat_map(|value| value.to_le_bytes());
                Packed { values: values.collect(), scales: None }
            }
            Self::Int8 => {
                let (mut values, mut scales) = (Vec::with_capacity(rows.data.len()), Vec::new());
                for row in rows.data.chunks(rows.hidden.max(1)) {
                    let scale = row.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
                    scales.extend(scale.to_le_bytes());
                    // A row of zeros divides to NaN, which becomes 0.
                    let quantise = |value: &f32| (value / scale).round().clamp(-127.0, 127.0) as i8;
                    values.extend(row.iter().flat_map(|value| quantise(value).to_le_bytes()));
                }
                Packed { values, scales: Some(scales) }
            }
        })
    }

    /// Values back to f32, added to `data`. `scales` holds an f32 a row, for int8 only.
    pub(super) fn unpack(self, values: &[u8], scales: &[u8], hidden: usize, data: &mut Vec<f32>) {
        match self {
            Self::F16 => match bytemuck::try_cast_slice::<u8, f16>(values) {
                // Aligned, as in every file of ours: converted with vector instructions.
                Ok(halves) if cfg!(target_endian = "little") => {
                    let start = data.len();
                    data.resize(start + halves.len(), 0.0);
                    halves.convert_to_f32_slice(data.get_mut(start..).unwrap_or_default());
                }
                _ => data.extend(values.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())),
            },
            Self::F32 => data.extend(values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            Self::Int8 => {
                let scales = scales.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                for (row, scale) in values.chunks(hidden.max(1)).zip(scales) {
                    data.extend(row.iter().map(|byte| f32::from(byte.cast_signed()) * scale));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> SummaryRows {
        let data = (0..60_u8).map(|i| (f32::from(i) - 30.0) * 0.37 + 0.011).collect();
        SummaryRows::new(5, 12, data).unwrap()
    }

    #[test]
    fn loss_stays_within_what_is_promised() {
        let rows = rows();
        let largest = rows.data().iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert_eq!(Precision::F32.loss(&rows).unwrap(), (0.0, 0.0));
        let (absolute, relative) = Precision::F16.loss(&rows).unwrap();
        assert!(absolute > 0.0 && absolute <= largest / 2048.0 && relative < 1.0 / 2048.0);
        let (absolute, relative) = Precision::Int8.loss(&rows).unwrap();
        assert!(absolute > 0.0 && absolute <= largest / 253.9, "{absolute}");
        assert!(relative < 0.01, "{relative}");
        let zero = SummaryRows::new(1, 3, vec![0.0; 3]).unwrap();
        assert_eq!(Precision::Int8.round(&zero).unwrap(), zero);
    }

    #[test]
    fn f16_keeps_what_it_gave() {
        let once = Precision::F16.round(&rows()).unwrap();
        assert_eq!(Precision::F16.round(&once).unwrap(), once);
    }

    #[test]
    fn values_beyond_the_precision_are_refused() {
        for (precision, value) in
            [(Precision::F16, 70_000.0), (Precision::F32, f32::NAN), (Precision::Int8, f32::NEG_INFINITY)]
        {
            let mut rows = rows();
            rows.data[25] = value;
            assert!(matches!(precision.pack(&rows), Err(Error::SummaryValue { row: 2, .. })));
        }
    }
}
