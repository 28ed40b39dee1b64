//! Counts of the bits in which rows of bits differ from a query.

/// For each row of `asked.len()` words, in how many bits it differs from `asked`.
pub(crate) fn distances(rows: &[u64], asked: &[u64], to: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("popcnt") {
        // SAFETY: The processor has the instruction that the function was compiled for.
        return unsafe { counted(rows, asked, to) };
    }
    count(rows, asked, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn counted(rows: &[u64], asked: &[u64], to: &mut [u16]) {
    count(rows, asked, to);
}

#[inline(always)]
fn count(rows: &[u64], asked: &[u64], to: &mut [u16]) {
    for (row, to) in rows.chunks_exact(asked.len().max(1)).zip(to) {
        let differing: u32 = row.iter().zip(asked).map(|(row, asked)| (row ^ asked).count_ones()).sum();
        *to = u16::try_from(differing).unwrap_or(u16::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_bits_are_counted() {
        let rows = [0, 0, u64::MAX, 1, 0b101, 1 << 63];
        let mut found = [9; 3];
        distances(&rows, &[0, 1], &mut found);
        assert_eq!(found, [1, 64, 4]);
        count(&rows, &[0, 1], &mut found);
        assert_eq!(found, [1, 64, 4]);
    }
}
