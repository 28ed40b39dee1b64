//! New keys and values written behind those that a cache holds, in its type.

use super::super::rows::each_piece;
use super::Stored;

/// Up to so many rows, one thread writes them all.
const FEW: usize = 64;

/// Writes `x` `[batch, seq, heads, dim]` to the rows `from ..` of `cache` `[batch, heads, capacity, dim]`.
///
/// # Panics
/// If a length does not fit, or the capacity does not suffice.
pub(crate) fn append<T: Stored>(x: &[f32], cache: &mut [T], from: usize, [batch, seq, heads, dim]: [usize; 4]) {
    assert_eq!(x.len(), batch * seq * heads * dim, "new keys of [{batch}, {seq}, {heads}, {dim}]");
    if x.is_empty() {
        return;
    }
    assert_eq!(cache.len() % (batch * heads), 0, "cache of {batch} sequences and {heads} heads");
    let room = cache.len() / (batch * heads);
    let places = from * dim..(from + seq) * dim;
    let write = |i: usize, cache: &mut [T]| {
        let (sequence, head) = (i / heads, i % heads);
        for (row, place) in cache[places.clone()].chunks_exact_mut(dim).enumerate() {
            T::keep(&x[((sequence * seq + row) * heads + head) * dim..][..dim], place);
        }
    };
    if seq <= FEW {
        cache.chunks_exact_mut(room).enumerate().for_each(|(i, cache)| write(i, cache));
    } else {
        each_piece(cache, room, write);
    }
}
