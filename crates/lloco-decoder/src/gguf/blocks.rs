//! Block formats of GGUF tensors and their values as f32.
//!
//! A quantised row is a run of blocks. A block holds a fixed number of values in a fixed number of
//! bytes: small integers plus the scales that turn them back into numbers. All integers are
//! little-endian, scales are f16.

use half::{bf16, f16};

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockType {
    /// Plain f32.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 32 values of 4 bits, one scale: `d * (q - 8)`.
    Q4_0,
    /// 32 values of 4 bits, scale and minimum: `d * q + m`.
    Q4_1,
    /// 32 values of 5 bits, one scale: `d * (q - 16)`.
    Q5_0,
    /// 32 values of 5 bits, scale and minimum: `d * q + m`.
    Q5_1,
    /// 32 values of 8 bits, one scale: `d * q`.
    Q8_0,
    /// 256 values of 4 bits in 8 groups, each with a 6-bit scale and minimum.
    Q4K,
    /// 256 values of 5 bits in 8 groups, each with a 6-bit scale and minimum.
    Q5K,
    /// 256 values of 6 bits in 16 groups, each with an 8-bit scale.
    Q6K,
}

impl BlockType {
    /// All types, in the order of their numbers in the format.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Bf16,
    ];

    /// The type with this number in the format, if this crate reads it.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// The type's number in the format.
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The type's usual name, for example `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in one block.
    pub const fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Writes the values of `blocks` to `out`, block by block, until either is used up.
    ///
    /// `blocks` holds whole blocks of this type; `out` has room for their values.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => each(blocks, out, |block: &[u8; 4], out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*block)),
            Self::F16 => each(blocks, out, |block: &[u8; 2], out: &mut [f32; 1]| out[0] = scale(block, 0)),
            Self::Bf16 => each(blocks, out, |block: &[u8; 2], out: &mut [f32; 1]| {
                out[0] = bf16::from_le_bytes(*block).to_f32();
            }),
            Self::Q4_0 => each(blocks, out, q4_0),
            Self::Q4_1 => each(blocks, out, q4_1),
            Self::Q5_0 => each(blocks, out, q5_0),
            Self::Q5_1 => each(blocks, out, q5_1),
            Self::Q8_0 => each(blocks, out, q8_0),
            Self::Q4K => each(blocks, out, q4_k),
            Self::Q5K => each(blocks, out, q5_k),
            Self::Q6K => each(blocks, out, q6_k),
        }
    }
}

/// Calls `decode` for every block of `B` bytes and its `N` values.
fn each<const B: usize, const N: usize>(blocks: &[u8], out: &mut [f32], decode: impl Fn(&[u8; B], &mut [f32; N])) {
    for (block, out) in blocks.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        decode(block, out);
    }
}

/// The f16 at byte `at` of a block.
fn scale<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The fifth bits of 32 values, one a bit, at byte `at` of a block.
fn high_bits<const B: usize>(block: &[u8; B], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

// Blocks of 32: byte `i` of the 4-bit part holds value `i` in its low half and value `i + 16` in its high half.

/// `[d, 16 bytes]`
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for i in 0..16 {
        let q = i32::from(block[2 + i]);
        out[i] = ((q & 15) - 8) as f32 * d;
        out[i + 16] = ((q >> 4) - 8) as f32 * d;
    }
}

/// `[d, m, 16 bytes]`
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (scale(block, 0), scale(block, 2));
    for i in 0..16 {
        let q = block[4 + i];
        out[i] = f32::from(q & 15) * d + m;
        out[i + 16] = f32::from(q >> 4) * d + m;
    }
}

/// `[d, 32 high bits, 16 bytes]`
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for (out, q) in out.iter_mut().zip(q5_0_numbers(block)) {
        *out = f32::from(q) * d;
    }
}

/// What a `Q5_0` block's scale is multiplied with.
pub(crate) fn q5_0_numbers(block: &[u8; 22]) -> [i8; 32] {
    let high = high_bits(block, 2);
    std::array::from_fn(|i| {
        let low = block[6 + i % 16] >> (i / 16 * 4) & 15;
        (low | ((high >> i & 1) as u8) << 4) as i8 - 16
    })
}

/// `[d, m, 32 high bits, 16 bytes]`
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (scale(block, 0), scale(block, 2), high_bits(block, 4));
    for i in 0..16 {
        let q = u32::from(block[8 + i]);
        out[i] = (q & 15 | (high >> i & 1) << 4) as f32 * d + m;
        out[i + 16] = (q >> 4 | (high >> (i + 16) & 1) << 4) as f32 * d + m;
    }
}

/// `[d, 32 signed bytes]`
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for i in 0..32 {
        out[i] = f32::from(block[2 + i] as i8) * d;
    }
}

// Blocks of 256.

/// The scale and minimum of group `j` of 8. Times `d` and `dmin`, they are six bits each, packed in 12 bytes from byte 4
/// of a block: groups 0 to 3 in the low six bits of bytes `j` and `j + 4`, groups 4 to 7 in byte `j + 4` and the spare top
/// bits.
fn group<const B: usize>(block: &[u8; B], j: usize) -> (f32, f32) {
    let s = |i: usize| block[4 + i];
    let (scale, min) = if j < 4 {
        (s(j) & 63, s(j + 4) & 63)
    } else {
        (s(j + 4) & 15 | s(j - 4) >> 6 << 4, s(j + 4) >> 4 | s(j) >> 6 << 4)
    };
    (self::scale(block, 0) * f32::from(scale), self::scale(block, 2) * f32::from(min))
}

/// `[d, dmin, 12 bytes of group scales, 128 bytes]`
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min, numbers) = q4_k_group(block, j);
        for (out, q) in out.iter_mut().zip(numbers) {
            *out = scale * f32::from(q) - min;
        }
    }
}

/// Scale, minimum and numbers `q` of group `j` of a `Q4_K` block, `scale * q - minimum`: 32 bytes hold group `j` in their
/// low halves, `j + 1` in their high halves.
pub(crate) fn q4_k_group(block: &[u8; 144], j: usize) -> (f32, f32, [u8; 32]) {
    let (scale, min) = group(block, j);
    (scale, min, std::array::from_fn(|i| block[16 + j / 2 * 32 + i] >> (j % 2 * 4) & 15))
}

/// `[d, dmin, 12 bytes of group scales, 32 bytes of high bits, 128 bytes]`: as Q4_K, and bit `j` of high byte
/// `i` is the fifth bit of value `i` of group `j`.
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    for j in 0..8 {
        let (scale, min) = group(block, j);
        for i in 0..32 {
            let low = block[48 + j / 2 * 32 + i] >> (j % 2 * 4) & 15;
            let high = block[16 + i] >> j & 1;
            out[j * 32 + i] = scale * f32::from(low | high << 4) - min;
        }
    }
}

/// `[128 bytes of low halves, 64 bytes of high pairs, 16 signed scales, d]`: each half of the block holds four
/// runs of 32 values; run `r` takes bits `2r` of the pairs, and low bytes shared with run `r + 2`.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = scale(block, 208);
    for value in 0..256 {
        let (half, run, i) = (value / 128, value / 32 % 4, value % 32);
        let low = block[half * 64 + run % 2 * 32 + i] >> (run / 2 * 4) & 15;
        let high = block[128 + half * 32 + i] >> (run * 2) & 3;
        let scale = f32::from(block[192 + value / 16] as i8);
        out[value] = d * scale * (f32::from(low | high << 4) - 32.0);
    }
}
